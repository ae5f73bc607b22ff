"""Asks which geometry attention takes for a graph where it may choose: flat, hyperbolic, round.

CAT, the curvature-adaptive transformer (2025, arXiv 2510.01634): trees want negative curvature,
rings a positive one, grids none. Here the weights of attention between the nodes of a graph are
trained to fall off with distance in it, and each node has its mixture of the three geometries.

    python -m experiments.curvature --config=configs/curvature.py:small --workdir=runs/curvature

The settings, presets and expected times are in configs/curvature.py.
"""

import numpy as np

from experiments.curvature.graphs import GRAPHS
from experiments.curvature.readers import GEOMETRIES, MIXTURE, MODELS, draw, trained
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2510.01634", "CAT: curvature-adaptive transformers")
SLACK = 0.02  # nats


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains attention of each geometry, and of all three, on each graph."""
    rows = {
        graph: {model: trained(run, config, graph, model) for model in MODELS} for graph in GRAPHS
    }
    draw(run, rows)
    return claims_of(rows)


def claims_of(rows: dict[str, dict[str, dict[str, np.ndarray]]]) -> list[Claim]:
    """Claims about losses and shares, by graph and model."""
    share: dict[str, dict[str, np.ndarray]] = {
        graph: dict(zip(GEOMETRIES, models[MIXTURE]["shares"].T, strict=True))
        for graph, models in rows.items()
    }

    def more_of(geometry: str, graph: str, other: str) -> Claim:
        here, there = share[graph][geometry], share[other][geometry]
        return PAPER.claim(
            f"{geometry}-{graph}",
            f"The {geometry} share is larger on the {graph} than on the {other}: mean over nodes.",
            float(there.mean()),
            float(here.mean()),
            ">",
            because=f"it is the share on the {other} in this run; equal shares are 0.333",
            seeds=here,
        )

    claims = [more_of("hyperbolic", "tree", "ring"), more_of("spherical", "ring", "tree")]
    for graph, models in rows.items():
        losses = {model: float(row["loss"].mean()) for model, row in models.items()}
        best = min(GEOMETRIES, key=losses.__getitem__)
        claims.append(
            PAPER.claim(
                f"mixture-{graph}",
                f"On the {graph} the mixture is no worse than the best geometry alone: KL from the "
                "wanted weights, nats a node.",
                losses[best],
                losses[MIXTURE],
                "<=",
                SLACK,
                because=f"it is what {best} has in this run",
                note=", ".join(f"{model} {loss:.3f}" for model, loss in losses.items()),
                seeds=models[MIXTURE]["loss"],
            )
        )
    return claims
