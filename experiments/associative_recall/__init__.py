"""Associative recall by the linear and memory families, and by softmax (arXiv 2312.04927).

    python -m experiments.associative_recall --config=configs/associative_recall.py:small \\
        --workdir=runs/associative_recall

The settings, presets and expected times are in configs/associative_recall.py.
"""

from experiments.associative_recall import overwriting, trained
from jattn.training import Claim, Run, run_studies

STUDIES = {"overwriting": overwriting.overwriting, "recall": trained.recall}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    trained.check(config)
    return run_studies(run, config, STUDIES)
