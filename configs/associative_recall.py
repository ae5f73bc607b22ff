"""Associative recall: how many pairs a mixer can hold, and how large its memory must be for them.

    python -m experiments.associative_recall --config=configs/associative_recall.py:small \\
        --workdir=runs/associative_recall

The same small decoder is trained with one mechanism after the other on multi-query associative
recall (arXiv 2312.04927): pairs of a key and a value, then the keys again, each of which asks for
its value. Softmax keeps all tokens; a recurrence keeps a state of fixed size, and what it can
recall depends on how it writes. Study "overwriting" needs no training: keys are written twice, and
only the second value counts.

Presets (time on 2 CPU cores):
    small   four mechanisms, 16 pairs, d = 16, 2 seeds; overwriting: 4 minutes.
    full    the same, 8 and 16 pairs, d = 16 and 32, one head and four: six times that.
    paper   all causal mechanisms of the linear and memory families, and softmax, on the grid of the
            task's paper: 64 to 512 tokens, 4 to 64 pairs, d = 64 to 512. For accelerators.

A model sits on a plateau of guessing before it recalls; how long is luck. Accuracies are means over
seeds with those that never left it, and all seeds are in the table.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 1200}, "size": {"vocabulary": 160, "overwriting.dim": 40}}
MAY_BE_ZERO = ("short_convolution", "warm_up")  # other sizes are at least 1
FOUR = ("softmax_attention", "linear_attention", "hedgehog", "delta_rule")


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Unit keys of so many dimensions, so many pairs written twice, random draws.
    config.overwriting = ml_collections.ConfigDict(dict(dim=32, pairs=16, draws=400))
    # Names of the zoo, separated by commas; "all": the causal ones of the families "linear" and
    # "memory", and softmax attention.
    config.mechanisms = ",".join(FOUR)
    # The task: tokens known, and sequences as (length, pairs).
    config.vocabulary = 128
    config.tasks = ((64, 16),)
    config.test_size = 512
    # The decoder: sizes as (model dimension, heads); the width of the short convolutions (0: none).
    config.sizes = ((16, 1),)
    config.layers = 2
    config.mlp_ratio = 2.0
    config.short_convolution = 4
    config.seeds = 2
    config.steps = 800
    config.warm_up = 100
    config.batch_size = 64
    # Each is tried; the best final accuracy counts.
    config.learning_rates = (1e-2,)
    config.weight_decay = 0.1
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.tasks = ((64, 8), (64, 16))
        config.sizes = ((16, 1), (32, 1), (32, 4))
    if preset == "paper":
        config.mechanisms = "all"
        config.vocabulary = 8_192
        config.tasks = ((64, 4), (128, 8), (256, 16), (512, 64))
        config.test_size = 3_072
        config.sizes = ((64, 1), (128, 1), (256, 1), (512, 1))
        config.mlp_ratio = 0.0
        config.steps = 100_000
        config.warm_up = 10_000
        config.learning_rates = (1e-4, 4.64e-4, 2.15e-3, 1e-2)
    return config
