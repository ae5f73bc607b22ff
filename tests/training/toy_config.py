"""Config of the toy experiment of these tests."""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "wrong", "bad", "slow")


def get_config(preset="small"):
    config = ml_collections.ConfigDict(
        {
            "steps": 40,
            "seeds": 2,
            "rate": 0.05,
            "expected": 1.0,
            "checkpoint_every": 10,
            "label": "toy",
            "study": "all",
            "batch_size": 16,
            "shuffle": False,
            "sizes": (1, 2),
            "scales": (0.5, 1.0),
            "words": ("one", "two"),
            "parallel": parallel_config(),
        }
    )
    if preset == "wrong":
        config.expected = 100.0
    if preset == "bad":
        config.rate = 1e30
    if preset == "slow":
        config.steps = 2_000_000
    return config
