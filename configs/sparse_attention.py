"""What sparse, local and retrieving attention keeps of dense attention: sixteen papers' claims.

    python -m experiments.sparse_attention --config=configs/sparse_attention.py:small \\
        --workdir=runs/sparse_attention

Tiles that windows visit are counted, choices of blocks and tokens are tried on keys of known
structure, and small models are trained where a claim is about what is learnt.

Presets (time on 2 CPU cores):
    small   2 seeds, 20 draws of made keys. Not run whole yet; the
            studies without training were.
    full    4 seeds, twice as many steps, 100 draws.
    paper   as full, with the decoder, blocks and steps of arXiv 2305.16300 for landmarks: the one
            of these papers whose sizes fit a task that can be made.

The claims' numbers are those that were expected before anything here was run. The papers train
large models on text, video and images; what is trained here is small, and says whether the effect
is there, not how large it is.
"""

from typing import Any

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"halos.steps": 800}, "size": {"halos.dim": 24}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config: Any = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Seeds of what is trained; draws of made keys.
    config.seeds = 2
    config.draws = 20
    # Study "tiles": cells along a side of the grid whose temporary bytes are counted.
    config.grid = 64
    # Study "segments": turns before a question.
    config.chats = (2, 4, 8, 16, 32)
    # Study "routing": copying, clusters of half the heads, windows of the others.
    config.routing = ml_collections.ConfigDict(
        dict(vocabulary=64, length=131, dim=64, heads=4, layers=2, clusters=8, window=16,
             decay=0.999, commitment=1e-4, steps=1_500, batch_size=16, learning_rate=2e-3)
    )  # fmt: skip
    # Study "turns": pairs that are given in a first turn, and questions that follow.
    config.turns = ml_collections.ConfigDict(
        dict(vocabulary=64, pairs=8, questions=8, dim=64, heads=2, layers=2, steps=1_200,
             batch_size=32, learning_rate=2e-3)
    )  # fmt: skip
    # Study "landmarks": tokens of a block with its landmark, and blocks that are fetched.
    config.landmarks = ml_collections.ConfigDict(
        dict(vocabulary=64, length=120, pairs=8, block=16, fetched=(2, 4), dim=64, heads=2,
             layers=2, steps=2_000, batch_size=32, learning_rate=2e-3)
    )  # fmt: skip
    # Studies of images: halo, learned connectivity, gates of lines.
    config.halos = ml_collections.ConfigDict(
        dict(halo=3, dim=16, heads=2, steps=400, batch_size=64, learning_rate=3e-3)
    )
    config.connectivity = ml_collections.ConfigDict(
        dict(dim=32, heads=2, layers=2, steps=800, predictor_steps=300, batch_size=32,
             learning_rate=1e-3)
    )  # fmt: skip
    config.lines = ml_collections.ConfigDict(
        dict(dim=32, steps=500, batch_size=64, learning_rate=1e-3)
    )
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset != "small":
        config.seeds, config.draws = 4, 100
        for name in ("routing", "turns", "landmarks", "halos", "connectivity", "lines"):
            config[name].update(steps=2 * config[name]["steps"])
    if preset == "paper":
        config.landmarks.update(
            dict(length=500, pairs=64, vocabulary=256, block=51, dim=1_024, heads=8, layers=12,
                 steps=240_000, learning_rate=2e-3)
        )  # fmt: skip
    return config
