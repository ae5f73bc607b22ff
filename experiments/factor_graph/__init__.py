"""Asks whether a bottleneck of two elements finds which variables belong together.

The consciousness prior (2017, arXiv 1709.08568): what is useful to think of at a time involves few
variables, since their joint distribution is a sparse factor graph. The paper has no experiment;
this is the smallest one: half of the variables each determine another one at the next moment, a
thought is two variables, and all that teaches which two is whether the thought holds later.

    python -m experiments.factor_graph --config=configs/factor_graph.py:small \\
        --workdir=runs/factor_graph

The settings, presets and expected times are in configs/factor_graph.py.
"""

import numpy as np

from experiments.factor_graph import figures
from experiments.factor_graph.thoughts import MODELS, trained
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 1709.08568", "The consciousness prior")
PRECISION = 0.8


def run_experiment(config, run: Run) -> list[Claim]:
    """Trains what is thought of, with the verifier and without, and looks at what was found."""
    found = {model: trained(run, config, model) for model in MODELS}
    figures.graph(run, config, found["verified"])
    figures.precision(run, found, chance(config))
    return claims_of(config, found)


def chance(config) -> float:
    """The share of pairs that a blind pick gets right."""
    return 1 / (2 * config.causes - 1)


def claims_of(config, found: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    """Precision with the verifier, without it, and where both elements are picked."""
    end = {model: each["precision"][-1] for model, each in found.items()}
    mean = {model: float(values.mean()) for model, values in end.items()}
    pairs = float(found["both"]["distinct"][-1].mean())
    note = f"{config.seeds} seeds, {config.steps} steps; chance {chance(config):.3f}"
    mine = "the paper has no number; chance is " + f"{chance(config):.3f}"
    return [
        PAPER.claim(
            "verified", "the first element given, the second one picked is the one it belongs to",
            PRECISION, mean["verified"], ">=", where="section 3", because=mine, note=note,
            seeds=end["verified"],
        ),
        PAPER.claim(
            "control", "where the verifier sees another moment than the one that follows, picks "
            "stay at chance", 3 * chance(config), mean["control"], "<=",
            because="it is three times chance", seeds=end["control"],
        ),
        PAPER.claim(
            "both", "no element given: the two that are picked belong together", PRECISION,
            mean["both"], ">=", because=mine, seeds=end["both"],
            note=f"of {config.causes} pairs there are, {pairs:.1f} are among 64 thoughts",
        ),
    ]  # fmt: skip
