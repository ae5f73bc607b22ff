"""Decoders with and without gates: training them, their attention on the first token, a figure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import Model, decoder, optimizer
from experiments.plots import COLORS, label, panels
from experiments.token_tasks import Example, backcopies, loss_in_training, mean_loss
from jattn.attention import attend, masks
from jattn.attention.positions import rotary
from jattn.mechanisms.layers.heads import qkv
from jattn.mechanisms.layers.linear_maps import linear
from jattn.nn import TransformerConfig
from jattn.training import Claim, Paper, Run, fit

PAPER = Paper("arXiv 2505.06708", "Gated attention for large language models")
STRONG = 0.3  # mean attention on the first token that counts as a sink

VARIANTS: dict[str, Any] = {
    "softmax": "softmax_attention",
    "gate by element": ("gated_attention", {"granularity": "element"}),
    "gate by head": ("gated_attention", {"granularity": "head"}),
}


def gates(run: Run, config) -> list[Claim]:
    """Trains attention with and without a gate on sequences in which heads have little to do."""
    rows = {name: trained(run, config, name) for name in VARIANTS}
    draw(run, rows, "sinks", f"{config.layers} layers of {config.heads} heads")
    plain = rows["softmax"]
    claims = []
    for name in list(VARIANTS)[1:]:
        row, id = rows[name], name.replace(" ", "-")
        claims += [
            PAPER.claim(
                f"{id}-closed",
                f"{name}: the gates are more closed than at the start, where they are at 0.5: "
                "largest mean of a layer and seed",
                0.5,
                float(row["gate"].max()),
                "<",
                because="it is a gate's value at the start",
                note=f"mean {row['gate'].mean():.2f}",
            ),
            PAPER.claim(
                f"{id}-loss",
                f"{name}: predicts as well as without: difference in nats a token",
                0.0,
                float(abs(row["loss"].mean() - plain["loss"].mean())),
                "<=",
                0.015,
                because="less counts as no difference",
                note=f"{row['loss'].mean():.3f} and {plain['loss'].mean():.3f}",
            ),
        ]
        strongest = int(plain["sink"].mean(0).argmax())
        before, after = (float(r["sink"][:, strongest].mean()) for r in (plain, row))
        if before > STRONG:
            claims.append(
                PAPER.claim(
                    f"{id}-sink",
                    f"{name}: less than half the attention on the first token, in the layer where "
                    "softmax attention has its strongest sink",
                    0.5 * before,
                    after,
                    "<",
                    because="it is half of what softmax has in this run",
                    note=f"layer {strongest + 1}: {before:.2f} without, {after:.2f} with; layers "
                    + ", ".join(f"{value:.2f}" for value in row["sink"].mean(0)),
                )
            )
        else:
            run.note(f"no sink to remove: softmax puts at most {before:.2f} on the first token")
    return claims


def train(run: Run, config, name: str, fit_name: str) -> tuple[Model, list[jax.Array]]:
    """Trains a decoder with that attention; its parameters have a leading axis of seeds."""
    model = decoder(
        TransformerConfig(
            vocab_size=config.vocabulary,
            dim=config.dim,
            heads=config.heads,
            layers=config.layers,
            mechanisms=VARIANTS[name],
            positions="rotary",
        )
    )
    params = fit(
        model.init,
        lambda params, batch: loss_in_training(model, params, batch),
        backcopies(config, config.length),
        optimizer(config.learning_rate, config.steps),
        run=run,
        name=fit_name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=max(config.steps // 20, 1),
    ).params
    return model, params


def held_out(config, length: int) -> Example:
    """Sequences to test on, the same for every model."""
    keys = jax.random.split(jax.random.key(config.seed + 1), config.test_size)
    return jax.vmap(backcopies(config, length))(keys)


def trained(run: Run, config, name: str) -> dict[str, np.ndarray]:
    """What `measured` gives, of a decoder trained with that attention."""
    fit_name = f"sinks_{name.replace(' ', '_')}"
    model, params = train(run, config, name, fit_name)
    return run.cached(fit_name, lambda: measured(config, model, params))


def measured(config, model: Model, params: list[jax.Array]) -> dict[str, np.ndarray]:
    """Loss `[seeds]`; attention on the first token, and the mean gate, `[seeds, layers]`."""
    batch = held_out(config, config.length)
    at_rest = (batch.tokens > config.triggers)[:, :, None]  # tokens with nothing to copy

    @jax.jit
    def measure(params):
        module = model.module(params)
        x, sinks, gates = module.embed(batch.tokens), [], []
        for block in module.blocks:
            here, own = block.mixer_norm(x), block.mixer.params
            weights = {key: param[...] for key, param in own.items()}
            first = first_token_weight(weights, here, config.heads)
            sinks.append((first * at_rest).sum() / (at_rest.sum() * config.heads))
            if "output_gate" in weights:
                gates.append(jax.nn.sigmoid(linear(here, weights["output_gate"])).mean())
            x = block(x)
        return mean_loss(model, params, batch), jnp.stack(sinks), jnp.array(gates)

    each = [measure([p[i] for p in params]) for i in range(config.seeds)]
    return {
        field: np.stack([np.asarray(result[i]) for result in each])
        for i, field in enumerate(("loss", "sink", "gate"))
    }


def first_token_weight(params: dict[str, jax.Array], x: jax.Array, heads: int) -> jax.Array:
    """Softmax attention's weight on the first token, `[b, t, h]`: its response to a value there."""
    query, key, _ = qkv(params, x, x, heads, heads)
    query, key = rotary(query), rotary(key)
    indicator = jnp.zeros((*key.shape[:3], 1), x.dtype).at[:, 0].set(1.0)
    return attend(query, key, indicator, mask=masks.causal())[..., 0]


def draw(run: Run, rows: dict[str, dict[str, np.ndarray]], name: str, of: str) -> None:
    """Saves a figure of attention on the first token, by layer and gate."""
    figure, axes = panels(1, 1, width=4.4)
    axis = axes[0, 0]
    for number, (variant, row) in enumerate(rows.items()):
        layers = np.arange(row["sink"].shape[1])
        axis.bar(
            layers + 0.27 * (number - 1),
            row["sink"].mean(0),
            0.25,
            yerr=row["sink"].std(0),
            color=COLORS[number],
            label=variant,
        )
        axis.set_xticks(layers, [f"layer {layer + 1}" for layer in layers])
    label(axis, "", "attention on the first token")
    run.save_figure(
        figure,
        name,
        f"{of}: mean attention on the first token from tokens that have nothing to copy, with and "
        "without a gate behind attention. Means and standard deviations over seeds.",
    )
