"""Attention as Pavlovian conditioning: capacity, errors, rules, phenomena (arXiv 2508.08289).

    python -m experiments.pavlovian --config=configs/pavlovian.py:small --workdir=runs/pavlovian

A memory of n random pairs answers each with its value and noise of power (n - 1) / d_k. The noise
concentrates, so the number of pairs it gives back all together grows as d_k, not as its root.

Presets (time on 2 CPU cores):
    small   d_k from 16 to 256: 2 minutes.
    full    d_k from 16 to 1024: 3 minutes.
    paper   d_k from 16 to 4096, ten times the trials.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"trials_a_phase": 15}, "size": {"dims": (24, 48, 96, 192)}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    # Interference: pairs of (d_k, n), and retrievals of each.
    config.noise_settings = (
        (16, 8),
        (64, 16),
        (64, 32),
        (64, 64),
        (64, 256),
        (256, 64),
        (256, 512),
    )
    config.retrievals = 32_000
    # Capacity: key dimensions, noise that counts as failure, allowed rate of any failure, trials
    # of the large memories and (at most) of the small ones.
    config.dims = (16, 32, 64, 128, 256)
    config.deltas = (1.0, 0.5)
    config.epsilon = 0.1
    config.trials = 104
    config.small_trials = 1_000
    # Errors: networks of 16 layers of 3 heads; draws of each chain of memories, times 8.
    config.networks = 4_000
    config.chains = 4
    # Rules: memories of each.
    config.memories = 256
    # Protocols: learning rate, what a trial leaves of a fading memory, trials that BCM's threshold
    # averages over, trials a phase.
    config.alpha = 0.3
    config.gamma = 0.9
    config.tau = 10.0
    config.trials_a_phase = 10
    # Softmax: numbers of pairs, and inverse temperatures.
    config.softmax_pairs = (64, 256)
    config.sharpness = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0)
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    if preset in ("full", "paper"):
        config.dims = (16, 32, 64, 128, 256, 512, 1024)
    if preset == "paper":
        config.dims = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
        config.retrievals = 320_000
        config.small_trials = 10_000
        config.networks = 40_000
        config.chains = 40
        config.memories = 2_560
    return config
