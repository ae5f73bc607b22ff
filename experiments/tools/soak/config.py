"""Settings of the run that is killed: some seconds of steps, a checkpoint every fraction of one."""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small",)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """Builds the config; there is one preset."""
    return ml_collections.ConfigDict(
        {
            "steps": 1500,  # steps of gradient descent
            "checkpoint_every": 100,  # steps between checkpoints
            "rate": 0.05,  # Adam's
            "parallel": parallel_config(),
        }
    )
