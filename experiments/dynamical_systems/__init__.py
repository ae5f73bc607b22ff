"""Reproduces the Dynamical Systems Framework (Sieber et al. 2024, arXiv 2405.15731).

One recurrence for attention, state space models and RNNs; what it costs softmax; and the mixers
trained side by side on associative recall.

    python -m experiments.dynamical_systems --config=configs/dynamical_systems.py:small \\
        --workdir=runs/dynamical_systems

The settings, presets and expected times are in configs/dynamical_systems.py.
"""

from experiments.dynamical_systems import forms, recall
from experiments.dynamical_systems.model import ATTENTION, MIXERS
from jattn.tasks.associative_recall import associative_recall
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "equivalences": forms.equivalences,
    "features": forms.features,
    "recall": recall.recall,
}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    for field, allowed in (("mixers", MIXERS), ("with_mlp", ATTENTION)):
        unknown = [name for name in config[field] if name not in allowed]
        if unknown:
            raise UsageError(f"{field}: expected any of {', '.join(allowed)}, got {unknown[0]!r}")
    for field in ("expansions", "mixer_expansions"):
        numbers = tuple(config[field])
        if not numbers or list(numbers) != sorted(set(numbers)):
            raise UsageError(f"{field}: expected rising numbers, got {numbers}")
    if not config.learning_rates:
        raise UsageError("learning_rates: expected at least one, got none")
    task = config.task
    try:
        for pairs in (task.pairs, config.mixer_pairs):
            associative_recall(task.vocabulary, task.length, pairs, power=task.power)
    except ValueError as error:
        raise UsageError(f"task.{error}") from None
    if config.features.scales[0] > 0.1 or len(config.features.scales) < 2:
        raise UsageError(
            "features.scales: expected 0.1 or less first and a larger one, got "
            f"{tuple(config.features.scales)}"
        )


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
