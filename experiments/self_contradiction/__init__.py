"""Asks whether a model's contradictions of itself give its hallucinations away, and removes them.

Self-contradictory hallucinations of large language models (2024, arXiv 2305.15852) has a model
write a text, write each of its sentences again without having seen it, compare the two, and revise
what cannot both be true: no knowledge from outside is asked. Here a small model has learned
biographies of which it is known what is certain and what is not.

    python -m experiments.self_contradiction --config=configs/self_contradiction.py:small \\
        --workdir=runs/self_contradiction

The settings, presets and expected times are in configs/self_contradiction.py.
"""

from experiments.self_contradiction.judges import judges
from experiments.self_contradiction.study import biographies
from experiments.word_models import require_counts
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"biographies": biographies, "judges": judges}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    require_counts(config, {"texts": 1, "votes": 1, "rounds": 0, "steps": 1, "pairs": 2})
    if not 0 < config.threshold < 1:
        raise UsageError(f"threshold: expected a number in (0, 1), got {config.threshold}")
    if not 0 <= config.ambiguous <= 1:
        raise UsageError(f"ambiguous: expected a number in [0, 1], got {config.ambiguous}")
    return run_studies(run, config, STUDIES)
