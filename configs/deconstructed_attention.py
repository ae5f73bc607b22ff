"""Attention taken apart: what a decoder loses without one of its ingredients (arXiv 2510.11602).

    python -m experiments.deconstructed_attention \\
        --config=configs/deconstructed_attention.py:small --workdir=runs/deconstructed_attention

The same decoder reads English text byte by byte, with softmax attention, with a variant of it in
every layer, and with the variant in every other layer; from that the variant's layers are then
taken out.

What comes out at `small` (nats a byte above standard attention's 1.740, in all layers, every other,
and with those taken out): mlp 0.56, 0.20, 2.2; non-approximate 0.12, 0.09, 2.5; static -0.02,
-0.01, 2.2. So mixing is needed and the layers are of use, but MLPs in every other layer cost more
than the 0.1 claimed, and static weights cost nothing at this size.

Presets (time on 2 CPU cores):
    small   three variants, 2 seeds: about 3 minutes.
    full    all six variants, longer training, 4 seeds.
    paper   all of them, a larger decoder; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 900}, "size": {"dim": 80}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Which variants: mlp, non-approximate, static, approximate, random, fixed.
    config.variants = ("mlp", "non-approximate", "static")
    # A text file to read; empty: the language reference that comes with Python.
    config.text = ""
    config.text_length = 64
    # The decoder; its positions are learned, as not all variants can rotate.
    config.dim = 64
    config.heads = 4
    config.layers = 4
    config.mlp_ratio = 2.0
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 600
    config.batch_size = 16
    config.learning_rate = 3e-3
    config.seeds = 2
    config.test_size = 256
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.variants = ("mlp", "non-approximate", "static", "approximate", "random", "fixed")
        config.steps = 2_000
        config.seeds = 4
    if preset == "paper":
        config.text_length = 512
        config.dim = 512
        config.heads = 8
        config.layers = 12
        config.steps = 20_000
        config.batch_size = 64
        config.learning_rate = 5e-4
    return config
