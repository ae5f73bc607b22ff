"""Pointer networks on points in a square (arXiv 1506.03134).

    python -m experiments.pointer_networks --config=configs/pointer_networks.py:small \\
        --workdir=runs/pointer_networks

Points are embedded by a learned linear map, Adam follows a cosine; the paper feeds coordinates, and
has stochastic gradient descent at a rate of 1. Hulls are labelled as they are drawn, triangles and
tours beforehand.

Presets (time on 2 CPU cores):
    small   one seed; hulls of 5 to 10 points, triangles and tours of 5. Not run whole yet.
    full    two seeds, more steps and examples, tours of 10 points.
    paper   the paper's sizes: 256 units, 5 to 50 points, a million examples and ten epochs.
"""

from typing import Any

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"hulls.steps": 8_000}, "size": {"hulls.dim": 160}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config: Any = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    config.seeds = 1
    # Points of a set in training, and of those that are scored.
    config.hulls = ml_collections.ConfigDict(
        dict(fewest=5, most=10, sizes=(5, 10, 15, 20), dim=128, steps=4_000, batch_size=64,
             learning_rate=2e-3, test=500)
    )  # fmt: skip
    config.triangles = ml_collections.ConfigDict(
        dict(points=5, examples=20_000, dim=64, steps=1_500, batch_size=128, learning_rate=4e-3,
             test=500)
    )  # fmt: skip
    config.tours = ml_collections.ConfigDict(
        dict(points=5, examples=20_000, dim=64, steps=1_000, batch_size=128, learning_rate=4e-3,
             test=1_000)
    )  # fmt: skip
    config.parallel = parallel_config()
    # Half of a batch each.
    config.parallel.cpu_devices = 2
    if preset != "small":
        config.seeds = 2
        config.hulls.update(steps=12_000, batch_size=128)
        config.triangles.update(examples=100_000, dim=128, steps=8_000)
        config.tours.update(points=10, examples=50_000, dim=128, steps=8_000)
    if preset == "paper":
        config.hulls.update(most=50, sizes=(5, 10, 50, 100, 200), dim=256, steps=78_000)
        config.triangles.update(points=10, examples=1_000_000, dim=256, steps=78_000)
        config.tours.update(examples=1_000_000, dim=256, steps=78_000)
    return config
