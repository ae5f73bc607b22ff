"""Asks what a model that sees gets wrong, by aspect, and what teaching one aspect does to others.

Evaluation and mitigation of agnosia in multimodal large language models (2023, arXiv 2309.04041)
finds that most models see some aspects of an image and guess others, and that tuning on
fine-grained conversations helps. Here a small model is taught coarsely, whether a shape is there
and how many objects there are, then finely, all aspects; or colour alone. Some pairs of shape and
colour are never shown.

    python -m experiments.agnosia --config=configs/agnosia.py:small --workdir=runs/agnosia

The settings, presets and expected times are in configs/agnosia.py.
"""

from experiments.agnosia.study import check, claims_of, measured
from jattn.training import Claim, Run


def run_experiment(config, run: Run) -> list[Claim]:
    """Teaches, asks, and says what is seen."""
    check(config)
    return claims_of(config, measured(run, config))
