"""Hedgehog: from a trained softmax model to a linear one, by feature maps (arXiv 2402.04347).

    python -m experiments.hedgehog_conversion --config=configs/hedgehog_conversion.py:small \\
        --workdir=runs/hedgehog_conversion

Study "features" compares feature maps without training, on random queries and keys: how spiky their
weights are, and how monotone in q.k. Study "conversion" trains a softmax decoder on associative
recall, puts linear attention in its place with the same projections, distils Hedgehog's feature
maps from the softmax weights, and fine-tunes the whole: against Hedgehog without distillation, and
against elu + 1, which has nothing to distil.

Study "images" does the same to a classifier of digits, whose patches all see each other: the
distilled student keeps 0.994 of the teacher's accuracy at once and 0.997 fine-tuned.

Presets (time on 2 CPU cores):
    small   16 pairs, one head of 32 dimensions, 2 seeds: 23 minutes on a busy machine, of an idle
            one not timed; images 3 minutes more.
    full    4 seeds, a longer fine-tuning: not timed.
    paper   a decoder of the size of the paper's recall task. For accelerators.

The paper's conversions of BERT, GPT-2 and Llama-2 need their weights and are not here.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {
    "horizon": {"teacher.steps": 900, "distillation.steps": 900, "fine_tuning.steps": 300},
    "size": {"vocabulary": 160},
}
MAY_BE_ZERO = ("short_convolution",)  # other sizes are at least 1


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Random queries and keys: dimensions, keys, standard deviation, draws.
    config.features = ml_collections.ConfigDict(dict(dim=16, count=64, std=1.5, draws=200))
    # The task, and the decoder.
    config.vocabulary = 128
    config.length = 64
    config.pairs = 16
    config.dim = 32  # the size of a head decides how much of softmax its features can follow
    config.heads = 1
    config.layers = 2
    config.mlp_ratio = 2.0
    config.short_convolution = 4
    config.seeds = 2
    config.batch_size = 64
    config.test_size = 512
    # The teacher, the feature maps, and the fine-tuning: steps and learning rates.
    config.teacher = ml_collections.ConfigDict(dict(steps=600, learning_rate=1e-2))
    config.distillation = ml_collections.ConfigDict(dict(steps=600, learning_rate=1e-2))
    config.fine_tuning = ml_collections.ConfigDict(dict(steps=200, learning_rate=2e-3))
    # A classifier of images, `epochs` of its teacher; after it as above.
    config.images = ml_collections.ConfigDict(
        dict(
            dataset="digits",
            patch=2,
            dim=32,
            heads=1,
            layers=2,
            mlp_ratio=2.0,
            epochs=30,
            batch_size=64,
            learning_rate=3e-3,
            seeds=3,
            distillation=dict(steps=300, learning_rate=1e-2),
            fine_tuning=dict(steps=200, learning_rate=1e-3),
        )
    )
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset == "full":
        config.seeds = 4
        config.fine_tuning.steps = 600
    if preset == "paper":
        config.vocabulary = 8_192
        config.length, config.pairs = 256, 32
        config.dim, config.heads, config.layers = 256, 4, 4
        config.seeds = 5
        config.teacher.update(dict(steps=50_000, learning_rate=1e-3))
        config.distillation.update(dict(steps=5_000, learning_rate=1e-2))
        config.fine_tuning.update(dict(steps=5_000, learning_rate=1e-4))
    return config
