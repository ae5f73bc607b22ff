"""Few keys or few values in a cache (arXiv 2501.13629).

    python -m experiments.key_value_heads --config=configs/key_value_heads.py:small \\
        --workdir=runs/key_value_heads

Bigrams in which three triggers repeat the token before them; two layers of four heads.

Presets (time on 2 CPU cores):
    small   600 steps, 2 seeds: about 2 minutes.
    full    2,400 steps, 6 seeds.
    paper   a larger decoder, trained longer; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 900}, "size": {"length": 64}}


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
    # The decoder; few: the number of heads of keys, or of values, where these are few.
    config.dim = 64
    config.heads = 4
    config.few = 1
    config.layers = 2
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 600
    config.batch_size = 32
    config.learning_rate = 2e-3
    config.seeds = 2
    config.test_size = 256
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.steps = 2_400
        config.seeds = 6
    if preset == "paper":
        config.length = 512
        config.dim = 2_048
        config.heads = 32
        config.few = 4
        config.layers = 22
        config.steps = 20_000
        config.batch_size = 64
        config.learning_rate = 3e-4
        config.seeds = 1
    return config
