"""One U-Net with the gates and mixers of several papers: what they add, pixel by pixel.

Study `far`: pixels whose class a cue far away decides (arXiv 1906.02849, 2110.06063, 2201.02973).
Study `scribbles`: segmentation from few labelled pixels, with gates that a discriminator judges
(arXiv 2007.01152). Study `restoration`: degraded digits (arXiv 2201.02973, 2505.00687).

    python -m experiments.dense_prediction --config=configs/dense_prediction.py:small \\
        --workdir=runs/dense_prediction

The settings, presets and expected times are in configs/dense_prediction.py.
"""

from experiments.dense_prediction import far, restoration, scribbles
from jattn.training import Claim, Run, run_studies

STUDIES = {"far": far.far, "scribbles": scribbles.scribbles, "restoration": restoration.restoration}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
