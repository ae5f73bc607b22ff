"""Reproduces "On the emergence of position bias in transformers" (2025, arXiv 2502.01951).

Which inputs do masked layers of attention favour for their place alone? The product of their maps
has closed forms and bounds: a causal mask favours the first position the more the deeper, a decay
brings recent ones back. Then attention-only networks are trained to classify in context, and asked
about an item that stands in two slots with other labels.

    python -m experiments.position_bias --config=configs/position_bias.py:small \\
        --workdir=runs/position_bias

The settings, presets and expected times are in configs/position_bias.py.
"""

from experiments.position_bias import rollouts, trained
from experiments.position_bias.networks import MASKS
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {
    "rollouts": rollouts.rollouts,
    "residual": rollouts.residual,
    "trained": trained.trained,
    "ends": trained.ends,
}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    for field in ("masks", "ends"):
        unknown = [name for name in config[field] if name not in MASKS]
        if unknown:
            raise UsageError(f"{field}: expected any of {', '.join(MASKS)}, got {unknown[0]!r}")
    if config.pairs % config.copies:
        raise UsageError(f"copies: expected a divisor of {config.pairs}, got {config.copies}")
    if config.length > 25:
        raise UsageError(
            f"length: expected at most 25, for the sums alternate; got {config.length}"
        )
    return run_studies(run, config, STUDIES)
