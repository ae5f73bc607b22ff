"""Reproduces "Weight decay regimes in grokking transformers" (2026, arXiv 2605.20441).

Modular arithmetic is memorised first and understood later, if weight decay is neither too weak nor
too strong. How often, when, and what cheap diagnostics of the attention maps show meanwhile: how
alike heads are, and how their entropies differ. All weight decays and seeds train in one program.

    python -m experiments.grokking_regimes --config=configs/grokking_regimes.py:small \\
        --workdir=runs/grokking_regimes

The settings, presets and expected times are in configs/grokking_regimes.py.
"""

from experiments.grokking_regimes.regimes import regimes
from experiments.grokking_regimes.variations import capacity, other_networks
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "regimes": regimes,
    "capacity": capacity,
    "networks": other_networks,
}


def check(config) -> None:
    """Refuses settings that could not work, before anything is computed."""
    missing = {0.0, *config.compare, config.collapse} - set(config.decays)
    if missing:
        raise UsageError(
            f"decays: expected 0, those of compare and collapse among them, got no {min(missing):g}"
        )
    if len(config.compare) != 2 or not 0 < config.compare[0] < config.compare[1]:
        raise UsageError(f"compare: expected two decays, the less first, got {config.compare}")
    if any(not 0 < f < 1 or f == 0.5 for f in config.fractions):
        raise UsageError(f"fractions: expected shares but a half, got {config.fractions}")
    for heads in (config.heads, *config.head_counts):
        if config.dim % heads:
            raise UsageError(f"heads: expected divisors of dim={config.dim}, got {heads}")
    if not 0 < config.reset_heads < config.heads:
        raise UsageError(
            f"reset_heads: expected 1 to {config.heads - 1} of {config.heads}, "
            f"got {config.reset_heads}"
        )


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    check(config)
    return run_studies(run, config, STUDIES)
