"""Asks how few matrices a transformer needs to tell digits apart.

Reducing the transformer architecture to a minimum (2024, arXiv 2410.13732): without MLPs, with one
matrix for queries and keys, without values.

    python -m experiments.minimal_transformer --config=configs/minimal_transformer.py:small \\
        --workdir=runs/minimal_transformer

The settings, presets and expected times are in configs/minimal_transformer.py.
"""

import numpy as np

from experiments.minimal_transformer import images
from jattn.tasks import images as digits
from jattn.training import Claim, Paper, Run, UsageError

PAPER = Paper("arXiv 2410.13732", "Reducing the transformer architecture to a minimum")
FULL, LEAST = "full", "symmetric"


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains the variants on every set of images."""
    claims, drawn = [], {}
    for name in config.datasets:
        try:
            found = digits.images(name)
        except ValueError as error:
            raise UsageError(f"datasets: {error}") from None
        rows = {v: images.trained(run, config, name, found, v) for v in config.variants}
        drawn[name] = rows
        if FULL in rows and LEAST in rows:
            claims += _claims(name, rows[FULL], rows[LEAST])
    images.draw(run, drawn)
    return claims


def _claims(name: str, full: dict[str, np.ndarray], least: dict[str, np.ndarray]) -> list[Claim]:
    count = len(full["test_accuracy"])
    percent = lambda row: f"{100 * row['test_accuracy'].mean():.1f} %"
    return [
        PAPER.claim(
            f"minimal-accuracy-{name}",
            f"{name}: without MLPs and with symmetric attention, test accuracy is at most 0.02 "
            "below that of the whole transformer",
            float(full["test_accuracy"].mean()) - 0.02,
            float(least["test_accuracy"].mean()),
            ">=",
            because="0.02 less than the other model has in this run counts as no loss",
            note=f"{count} seeds; full {percent(full)}, symmetric {percent(least)}",
        ),
        PAPER.claim(
            f"minimal-parameters-{name}",
            f"{name}: with about a quarter of the parameters",
            0.35,
            float(least["parameters"] / full["parameters"]),
            "<=",
            where="section on the symmetric model",
            because="embeddings, which both have, come on top of the quarter",
            note=f"{int(least['parameters']):,} and {int(full['parameters']):,}",
        ),
        PAPER.claim(
            f"minimal-training-{name}",
            f"{name}: MLPs win on the training set: the whole transformer's loss there is lower",
            float(least["train_loss"].mean()),
            float(full["train_loss"].mean()),
            "<=",
            because="it is what the other model has in this run",
        ),
    ]
