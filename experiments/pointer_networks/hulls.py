"""Convex hulls: one network, of sets of several sizes, on larger ones than it was trained on."""

import itertools

import jax
import numpy as np

from experiments.plots import COLORS, label, panels
from experiments.pointer_networks.networks import PAPER, decoded, trained
from jattn.tasks.planar import before_stop, hull_scores, hull_sequence, points_in_square
from jattn.training import Claim, Run

# Accuracies that another program reached with 6,000 steps, less a margin.
EXPECTED = {5: 0.75, 10: 0.5}
COVERAGE = 0.98


def hulls(run: Run, config) -> list[Claim]:
    """Trains on few points, and scores hulls of few and of more."""
    settings = config.hulls

    def sample(key):
        points, real = points_in_square(key, 1, fewest=settings.fewest, most=settings.most)
        return points[0], real[0], hull_sequence(points[0], real[0])

    model, params = trained(run, config, "hulls", sample)
    sets = {n: _sets(config.seed, n, settings.test) for n in settings.sizes}

    def scored():
        found = {}
        for n, (points, targets) in sets.items():
            guesses = decoded(model, params, points, n + 1)
            rows = [hull_scores(list(points), own, targets) for own in guesses]
            found[str(n)] = np.array(rows)  # [seeds, 3]
            found[f"{n} guesses"] = guesses
        return found

    found = run.cached("hulls", scored)
    for n in sets:
        accuracy, coverage, wrong = found[str(n)].mean(0)
        run.note(f"{n} points: accuracy {accuracy:.3f}, coverage {coverage:.4f}, "
                 f"not simple {wrong:.3f}")  # fmt: skip
    ceilings = {n: _ceiling(targets, settings.most) for n, (_, targets) in sets.items()}
    _draw(run, sets, found, ceilings, settings.most)
    return _claims(found, list(sets), settings.most, ceilings)


def _sets(seed: int, n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets of n points and their hulls' numbers."""
    key = jax.random.fold_in(jax.random.key(seed + 1), n)
    points = points_in_square(key, count, fewest=n, most=n)[0]
    return np.asarray(points), np.asarray(jax.jit(jax.vmap(hull_sequence))(points))


def _ceiling(targets: np.ndarray, vocabulary: int) -> float:
    """Share of hulls that a network which knows so many numbers could write at all."""
    return float((targets.max(1) <= vocabulary).mean())


def _claims(found, sizes: list[int], most: int, ceilings: dict[int, float]) -> list[Claim]:
    accuracy = {n: found[str(n)][:, 0] for n in sizes}
    coverage = {n: found[str(n)][:, 1] for n in sizes}
    claims = [
        PAPER.claim(
            f"hull-{n}", f"hulls of {n} points are right: share", wanted,
            float(np.median(accuracy[n])), ">=", where="table 1",
            because="the paper has 0.92 and 0.87 with a million examples, another program 0.84 and "
            "0.65 with ten thousands", seeds=accuracy[n],
        )
        for n, wanted in EXPECTED.items() if n in accuracy
    ]  # fmt: skip
    claims += [
        PAPER.claim(
            f"coverage-{n}", f"simple polygons cover the hull of {n} points"
            + (", more than in training" if n > most else "") + ": share of its area", COVERAGE,
            float(np.median(coverage[n])), ">=", where="table 1",
            because="the paper has 0.991 and more", seeds=coverage[n],
            note=f"{found[str(n)][:, 2].mean():.3f} of the outputs are not simple",
        )
        for n in sizes
    ]  # fmt: skip
    if len(sizes) > 1:
        steps = np.stack([accuracy[a] - accuracy[b] for a, b in itertools.pairwise(sizes)])
        claims.append(
            PAPER.claim(
                "more-points", "accuracy falls with the number of points: least fall", 0.0,
                float(np.median(steps.min(0))), ">", where="table 1", because="0 is no fall",
                seeds=steps.min(0),
            )
        )  # fmt: skip
    for n in (n for n in sizes if n > most):
        claims.append(
            PAPER.claim(
                f"new-sizes-{n}", f"hulls of {n} points, though in training there were {most}: "
                "accuracy above what numbers 1 to "
                f"{most} could write", ceilings[n], float(np.median(accuracy[n])), ">",
                because="that is the share of hulls without a higher number",
                seeds=accuracy[n],
            )
        )  # fmt: skip
    return claims


def _draw(run: Run, sets, found, ceilings, most: int) -> None:
    figure, axes = panels(1, 2, width=3.4)
    sizes = list(sets)
    for place, (axis, title) in enumerate(zip(axes[0], ("right", "area covered"), strict=True)):
        values = np.stack([found[str(n)][:, place] for n in sizes])
        axis.plot(sizes, values, "-o", ms=4, color=COLORS[0], label="pointer network")
        axis.axvline(most, color="black", linestyle="--", linewidth=0.8)
        label(axis, "points", f"share {title}", legend=False)
    axes[0, 0].plot(sizes, [ceilings[n] for n in sizes], ":", color=COLORS[1],
                    label=f"best with {most} numbers")  # fmt: skip
    axes[0, 0].set_ylim(0, 1.02)
    label(axes[0, 0], "points", "share right")
    run.save_figure(
        figure, "hulls", "Hulls by the number of points; training ended at the dashed line."
    )
    figure, axes = panels(2, 4, width=1.7, height=1.7)
    for row, n in enumerate(sizes[1::2][:2]):
        points, targets = sets[n]
        for axis, own, guess, target in zip(
            axes[row], points, found[f"{n} guesses"][0], targets, strict=False
        ):
            axis.plot(*own.T, ".", color="#999999")
            for numbers, style, color in ((target, "-", "#bbbbbb"), (guess, "--", COLORS[1])):
                closed = before_stop(numbers)
                axis.plot(*own[np.array([*closed, *closed[:1]], int) - 1].T, style, color=color)
            axis.set_xticks([])
            axis.set_yticks([])
    run.save_figure(
        figure, "drawn_hulls", "Hulls: true ones grey, the network's dashed; the lower sets are of "
        "more points than it was trained on.",
    )  # fmt: skip
