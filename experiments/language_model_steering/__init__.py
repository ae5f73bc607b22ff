"""Asks what a few numbers can make of a language model whose weights stay as they are.

LoFiT (arXiv 2406.01563): vectors at a few heads that a first training chooses. SITE (2507.20906):
what heads read behind demonstrations, injected where there are none. AUSteer (2026): channels that
differ in sign, scaled. Introspective awareness (2603.21396): concepts injected into the stream.
Neurofeedback (2505.13763): a model reports where its own states lie along an axis.

    python -m experiments.language_model_steering \\
        --config=configs/language_model_steering.py:small --workdir=runs/language_model_steering

The settings, presets and expected times are in configs/language_model_steering.py.
"""

from experiments.language_model_steering.channels import channels
from experiments.language_model_steering.concepts import concepts
from experiments.language_model_steering.feedback import feedback
from experiments.language_model_steering.heads import heads
from experiments.language_model_steering.injection import injection
from jattn.training import Claim, Run, run_studies

STUDIES = {
    "heads": heads,
    "injection": injection,
    "channels": channels,
    "concepts": concepts,
    "feedback": feedback,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
