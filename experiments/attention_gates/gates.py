"""Gates by their names in a config: what they cost, and what they are called in figures."""

from collections.abc import Mapping

import numpy as np

import jattn
from experiments.classifier_arms import entries_of
from jattn.training import Paper

PAPER = Paper("arXiv 2310.11198", "Channel attention for motor imagery decoding")


def costs(config, *, dim: int, tokens: int) -> dict[str, np.ndarray]:
    """Numbers that each gate learns, and microseconds of a batch of 32, in the order asked for."""
    gates = [gate for _, gate in entries_of(config.gates)]
    rows = iter(jattn.zoo.table([g for g in gates if g], dim=dim, tokens=tokens, batch=32, calls=9))
    pairs = [(0, 0.0) if gate is None else _pair(next(rows)) for gate in gates]
    return {
        "parameters": np.array([p for p, _ in pairs]),
        "microseconds": np.array([t for _, t in pairs]),
    }


def _pair(row) -> tuple[int, float]:
    return row.parameters, row.microseconds


def noted(run, found: Mapping[str, np.ndarray], cost: Mapping[str, np.ndarray]) -> None:
    """One line a gate: accuracy, parameters, time."""
    for row, (entry, accuracy) in enumerate(found.items()):
        run.note(
            f"{entry}: accuracy {accuracy.mean():.3f}, {cost['parameters'][row]:,} parameters, "
            f"{cost['microseconds'][row]:.0f} us"
        )
