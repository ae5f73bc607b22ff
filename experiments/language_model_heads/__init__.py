"""Asks what single heads of a trained language model do, and what is lost without them.

Induction and retrieval heads (AttentionInfluence, arXiv 2505.07293), copy suppression (2310.04625),
patterns of maps (AAI, 2026), rhythms of attention (2510.13554).

    python -m experiments.language_model_heads \\
        --config=configs/language_model_heads.py:small --workdir=runs/language_model_heads

The settings, presets and expected times are in configs/language_model_heads.py.
"""

from experiments.language_model_heads.patterns import patterns
from experiments.language_model_heads.retrieval import retrieval
from experiments.language_model_heads.rhythms import rhythms
from experiments.language_model_heads.suppression import suppression
from jattn.training import Claim, Run, run_studies

STUDIES = {
    "patterns": patterns,
    "retrieval": retrieval,
    "suppression": suppression,
    "rhythms": rhythms,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
