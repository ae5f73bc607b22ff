"""Asks which models of an image's future explain neurons that follow a hidden ball.

Neural foundations of mental simulation (2023, arXiv 2305.11772) finds that dynamics on the latents
of encoders trained on video explain responses to a hidden ball best. Here the neurons are made, of
three kinds, so that it is known what they know; floors and ceilings are computed; encoders learn
from single frames or from clips, and dynamics roll their latents out behind the occluder.

    python -m experiments.mental_simulation --config=configs/mental_simulation.py:small \\
        --workdir=runs/mental_simulation

The settings, presets and expected times are in configs/mental_simulation.py.
"""

from experiments.mental_simulation.floors import floors
from experiments.mental_simulation.latents import latents
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"floors": floors, "latents": latents}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if config.clips < 8 or config.clips % 2:
        raise UsageError(f"clips: expected an even number of at least 8, got {config.clips}")
    if config.trials < 2 or config.trials % 2:
        raise UsageError(f"trials: expected an even number of at least 2, got {config.trials}")
    if config.alpha <= 0:
        raise UsageError(f"alpha: expected a positive number, got {config.alpha}")
    if config.dim % config.heads:
        raise UsageError(f"heads: expected a divisor of dim={config.dim}, got {config.heads}")
    if config.past > 8:
        raise UsageError(
            f"past: expected at most 8 frames, which are seen of each clip, got {config.past}"
        )


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
