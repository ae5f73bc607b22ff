"""Transformers for images with fewer and fewer matrices (arXiv 2410.13732).

    python -m experiments.minimal_transformer --config=configs/minimal_transformer.py:small \\
        --workdir=runs/minimal_transformer

The same small transformer tells digits apart, whole, without MLPs, with one matrix for queries and
keys, with that collapsed to a head, and without values.

Presets (time on 2 CPU cores):
    small   three variants, two sets of digits, 3 seeds: about 2 minutes.
    full    all five variants.
    paper   all of them, 5 seeds.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"epochs": 45}, "size": {"dim": 48}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Sets of images, and what is left of the transformer.
    config.datasets = ("digits", "mnist")
    config.variants = ("full", "no MLP", "symmetric")
    # Patches with sides of so many pixels, by set.
    config.patch = ml_collections.ConfigDict(dict(digits=2, mnist=7))
    config.dim = 32
    config.heads = 4
    config.layers = 2
    config.mlp_ratio = 4.0
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.epochs = 30
    config.batch_size = 64
    config.learning_rate = 3e-3
    config.seeds = 3
    config.parallel = parallel_config()
    # Each seed has its own.
    config.parallel.cpu_devices = 3
    if preset in ("full", "paper"):
        config.variants = ("full", "no MLP", "symmetric", "collapsed", "no values")
    if preset == "paper":
        config.seeds = 5
    return config
