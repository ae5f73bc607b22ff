"""Networks that point at their inputs: hulls, triangles and tours of points (arXiv 1506.03134).

Study `hulls` trains one network on sets of 5 to 10 points and tries it on sets of up to 20. Study
`triangles` learns Delaunay triangulations, study `tours` shortest round trips by optimal labels.

    python -m experiments.pointer_networks --config=configs/pointer_networks.py:small \\
        --workdir=runs/pointer_networks

The settings, presets and expected times are in configs/pointer_networks.py.
"""

from experiments.pointer_networks import hulls, tours, triangles
from jattn.training import Claim, Run, UsageError, run_studies

STUDIES = {"hulls": hulls.hulls, "triangles": triangles.triangles, "tours": tours.tours}


def run_experiment(config, run: Run) -> list[Claim]:
    """Runs the chosen studies and returns their claims."""
    if not 3 <= config.hulls.fewest <= config.hulls.most:
        raise UsageError(
            f"hulls.fewest: expected 3 to hulls.most={config.hulls.most}, got {config.hulls.fewest}"
        )
    for name in ("triangles", "tours"):
        if config[name].points < 3:
            raise UsageError(f"{name}.points: expected at least 3, got {config[name].points}")
    if config.tours.points > 20:
        raise UsageError(
            f"tours.points: expected at most 20, whose best tour can be found, got "
            f"{config.tours.points}"
        )
    return run_studies(run, config, STUDIES)
