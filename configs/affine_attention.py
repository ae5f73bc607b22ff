"""Affine-scaled attention and the sink on the first token (arXiv 2602.23057).

    python -m experiments.affine_attention --config=configs/affine_attention.py:small \\
        --workdir=runs/affine_attention

Bigrams in which three triggers repeat the token before them: at every other token a head has
nothing to look for. Decoders with softmax attention and with affine-scaled attention.
The second puts 0.54 of the first's weight on the first token, at the same loss.

Presets (time on 2 CPU cores):
    small   two layers, 1,200 steps, 2 seeds: about 100 seconds.
    full    the same with 8 seeds.
    paper   a larger decoder, trained longer; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1800}, "size": {"length": 64}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # The task: tokens, how many of them are triggers, tokens a sequence.
    config.vocabulary = 33
    config.triggers = 3
    config.length = 48
    # The decoder.
    config.dim = 64
    config.heads = 2
    config.layers = 2
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 1_200
    config.batch_size = 32
    config.learning_rate = 2e-3
    config.seeds = 2
    config.test_size = 256
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.seeds = 8
    if preset == "paper":
        config.length = 512
        config.dim = 512
        config.heads = 8
        config.layers = 8
        config.steps = 20_000
        config.batch_size = 64
        config.learning_rate = 5e-4
        config.seeds = 4
    return config
