"""What the gates and mixers of several papers add to one U-Net, pixel by pixel.

    python -m experiments.dense_prediction --config=configs/dense_prediction.py:small \\
        --workdir=runs/dense_prediction

Everything is made, but for scikit-learn's digits: CHAOS, ACDC, COVIDx and SIDD are not here. The
adversarial step is one with the supervised one, with fixed weights: the paper alternates them, and
weighs the supervised part so that both are alike; labels are not flipped.

Presets (time on 2 CPU cores):
    small   two seeds. It was not run whole yet, only at toy sizes.
    full    five seeds, three times as many steps.
    paper   as full, on images of 128 x 128 and with four levels.
"""

from typing import Any

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
# What `python -m experiments.reproduce --verify` runs besides other seeds.
VERIFY = {"horizon": {"far.steps": 900}, "size": {"far.widths": (8, 24)}}


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config: Any = ml_collections.ConfigDict()
    # Separated by commas, or "all"; --help lists them.
    config.study = "all"
    config.seed = 0
    config.seeds = 2
    # Levels of the nets, and of the one whose map opens them; sides of blocks and grids, of tokens;
    # how much a pixel of a square counts against one of the ground.
    config.far = ml_collections.ConfigDict(
        dict(side=32, noise=0.3, widths=(8, 16), map_widths=(4, 8, 16, 16, 16), block=16,
             of_squares=5.0, steps=600, batch_size=16, learning_rate=3e-3, test=300)
    )  # fmt: skip
    # So many images have labels, of a share of their pixels; other masks are seen without images.
    config.scribbles = ml_collections.ConfigDict(
        dict(side=32, noise=1.0, smallest=4.0, largest=8.0, labelled=0.03, images=40,
             widths=(8, 16, 16, 32), adversarial=0.1, instance_noise=0.2, steps=600,
             batch_size=12, learning_rate=2e-3, test=300)
    )  # fmt: skip
    config.restoration = ml_collections.ConfigDict(
        dict(dataset="digits", noise=0.1, widths=(8, 16), block=8, steps=1_000, batch_size=16,
             learning_rate=3e-3, test=300)
    )  # fmt: skip
    config.parallel = parallel_config()
    # Each seed has its own.
    config.parallel.cpu_devices = 2
    if preset != "small":
        config.seeds = 5
        config.parallel.cpu_devices = 1
        for study in (config.far, config.scribbles, config.restoration):
            study.steps *= 3
    if preset == "paper":
        config.far.update(side=128, widths=(16, 32, 64, 128), map_widths=(16, 32, 64, 64, 64))
        config.scribbles.update(side=128, smallest=16.0, largest=32.0, widths=(16, 32, 64, 128))
        config.restoration.update(dataset="mnist", widths=(32, 64, 128), block=7)
    return config
