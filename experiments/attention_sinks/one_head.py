"""A sink that forms: one layer of one head, which must copy after a trigger and rest elsewhere.

The gate's effect on that sink, and on sequences of twice the length of training.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_sinks.gates import (
    PAPER,
    STRONG,
    VARIANTS,
    draw,
    held_out,
    measured,
    train,
)
from experiments.functional import Model, cross_entropy
from experiments.plots import COLORS, label, panels
from experiments.token_tasks import Example
from jattn.training import Claim, Run

STRETCHES = 4  # multiples of the length of training that are read


def one_head(run: Run, config) -> list[Claim]:
    """Trains one head with and without a gate, and reads on beyond the length of training."""
    settings = config.copy_and_resolve_references()
    settings.update(config.one_head)
    rows = {}
    for name in VARIANTS:
        fit_name = f"one_head_{name.replace(' ', '_')}"
        model, params = train(run, settings, name, fit_name)
        rows[name] = run.cached(
            fit_name,
            lambda model=model, params=params: (
                measured(settings, model, params)
                | {"stretches": _loss_of_stretches(settings, model, params)}
            ),
        )
    draw(run, rows, "sink_of_one_head", "A layer of one head")
    _draw_lengths(run, settings, rows)
    return _claims(settings, rows)


def _loss_of_stretches(settings, model: Model, params: list[jax.Array]) -> np.ndarray:
    """Loss `[seeds, stretches]` on each further stretch of as many tokens as in training."""
    batch = held_out(settings, STRETCHES * settings.length)

    @jax.jit
    def measure(params):
        logits = model.module(params)(batch.tokens)
        split = lambda x: jnp.split(x, STRETCHES, axis=1)
        pieces = map(Example, split(logits), split(batch.targets), split(batch.counts))
        return jnp.stack([cross_entropy(*piece) for piece in pieces])

    return np.stack([measure([p[i] for p in params]) for i in range(settings.seeds)])


def _claims(settings, rows: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    plain = rows["softmax"]
    before = float(plain["sink"].mean())
    claims = [
        PAPER.claim(
            "one-head-forms",
            "Without a gate, one head that must copy and rest has a sink: its attention on the "
            "first token where there is nothing to copy.",
            STRONG,
            before,
            ">",
            because="less is not called a sink; the paper's models have 0.467",
            seeds=plain["sink"][:, 0],
        )
    ]
    for name in list(VARIANTS)[1:]:
        row, id = rows[name], name.replace(" ", "-")
        claims += [
            PAPER.claim(
                f"one-head-{id}-sink",
                f"One head, {name}: less than half the attention on the first token.",
                0.5 * before,
                float(row["sink"].mean()),
                "<",
                because="it is half of what softmax has in this run; the paper has 0.048 of 0.467",
                note=f"{before:.2f} without; mean gate {row['gate'].mean():.2f}",
                seeds=row["sink"][:, 0],
            ),
            PAPER.claim(
                f"one-head-{id}-loss",
                f"One head, {name}: predicts as well as without, at the length of training: "
                "difference in nats a token.",
                0.0,
                float(abs(row["loss"].mean() - plain["loss"].mean())),
                "<=",
                0.015,
                because="less counts as no difference",
                note=f"{row['loss'].mean():.3f} and {plain['loss'].mean():.3f}",
            ),
            PAPER.claim(
                f"one-head-{id}-length",
                f"One head, {name}: at twice the length of training, loss on what comes after "
                "that length is no more than without.",
                float(plain["stretches"][:, 1].mean()),
                float(row["stretches"][:, 1].mean()),
                "<=",
                0.015,
                because="it is what softmax has in this run",
                note=f"up to it {row['stretches'][:, 0].mean():.3f}, without "
                f"{plain['stretches'][:, 0].mean():.3f}",
                seeds=row["stretches"][:, 1],
            ),
        ]
    return claims


def _draw_lengths(run: Run, settings, rows: dict[str, dict[str, np.ndarray]]) -> None:
    figure, axes = panels(1, 1, width=4.4)
    axis = axes[0, 0]
    read = settings.length * np.arange(1, STRETCHES + 1)
    for number, (name, row) in enumerate(rows.items()):
        values = row["stretches"]
        axis.errorbar(
            read, values.mean(0), values.std(0), color=COLORS[number], marker="o", label=name
        )
    axis.axvline(settings.length, color="#999999", linestyle=":", linewidth=1)
    label(axis, "tokens read", "nats a token")
    run.save_figure(
        figure,
        "length_of_one_head",
        "One head: loss on each further stretch of as many tokens as in training (dotted). Means "
        "and standard deviations over seeds.",
    )
