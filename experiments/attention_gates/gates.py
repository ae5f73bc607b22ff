"""Gates by their names in a config: what they cost, and what they are called in figures."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import jattn
from experiments.classifier_arms import Models, entries_of
from experiments.functional import Model
from jattn.training import Paper, UsageError

PAPER = Paper("arXiv 2310.11198", "Channel attention for motor imagery decoding")


def models_of(config, make: Callable[[Any], Model]) -> Models:
    """A model for each gate asked for.

    Raises:
        UsageError: no gate, an unknown one, or one that does not fit.
    """
    models = {}
    for entry, gate in entries_of(config.gates):
        try:
            models[entry] = make(gate)
        except (ValueError, TypeError) as error:
            raise UsageError(f"gates: {entry}: {str(error).splitlines()[0]}") from None
    return models


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
