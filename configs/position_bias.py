"""Position bias of masks and depth, in theory and in trained attention (arXiv 2502.01951).

    python -m experiments.position_bias --config=configs/position_bias.py:small \\
        --workdir=runs/position_bias

The rollout of masked layers against closed forms and bounds; then attention-only networks trained
to classify in context, asked which of two slots with the same item they answer from.

Presets (time on 2 CPU cores):
    small   2 and 4 layers, 2 seeds, 2,500 steps: 4 minutes (an estimate for an idle machine).
    full    2, 4, 6 and 10 layers, windows, prefixes and rotary too, 4 seeds, 5,000 steps.
    paper   the same with 50,000 steps.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 3_750}, "size": {"dim": 80}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Rollout: positions, and numbers of layers.
    config.length = 12
    config.depths = (1, 2, 5, 10)
    # Task: classes, labels, slots, slots of each class, deviation of an item from its class.
    config.classes = 2_048
    config.labels = 32
    config.pairs = 8
    config.copies = 4
    config.noise = 0.75
    # Model: width of tokens, of the read-out's hidden layers, numbers of attention layers.
    config.dim = 64
    config.hidden = 64
    config.layers = (2, 4)
    # Masks that are trained, of experiments.position_bias.networks.MASKS, and sizes of some.
    config.masks = ("causal", "none", "decay")
    config.gamma = 0.8
    config.window = 6
    config.prefix = 4
    # Masks of networks that are trained on answers in the first and the last slot.
    config.ends = ("decay",)
    config.steps = 2_500
    config.batch_size = 128
    config.learning_rate = 1e-3
    config.weight_decay = 1e-6
    config.seeds = 2
    # Test sequences for each pair of slots.
    config.test_size = 2_000
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.layers = (2, 4, 6, 10)
        config.masks = ("causal", "none", "decay", "window", "prefix", "rotary")
        config.ends = ("decay", "rotary")
        config.seeds = 4
        config.steps = 5_000
        config.test_size = 10_000
    if preset == "paper":
        config.steps = 50_000
    return config
