"""What a sink needs: small decoders with other normalisers and gates, trained on the same task."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import Model, decoder, optimizer
from experiments.plots import COLORS, label, panels
from experiments.token_tasks import backcopies, loss_in_training, mean_loss
from jattn import lens
from jattn.nn import TransformerConfig
from jattn.training import Claim, Paper, Run, fit

SURVEY = Paper("2026", "Attention sinks: a survey of use, interpretation and mitigation")
PLAIN = "softmax"
VARIANTS: dict[str, Any] = {
    PLAIN: "softmax_attention",
    "learned sink": ("softmax_attention", {"sink": True}),
    "sigmoid": "sigmoid_attention",
    "gate": ("gated_attention", {"granularity": "head"}),
}


def mitigation(run: Run, config) -> list[Claim]:
    """Trains a head that must copy after triggers and rest elsewhere, in each variant."""
    rows = {name: trained(run, config, name) for name in VARIANTS}
    _draw(run, rows)
    plain = rows[PLAIN]
    claims = [
        SURVEY.claim(
            "decoder-sink",
            "A head of softmax attention that must rest grows a sink: weight on the first token "
            "where there is nothing to copy.",
            0.3,
            float(plain["sink"].mean()),
            ">",
            because="less is not called a sink",
            seeds=plain["sink"],
        )
    ]
    for name in list(VARIANTS)[1:]:
        row = rows[name]
        claims.append(
            SURVEY.claim(
                f"mitigated-{name.replace(' ', '-')}",
                f"{name}: less weight on the first token than softmax.",
                float(plain["sink"].mean()),
                float(row["sink"].mean()),
                "<",
                because="it is what softmax has in this run",
                note=f"loss {row['loss'].mean():.3f}, softmax {plain['loss'].mean():.3f}",
                seeds=row["sink"],
            )
        )
    return claims


def trained(run: Run, config, name: str) -> dict[str, np.ndarray]:
    """Sink and loss `[seeds]` of one variant."""
    settings = config.decoder
    model = decoder(
        TransformerConfig(
            vocab_size=settings.vocabulary,
            dim=settings.dim,
            heads=1,
            layers=1,
            mechanisms=VARIANTS[name],
            positions="rotary",
        )
    )
    fit_name = f"decoder_{name.replace(' ', '_')}"
    params = fit(
        model.init,
        lambda params, batch: loss_in_training(model, params, batch),
        backcopies(settings, settings.length),
        optimizer(settings.learning_rate, settings.steps),
        run=run,
        name=fit_name,
        seeds=settings.seeds,
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=settings.seed,
        log_every=max(settings.steps // 20, 1),
    ).params
    return run.cached(fit_name, lambda: _measured(config, model, params))


def _measured(config, model: Model, params: list[jax.Array]) -> dict[str, Any]:
    settings = config.decoder
    keys = jax.random.split(jax.random.key(settings.seed + 1), settings.test_size)
    batch = jax.vmap(backcopies(settings, settings.length))(keys)
    at_rest = batch.tokens > settings.triggers

    @jax.jit
    def measure(params, batch, at_rest):
        maps = lens.run(model.module(params), batch.tokens, record=("probs",))[1]["probs"][0, :, 0]
        # Weights that need not sum to one are compared as shares of their row.
        share = maps[..., 0] / jnp.maximum(jnp.abs(maps).sum(-1), 1e-6)
        sink = (share * at_rest).sum() / at_rest.sum()
        return sink, mean_loss(model, params, batch)

    each = [measure([p[i] for p in params], batch, at_rest) for i in range(settings.seeds)]
    return {name: np.array([one[i] for one in each]) for i, name in enumerate(("sink", "loss"))}


def _draw(run: Run, rows: dict[str, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 1, width=4.0)
    for number, row in enumerate(rows.values()):
        axes[0, 0].bar(
            number, row["sink"].mean(), 0.6, yerr=row["sink"].std(), color=COLORS[number]
        )
    axes[0, 0].set_xticks(range(len(rows)), list(rows))
    label(axes[0, 0], "", "weight on the first token")
    run.save_figure(
        figure,
        "mitigation",
        "Weight on the first token from tokens that have nothing to copy, as a share of their row; "
        "one layer of one head. Means and standard deviations over seeds.",
    )
