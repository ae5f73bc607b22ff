"""Asks where a trained language model has its sinks, what they are for, and what tames them.

Secondary sinks (arXiv 2512.22213), massive activations (2503.03321), a survey (2026) and content
filters (2026) say what to look for; ACT (2406.15765), ZeroTuning (2505.11739) and StreamingLLM
(2309.17453) what happens if sinks are changed; RefAM (2509.22650) how they are given a place.

    python -m experiments.language_model_sinks \\
        --config=configs/language_model_sinks.py:small --workdir=runs/language_model_sinks

The settings, presets and expected times are in configs/language_model_sinks.py.
"""

from experiments.language_model_sinks.calibration import calibration
from experiments.language_model_sinks.first_token import first_token
from experiments.language_model_sinks.magnets import magnets
from experiments.language_model_sinks.mitigation import mitigation
from experiments.language_model_sinks.phases import phases
from jattn.training import Claim, Run, run_studies

STUDIES = {
    "phases": phases,
    "first_token": first_token,
    "calibration": calibration,
    "mitigation": mitigation,
    "magnets": magnets,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
