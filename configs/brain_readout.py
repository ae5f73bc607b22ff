"""How voxels read an image (arXiv 2505.17329), and their weights from examples (arXiv 2505.15813).

    python -m experiments.brain_readout --config=configs/brain_readout.py:small \\
        --workdir=runs/brain_readout

The brains are made: nothing of the Natural Scenes Dataset is here, nor the encoders that the papers
read images with. Features are drawn, and voxels read them as the papers say that areas do. In the
first run of "routing" features filled all dimensions of a token, so that no query could tell places
from them (R^2 of area "place" -0.08 after 2,000 steps, and no better after 2,800 of 8,000); now
they fill half.

With that, 11 of 12 claims hold: that ln T keeps long contexts from being worse does not, for they
are not worse without it either (+0.005 with, +0.005 without). "voxels" was begun once with batches
of 32 pairs of contexts, and stopped for its time.

Presets (time on 2 CPU cores):
    small   two seeds: "routing" 7 minutes and "voxels" 16 beside four other jobs, of which 0.6 and
            12 are training.
    full    five seeds, twice as many steps.
    paper   as full, with more voxels and tokens, and a hypernetwork of 20 blocks.
"""

from typing import Any

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"routing.steps": 3_000}, "size": {"routing.dim": 24}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config: Any = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    config.seeds = 2
    # Images of rows x columns tokens; so many of them are seen in training, again and again.
    config.routing = ml_collections.ConfigDict(
        dict(rows=7, columns=7, dim=32, voxels=12, noise=0.1, images=2_000, test=500, steps=2_000,
             batch_size=64, learning_rate=3e-3)
    )  # fmt: skip
    # Voxels have weights in a subspace of so many features; contexts of least to most pairs. The
    # numbers of pairs that claims compare: few, usual, beyond training.
    config.voxels = ml_collections.ConfigDict(
        dict(dim=16, rank=4, noise=0.3, width=48, heads=4, depth=4, least=4, most=64,
             lengths=(4, 8, 16, 32, 64, 128), compared=(8, 64, 128), steps=1_500, batch_size=16,
             learning_rate=2e-3, test=500)
    )  # fmt: skip
    config.parallel = parallel_config()
    # Each seed has its own.
    config.parallel.cpu_devices = 2
    if preset != "small":
        config.seeds = 5
        config.parallel.cpu_devices = 1
        config.routing.steps = 4_000
        config.voxels.steps = 3_000
    if preset == "paper":
        config.routing.update(rows=31, columns=31, dim=768, voxels=1_000, images=9_000)
        config.voxels.update(
            dict(width=800, heads=10, depth=20, least=30, most=500, compared=(30, 500, 1_000),
                 lengths=(10, 30, 100, 300, 500, 1_000))
        )  # fmt: skip
    return config
