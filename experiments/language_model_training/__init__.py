"""Asks what training gains from perturbed attention, and whether shifting it makes models forget.

Attention AT (arXiv 2009.12064) moves the logits of attention where that hurts most, and VAT
(2104.08763) where it changes most, without labels. Attention shifting (2510.17210) takes attention
off what a fact hangs on, with adapters of queries and keys alone.

    python -m experiments.language_model_training \\
        --config=configs/language_model_training.py:small --workdir=runs/language_model_training

The settings, presets and expected times are in configs/language_model_training.py.
"""

from experiments.language_model_training.readers import readers
from experiments.language_model_training.unlearning import unlearning
from jattn.training import Claim, Run, run_studies

STUDIES = {"readers": readers, "unlearning": unlearning}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
