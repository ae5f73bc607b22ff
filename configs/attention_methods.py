"""Methods of attention on small trained models.

    python -m experiments.attention_methods --config=configs/attention_methods.py:small \
        --workdir=runs/attention_methods

Presets (time on 2 CPU cores):
    small   every part with 2 or 3 seeds: 2 minutes.
    full    more seeds and longer training.
    paper   full with 8 seeds or more: the papers' models are far larger.
"""

import ml_collections

from jattn.training import parallel_config

PRESETS = ("small", "full", "paper")
PARTS: tuple[str, ...] = ()


def get_config(preset: str = "small") -> ml_collections.ConfigDict:
    """The configuration of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    config = ml_collections.ConfigDict()
    # Comma-separated: any of PARTS, or "all".
    config.part = "all"
    config.seed = 0
    config.parallel = parallel_config()
    config.parallel.cpu_devices = 2
    return config
