"""Memories that learn at test time: Titans (arXiv 2501.00663) and Miras (arXiv 2504.13173).

    python -m experiments.memory_models --config=configs/memory_models.py:small \\
        --workdir=runs/memory_models

The settings, presets and expected times are in configs/memory_models.py.
"""

from experiments.memory_models import ablations, grid, store, streams, trained
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "outliers": streams.outliers,
    "store": store.store,
    "deep": streams.deep,
    "forgetting": streams.forgetting,
    "recall": trained.recall,
    "needles": trained.needles,
    "ablations": ablations.ablations,
    "grid": grid.grid,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    if len(config.forgetting.forget) < 2:
        raise UsageError(
            f"forgetting.forget: expected at least 2, got {len(config.forgetting.forget)}"
        )
    trained.check(config)
    return run_studies(run, config, STUDIES)
