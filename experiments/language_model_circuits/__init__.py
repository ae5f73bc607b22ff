"""Asks which heads two tasks run on, what these share, and what training and force make of them.

Circuit component reuse (arXiv 2310.08744) on indirect objects and coloured objects; emergent heads
(2509.25758) of a model that is fine-tuned by low-rank adapters.

    python -m experiments.language_model_circuits \\
        --config=configs/language_model_circuits.py:small --workdir=runs/language_model_circuits

The settings, presets and expected times are in configs/language_model_circuits.py.
"""

from experiments.language_model_circuits.repair import repair
from experiments.language_model_circuits.reuse import reuse
from experiments.language_model_circuits.tuning import tuning
from jattn.training import Claim, Run, run_studies

STUDIES = {"reuse": reuse, "repair": repair, "tuning": tuning}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
