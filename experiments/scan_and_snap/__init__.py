"""Reproduces "Scan and Snap" (Tian et al. 2023, arXiv 2305.16380).

Closed forms of the training dynamics, the reduced dynamics, full gradient descent, and trained
models on synthetic sequence classes with many learning rates at once.

    python -m experiments.scan_and_snap --config=configs/scan_and_snap.py:small \\
        --workdir=runs/scan_and_snap

The settings, presets and expected times are in configs/scan_and_snap.py.
"""

from experiments.scan_and_snap import text, theory, training
from jattn.training import Claim, Run, run_studies

STUDIES = {
    "theory": theory.closed_forms,
    "reduced": theory.reduced,
    "snapped": theory.snapped,
    "descent": theory.population_descent,
    "small": training.small,
    "medium": training.medium,
    "text": text.text,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
