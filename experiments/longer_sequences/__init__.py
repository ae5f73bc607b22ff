"""Asks what attention still finds in sequences longer than those of training.

Positions by sinusoids or by distance (Music Transformer, arXiv 1809.04281), one softmax map or the
difference of two (grouped differential attention, arXiv 2510.06949), softmax or a softplus that is
re-weighted (arXiv 2501.13428): each in the task that its paper's promise is about.

    python -m experiments.longer_sequences --config=configs/longer_sequences.py:small \\
        --workdir=runs/longer_sequences

The settings, presets and expected times are in configs/longer_sequences.py.
"""

from experiments.longer_sequences.needle import needle
from experiments.longer_sequences.period import period
from experiments.longer_sequences.softplus import softplus
from jattn.training import Claim, Run, run_studies

STUDIES = {"period": period, "needle": needle, "softplus": softplus}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
