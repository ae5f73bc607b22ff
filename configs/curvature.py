"""Which geometry attention takes for a tree, a ring and a grid (arXiv 2510.01634).

    python -m experiments.curvature --config=configs/curvature.py:small --workdir=runs/curvature

The paper has link prediction on knowledge graphs; here attention between the nodes of three small
graphs is to fall off with distance. Flat, hyperbolic, spherical, and a mixture that each node sets.

Presets (time on 2 CPU cores):
    small   1,000 steps, 4 seeds: about two minutes, most of it compilation.
    full    4,000 steps, 16 seeds.
    paper   the same as full, with 32 seeds.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1500}, "size": {"head_dim": 3}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Size of a head, of which there are three.
    config.head_dim = 2
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine; nodes a step.
    config.steps = 1_000
    config.batch_size = 32
    config.learning_rate = 1e-2
    config.seeds = 4
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 1
    if preset in ("full", "paper"):
        config.steps = 4_000
        config.seeds = 16
    if preset == "paper":
        config.seeds = 32
    return config
