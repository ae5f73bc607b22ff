"""Whether a gate behind attention does away with the sink on the first token (arXiv 2505.06708)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compare.models import mean_loss
from experiments.compare.study import optimizer
from experiments.compare.tasks import Example
from experiments.functional import Model, decoder
from experiments.plots import COLORS, label, panels
from jattn.attention import attend, masks
from jattn.attention.positions import rotary
from jattn.mechanisms.projections import linear, qkv
from jattn.nn import TransformerConfig
from jattn.tasks.backcopy import backcopy, bigrams
from jattn.training import Claim, Run, fit

PAPER = "arXiv 2505.06708"
VARIANTS: dict[str, Any] = {
    "softmax": "softmax_attention",
    "gate by element": ("gated_attention", {"granularity": "element"}),
    "gate by head": ("gated_attention", {"granularity": "head"}),
}
STRONG = 0.3  # mean attention on the first token that counts as a sink


def compare_sinks(run: Run, config) -> list[Claim]:
    """Trains attention with and without a gate on sequences in which heads have little to do."""
    rows = {name: _trained(run, config, name) for name in VARIANTS}
    _draw(run, rows)
    plain = rows["softmax"]
    claims = []
    for name in list(VARIANTS)[1:]:
        row, id = rows[name], name.replace(" ", "-")
        claims += [
            Claim(
                f"{id}-closed",
                f"{name}: the gates are more closed than at the start, where they are at 0.5: "
                "largest mean of a layer and seed",
                PAPER,
                0.5,
                float(row["gate"].max()),
                "<",
                note=f"mean {row['gate'].mean():.2f}",
            ),
            Claim(
                f"{id}-loss",
                f"{name}: predicts as well as without: difference in nats a token",
                PAPER,
                0.0,
                float(abs(row["loss"].mean() - plain["loss"].mean())),
                "<=",
                0.015,
                note=f"{row['loss'].mean():.3f} and {plain['loss'].mean():.3f}",
            ),
        ]
        strongest = int(plain["sink"].mean(0).argmax())
        before, after = (float(r["sink"][:, strongest].mean()) for r in (plain, row))
        if before > STRONG:
            claims.append(
                Claim(
                    f"{id}-sink",
                    f"{name}: less than half the attention on the first token, in the layer where "
                    "softmax attention has its strongest sink",
                    PAPER,
                    0.5 * before,
                    after,
                    "<",
                    note=f"layer {strongest + 1}: {before:.2f} without, {after:.2f} with; layers "
                    + ", ".join(f"{value:.2f}" for value in row["sink"].mean(0)),
                )
            )
        else:
            run.note(f"no sink to remove: softmax puts at most {before:.2f} on the first token")
    return claims


def _model(config, name: str) -> Model:
    at = config.sinks
    settings = TransformerConfig(
        vocab_size=at.vocabulary,
        dim=at.dim,
        heads=at.heads,
        layers=at.layers,
        mechanisms=VARIANTS[name],
        positions="rotary",
    )
    return decoder(settings)


def _trained(run: Run, config, name: str) -> dict[str, np.ndarray]:
    """Loss `[seeds]`; attention on the first token, and the mean gate, `[seeds, layers]`."""
    at, model = config.sinks, _model(config, name)
    table = bigrams(jax.random.key(config.seed), at.vocabulary, at.triggers)
    draw = backcopy(table, at.triggers, at.length + 1)

    def sample(key):
        tokens = draw(key).tokens
        return Example(tokens[:-1], tokens[1:], jnp.ones(at.length, bool))

    label_of_fit = f"sinks_{name.replace(' ', '_')}"
    params = fit(
        model.init,
        lambda params, batch: mean_loss(model, params, batch),
        sample,
        optimizer(at.learning_rate, at.steps),
        run=run,
        name=label_of_fit,
        seeds=at.seeds,
        steps=at.steps,
        batch_size=at.batch_size,
        seed=config.seed,
        log_every=max(at.steps // 20, 1),
    ).params

    def tested():
        batch = jax.vmap(sample)(jax.random.split(jax.random.key(config.seed + 1), at.test_size))
        at_rest = (batch.tokens > at.triggers)[:, :, None]  # tokens with nothing to copy

        @jax.jit
        def measure(params):
            module = model.module(params)
            x, sinks, gates = module.embed(batch.tokens), [], []
            for block in module.blocks:
                here, own = block.mixer_norm(x), block.mixer.params
                weights = {key: param[...] for key, param in own.items()}
                first = first_token_weight(weights, here, at.heads)
                sinks.append((first * at_rest).sum() / (at_rest.sum() * at.heads))
                if "output_gate" in weights:
                    gates.append(jax.nn.sigmoid(linear(here, weights["output_gate"])).mean())
                x = block(x)
            return mean_loss(model, params, batch), jnp.stack(sinks), jnp.array(gates)

        each = [measure([p[i] for p in params]) for i in range(at.seeds)]
        return {
            field: np.stack([np.asarray(result[i]) for result in each])
            for i, field in enumerate(("loss", "sink", "gate"))
        }

    return run.cached(label_of_fit, tested)


def first_token_weight(params: dict[str, jax.Array], x: jax.Array, heads: int) -> jax.Array:
    """Softmax attention's weight on the first token, `[b, t, h]`: its response to a value there."""
    query, key, _ = qkv(params, x, x, heads, heads)
    query, key = rotary(query), rotary(key)
    indicator = jnp.zeros((*key.shape[:3], 1), x.dtype).at[:, 0].set(1.0)
    return attend(query, key, indicator, mask=masks.causal())[..., 0]


def _draw(run: Run, rows: dict[str, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 1, width=4.4)
    axis = axes[0, 0]
    for number, (name, row) in enumerate(rows.items()):
        layers = np.arange(row["sink"].shape[1])
        axis.bar(
            layers + 0.27 * (number - 1),
            row["sink"].mean(0),
            0.25,
            yerr=row["sink"].std(0),
            color=COLORS[number],
            label=name,
        )
        axis.set_xticks(layers, [f"layer {layer + 1}" for layer in layers])
    label(axis, "", "attention on the first token")
    run.save_figure(
        figure,
        "sinks",
        "Mean attention on the first token from tokens that have nothing to copy, with and without "
        "a gate behind attention. Means and standard deviations over seeds.",
    )
