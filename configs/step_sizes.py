"""Attention over channels as a step size, on a stiff equation (StepNet, arXiv 2308.09939).

    python -m experiments.step_sizes --config=configs/step_sizes.py:small --workdir=runs/step_sizes

Residual networks learn where the Van der Pol oscillator is after some time: plain ones, with
attention to the change, with StepNet's attention, and with that in half of the blocks.

What comes out at `small` is mostly not what the paper says of image classifiers: attention's test
error is 1.22 times that of plain blocks, its steps are not shorter where the network is stiff (rank
correlation 0.03), and half of the blocks do as well as all, but not the stiff ones better than the
others (1.09). StepNet's inputs are better than the change alone (0.82).

Presets (time on 2 CPU cores):
    small   12 blocks, 1,500 steps, 4 seeds: about 90 seconds.
    full    the same with 16 seeds and 10,000 steps.
    paper   full with a larger batch: the paper's own experiments are image classifiers.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"steps": 2250}, "size": {"hidden": 48}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    config.seed = 0
    # The oscillator x'' = mu (1 - x^2) x' - x: how stiff, for how long, and how many ways.
    config.mu = 10.0
    config.time = 2.0
    config.examples = 16_384
    config.test_examples = 2_048
    # The network: blocks, channels, hidden units of a block, and how much narrower attention is.
    config.blocks = 12
    config.channels = 16
    config.hidden = 32
    config.reduction = 4
    # Training: Adam with a warm-up over a tenth of the steps, then a cosine.
    config.steps = 1_500
    config.batch_size = 128
    config.learning_rate = 3e-3
    config.seeds = 4
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.steps = 10_000
        config.seeds = 16
    if preset == "paper":
        config.batch_size = 1_024
    return config
