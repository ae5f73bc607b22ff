"""Asks whether reaction and diffusion make a better world model than attention or an LSTM.

FluidWorld (arXiv 2603.21315) encodes frames by reaction and diffusion, writes them into a belief
field that evolves by the same equation, and reads the next frame from it. Here it learns clips of
16 x 16 pixels, against a convolutional LSTM and attention of the same number of parameters; all
then roll out on their own. The paper's curves of the rivals' roll-outs are schematic; these are
measured.

    python -m experiments.world_model --config=configs/world_model.py:small \\
        --workdir=runs/world_model

The settings, presets and expected times are in configs/world_model.py.
"""

from typing import Any

from experiments.world_model.models import world_models
from experiments.world_model.recovery import recovery
from experiments.world_model.rollouts import rollouts, trained
from experiments.world_model.worlds import clips, worlds_of
from jattn.training import Claim, Run, UsageError


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    if config.side % config.patch:
        raise UsageError(f"patch: expected a divisor of side={config.side}, got {config.patch}")
    if config.window < 1:
        raise UsageError(f"window: expected at least 1, got {config.window}")
    if config.carried < 0:
        raise UsageError(f"carried: expected at least 0, got {config.carried}")
    for world in worlds_of(config):
        clips(config, world, 2, test=True)
    try:
        world_models(config)
    except ValueError as error:
        raise UsageError(str(error)) from None


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains all models in all worlds, rolls them out, and spoils beliefs."""
    check(config)
    models = world_models(config)
    params: dict[str, dict[str, Any]] = {
        world: {name: trained(run, config, world, name, model) for name, model in models.items()}
        for world in worlds_of(config)
    }
    return rollouts(run, config, params) + recovery(run, config, params)
