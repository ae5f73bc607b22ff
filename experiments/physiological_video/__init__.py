"""The pulse in a video: soft masks, shifts in time and differences of frames (arXiv 2507.07795).

Four networks of one size, trained side by side on made videos: with all three, and without each.

    python -m experiments.physiological_video --config=configs/physiological_video.py:small \\
        --workdir=runs/physiological_video

The settings, presets and expected times are in configs/physiological_video.py.
"""

from experiments.physiological_video.study import pulse
from jattn.training import Claim, Run, run_studies

STUDIES = {"pulse": pulse}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    return run_studies(run, config, STUDIES)
