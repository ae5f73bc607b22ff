"""Turns a trained softmax decoder into a linear one by Hedgehog's feature maps (arXiv 2402.04347).

    python -m experiments.hedgehog_conversion --config=configs/hedgehog_conversion.py:small \\
        --workdir=runs/hedgehog_conversion

The settings, presets and expected times are in configs/hedgehog_conversion.py.
"""

from experiments.hedgehog_conversion import converted, features, images
from jattn.training import Claim, Run, run_studies

STUDIES = {
    "features": features.features,
    "conversion": converted.conversion,
    "images": images.image_conversion,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    converted.check(config)
    images.check(config)
    return run_studies(run, config, STUDIES)
