"""Shortest round trips, learnt from the best ones there are."""

import numpy as np

from experiments.plots import COLORS, panels
from experiments.pointer_networks.networks import PAPER, decoded, known, trained
from jattn.tasks.planar import before_stop, shortest_tour, tour_length
from jattn.training import Claim, Run

# Mean lengths of the best tours of so many points, as the paper prints them.
PRINTED = {5: 2.12, 10: 2.87}


def tours(run: Run, config) -> list[Claim]:
    """Trains on the best tours, and compares lengths with theirs and with those of any order."""
    settings = config.tours
    n = settings.points
    rng = np.random.default_rng(config.seed)
    points = rng.random((settings.examples + settings.test, n, 2))
    labels = run.cached("tour_labels", lambda: {"tours": np.stack([*map(shortest_tour, points)])})
    numbers = np.pad(labels["tours"], [(0, 0), (0, 1)])  # a stop behind each
    train, test = slice(settings.examples), slice(settings.examples, None)
    model, params = trained(run, config, "tours", known(points[train], numbers[train]))

    def scored():
        free = decoded(model, params, points[test], n + 1)
        valid = [[sorted(before_stop(g)) == list(range(1, n + 1)) for g in own] for own in free]
        guesses = decoded(model, params, points[test], n + 1, tour=True)
        return {"guesses": guesses, "valid": np.array(valid).mean(1)}

    found = run.cached("tours", scored)
    own = np.array(
        [[tour_length(p, before_stop(g)) for p, g in zip(points[test], seed, strict=True)]
         for seed in found["guesses"]]
    )  # fmt: skip
    best = np.array([tour_length(p, t) for p, t in zip(points[test], labels["tours"][test],
                                                       strict=True)])  # fmt: skip
    any_order = np.array([tour_length(p, range(1, n + 1)) for p in points[test]])
    run.note(f"tours of {n} points: {own.mean():.3f}, best {best.mean():.3f}, in any order "
             f"{any_order.mean():.3f}, valid without help {found['valid'].mean():.3f}")  # fmt: skip
    _draw(run, points[test], found["guesses"][0], labels["tours"][test])
    excess = own.mean(1) / best.mean() - 1
    claims = [
        PAPER.claim(
            "tour-length", f"tours of {n} points are as long as the best: excess", 0.05,
            float(np.median(excess)), "<=", where="table 3",
            because="the paper has less than 0.01 up to 10 points, with a million examples",
            note=f"{own.mean():.3f} against {best.mean():.3f}; in any order {any_order.mean():.3f}",
            seeds=excess,
        ),
        PAPER.claim(
            "tour-valid", "without being told, all points are visited once: share", 0.99,
            float(np.median(found["valid"])), ">=", where="section 4.4", seeds=found["valid"],
        ),
    ]  # fmt: skip
    if n in PRINTED:
        error = 2 * best.std() / len(best) ** 0.5
        claims.append(
            PAPER.claim(
                "best-length", f"mean length of the best tours of {n} points", PRINTED[n],
                float(best.mean()), "~=", float(error) + 0.005, where="table 3",
                note="tolerance: two standard errors, and half of the last digit printed",
            )
        )  # fmt: skip
    return claims


def _draw(run: Run, points, guesses, tours) -> None:
    figure, axes = panels(1, 4, width=1.8, height=1.8)
    for axis, own, guess, tour in zip(axes[0], points, guesses, tours, strict=False):
        for numbers, style, color in ((tour, "-", "#bbbbbb"), (guess, "--", COLORS[1])):
            closed = before_stop(numbers)
            axis.plot(*own[np.array([*closed, *closed[:1]], int) - 1].T, style, color=color)
        axis.plot(*own.T, ".", color="black")
        axis.plot(*own[0], "o", color=COLORS[0])
        axis.set_xticks([])
        axis.set_yticks([])
    run.save_figure(figure, "tours", "Tours: the best grey, the network's dashed.")
