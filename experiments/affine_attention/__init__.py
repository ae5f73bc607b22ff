"""Asks whether heads that may scale their weights still need a sink on the first token.

Affine-scaled attention (2026, arXiv 2602.23057): weights that need not sum to one can be small
where there is nothing to look at, in place of a sink, at no cost in likelihood.

    python -m experiments.affine_attention --config=configs/affine_attention.py:small \\
        --workdir=runs/affine_attention

The settings, presets and expected times are in configs/affine_attention.py.
"""

import numpy as np

from experiments.affine_attention.decoders import AFFINE, MECHANISMS, SOFTMAX, draw, trained
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2602.23057", "Affine-scaled attention")


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains both decoders on sequences in which heads have little to do."""
    rows = {name: trained(run, config, name) for name in MECHANISMS}
    for name, row in rows.items():
        layers = ", ".join(f"{value:.3f}" for value in row["sink"].mean(0))
        run.note(f"{name}: {row['loss'].mean():.4f} nats; first token by layer {layers}")
    draw(run, rows)
    return claims(rows)


def claims(rows: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    """What the paper says, of results by mechanism."""
    plain, affine = rows[SOFTMAX], rows[AFFINE]
    before, after = (row["sink"].sum(1) for row in (plain, affine))
    further = affine["loss"] - plain["loss"]
    return [
        PAPER.claim(
            "affine-sink",
            "Tokens with nothing to copy put less on the first token: weight summed over layers, "
            "over that of softmax attention, ratio of means.",
            0.7,
            float(after.mean() / before.mean()),
            "<=",
            because="three tenths less is a clear fall",
            note=f"{before.mean():.2f} in softmax attention, {after.mean():.2f} in affine",
            seeds=after / before,
        ),
        PAPER.claim(
            "affine-loss",
            "It predicts as well: difference in nats a token, mean of the seeds.",
            0.0,
            float(abs(further.mean())),
            "<=",
            0.015,
            because="less counts as no difference",
            note=f"{affine['loss'].mean():.3f} and {plain['loss'].mean():.3f}",
        ),
        PAPER.claim(
            "affine-varies",
            "Heads make use of the scale: standard deviation of alpha over tokens and heads, "
            "least of layers and seeds.",
            0.02,
            float(affine["spread"].min()),
            ">",
            because="less would be a constant",
            note=f"mean {affine['spread'].mean():.2f}",
        ),
    ]
