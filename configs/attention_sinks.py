"""Gates and attention sinks: where heads have nothing to do (arXiv 2505.06708).

    python -m experiments.attention_sinks --config=configs/attention_sinks.py:small \\
        --workdir=runs/attention_sinks

Bigrams in which three triggers repeat the token before them: at every other token a head has
nothing to look for. Attention with and without a gate behind it, by element and by head: in two
layers of two heads, whose sink is weak, and in one layer of one head, whose sink is strong.

Presets (time on 2 CPU cores):
    small   1,200 steps (one head: 800), 2 seeds: a few minutes.
    full    the same with 6 seeds, and 2,400 steps of the one head.
    paper   a larger decoder, trained longer; for accelerators.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1800, "one_head.steps": 1200}, "size": {"length": 64}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
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
    # One head: what differs there.
    config.one_head = ml_collections.ConfigDict()
    config.one_head.layers = 1
    config.one_head.heads = 1
    config.one_head.steps = 800
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.seeds = 6
        config.one_head.steps = 2_400
    if preset == "paper":
        config.length = 512
        config.dim = 512
        config.heads = 8
        config.layers = 8
        config.steps = 20_000
        config.batch_size = 64
        config.learning_rate = 5e-4
        config.seeds = 4
        config.one_head.steps = 20_000
    return config
