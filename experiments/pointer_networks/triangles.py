"""Delaunay triangulations, as sequences of corners."""

import numpy as np

from experiments.plots import COLORS, panels
from experiments.pointer_networks.networks import PAPER, decoded, known, trained
from jattn.tasks.planar import before_stop, delaunay_triangles
from jattn.training import Claim, Run


def triangles(run: Run, config) -> list[Claim]:
    """Trains on triangulations, and counts triangles that are found."""
    settings = config.triangles
    n = settings.points
    longest = 3 * (2 * n - 5) + 1  # of a hull of three points, and a stop
    rng = np.random.default_rng(config.seed)
    points = rng.random((settings.examples + settings.test, n, 2))

    def labelled():
        numbers = np.zeros((len(points), longest), int)
        for row, own in enumerate(points):
            corners = delaunay_triangles(own).ravel()
            numbers[row, : len(corners)] = corners
        return {"numbers": numbers}

    numbers = run.cached("triangle_labels", labelled)["numbers"]
    train, test = slice(settings.examples), slice(settings.examples, None)
    model, params = trained(run, config, "triangles", known(points[train], numbers[train]))

    def scored():
        guesses = decoded(model, params, points[test], longest)
        rows = [[triangle_scores(g, t) for g, t in zip(own, numbers[test], strict=True)]
                for own in guesses]  # fmt: skip
        return {"scores": np.array(rows).mean(1), "guesses": guesses}

    found = run.cached("triangles", scored)
    accuracy, coverage = found["scores"].T
    run.note(f"triangles of {n} points: accuracy {accuracy.mean():.3f}, "
             f"coverage {coverage.mean():.3f}")  # fmt: skip
    _draw(run, points[test], found["guesses"][0], numbers[test])
    return [
        PAPER.claim(
            "triangles-coverage", f"of the triangles of {n} points are found: share",
            0.8, float(np.median(coverage)), ">=", where="table 2",
            because="the paper has 0.93 of 5 points, with a million examples", seeds=coverage,
        ),
        PAPER.claim(
            "triangles-accuracy", "triangulations that are right: share", 0.5,
            float(np.median(accuracy)), ">=", where="table 2",
            because="the paper has 0.807 of 5 points, with a million examples", seeds=accuracy,
        ),
    ]  # fmt: skip


def triangle_scores(guess: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Whether the set of triangles is the true one, and the share of true ones that are there.

    Example:
        >>> triangle_scores(np.array([3, 2, 1, 2, 3, 4, 0]), np.array([1, 2, 3, 2, 4, 5, 0]))
        (0.0, 0.5)
    """
    ours, true = _set_of(guess), _set_of(target)
    return float(ours == true), len(ours & true) / len(true)


def _set_of(numbers: np.ndarray) -> set[frozenset[int]]:
    """Corners in threes; what is left over at the end is a triangle that there is not."""
    corners = before_stop(numbers)
    return {frozenset(corners[i : i + 3]) for i in range(0, len(corners), 3)}


def _draw(run: Run, points, guesses, targets) -> None:
    figure, axes = panels(1, 4, width=1.8, height=1.8)
    for axis, own, guess, target in zip(axes[0], points, guesses, targets, strict=False):
        for numbers, style, color in ((target, "-", "#bbbbbb"), (guess, "--", COLORS[1])):
            for corners in _set_of(numbers):
                order = [*corners, next(iter(corners))]
                axis.plot(*own[np.array(order) - 1].T, style, color=color)
        axis.plot(*own.T, ".", color="black")
        axis.set_xticks([])
        axis.set_yticks([])
    run.save_figure(figure, "triangles", "Triangulations: true ones grey, the network's dashed.")
