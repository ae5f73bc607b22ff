"""Memories that learn at test time: Titans (arXiv 2501.00663) and Miras (arXiv 2504.13173).

    python -m experiments.memory_models --config=configs/memory_models.py:small \\
        --workdir=runs/memory_models

A memory is a small model that is trained on the sequence while it reads it. Four studies need no
other training: which loss stands outliers, what one pass leaves of pairs, what a deep memory learns
that a matrix cannot, and what forgetting is good for. Two train small decoders, with memories,
retention or softmax attention: on associative recall, and on needles in haystacks up to four times
as long as in training. Two more, not in preset small, remove parts of Titans' memory as context on
text (`ablations`), and train every loss of Miras with every retention (`grid`).
`ablations` has not been run at these settings; of `grid` two cells have (squared loss, 3 seeds):
0.53 ± 0.25 of recall with retention l2, 0.49 ± 0.22 with lq.

Presets (time on 2 CPU cores):
    small   the streams; Titans' and Yaad's linear memories, retention, softmax: 6 minutes.
    full    all of Titans (memory, MAC, MAG, MAL) and of Miras: 20 minutes (an estimate).
    paper   larger models, longer haystacks. For accelerators.

The papers train language models of 170M to 1.3B parameters on up to 100B tokens; their perplexities
and benchmarks are not here. What is claimed of training is therefore an order, not a number.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 600, "deep.length": 4500}, "size": {"dim": 24}}
MAY_BE_ZERO = ("short_convolution",)  # other sizes are at least 1
SMALL = "softmax_attention:rotary=True,retention,titans_memory:depth=1,yaad:depth=1"
MORE = (
    f"{SMALL},softmax_attention,titans_memory,titans_mac:depth=1,titans_mag:depth=1:window=16,"
    "titans_mal:depth=1:window=16,moneta:depth=1,memora:depth=1"
)


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "outliers,store,deep,forgetting,recall,needles"
    config.seed = 0
    # A linear map shown with noise, a share of the values spoilt; step sizes that are tried.
    config.outliers = ml_collections.ConfigDict(
        dict(
            dim=16,
            length=400,
            noise=0.02,
            share=0.1,
            outlier=30.0,
            rates=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
            seeds=8,
        )
    )
    # One pass over pairs; step sizes, and ratios of the first matrix's to the others', are tried.
    config.store = ml_collections.ConfigDict(
        dict(
            dim=16,
            pairs=16,
            expansion=4,
            rates=(0.003, 0.006, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1.0),
            ratios=(0.1, 0.3, 1.0, 3.0, 10.0),
            seeds=8,
        )
    )
    # A map that is not linear; errors are means over blocks, and claims over the last tokens.
    config.deep = ml_collections.ConfigDict(
        dict(
            dim=16,
            length=3_000,
            block=100,
            tail=500,
            rates=(0.003, 0.01, 0.03, 0.1),
            momenta=(0.0, 0.5, 0.9),
            seeds=4,
        )
    )
    # A linear map that changes its sign; the first of `forget` is compared with the second.
    config.forgetting = ml_collections.ConfigDict(
        dict(
            dim=16,
            length=400,
            flip=200,
            tail=100,
            forget=(0.0, 0.03, 0.1),
            rates=(0.03, 0.1, 0.2, 0.3, 0.5),
            momenta=(0.0, 0.3, 0.6, 0.9),
            seeds=8,
        )
    )
    # Mechanisms of the zoo with options, e.g. "yaad:depth=1", separated by commas.
    config.mechanisms = SMALL
    config.vocabulary = 64
    config.recall = ml_collections.ConfigDict(dict(length=32, pairs=8))
    # Trained at `length`, tested at its multiples.
    config.needle = ml_collections.ConfigDict(dict(length=32, pairs=1, factors=(1, 2, 4)))
    # Titans' memory as context on text, without its parts: the language reference by default.
    config.ablations = ml_collections.ConfigDict(
        dict(
            mechanism="titans_mac",
            text="",
            text_length=64,
            dim=32,
            heads=2,
            layers=2,
            mlp_ratio=2.0,
            seeds=3,
            steps=300,
            batch_size=8,
            learning_rate=3e-3,
            test_size=128,
        )
    )
    # Losses of a memory, each with every retention; trained on recall as below, but for these.
    config.grid = ml_collections.ConfigDict(
        dict(losses=("l2", "huber", "lp"), seeds=3, steps=300, layers=1, batch_size=32)
    )
    config.test_size = 256
    # The decoder.
    config.dim = 16
    config.heads = 1
    config.layers = 2
    config.mlp_ratio = 2.0
    config.short_convolution = 4
    config.seeds = 2
    config.steps = 400
    config.batch_size = 32
    config.learning_rate = 1e-2
    config.weight_decay = 0.1
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.study = "all"
        config.mechanisms = MORE
    if preset == "paper":
        config.vocabulary = 8_192
        config.recall.update(dict(length=256, pairs=16))
        config.needle.update(dict(length=1_024, pairs=8, factors=(1, 2, 4, 16)))
        config.dim = 256
        config.heads = 4
        config.steps = 20_000
        config.learning_rate = 4e-4
    return config
