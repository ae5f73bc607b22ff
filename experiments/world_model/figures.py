"""Figures of world models."""

import numpy as np

from experiments.plots import COLORS, label, log_scale, panels


def over_time(run, shown: dict) -> None:
    """Error of each frame ahead, of models and of what learns nothing."""
    figure, axes = panels(1, len(shown), width=3.6, height=3.0)
    for axis, (world, (at, floors)) in zip(axes[0], shown.items(), strict=True):
        ahead = np.arange(1, next(iter(at.values())).shape[1] + 1)
        for color, (name, each) in zip(COLORS, at.items(), strict=False):
            axis.plot(ahead, each.mean(0), "-o", ms=3, color=color, label=name)
            axis.plot(ahead, each.T, linewidth=0.4, alpha=0.6, color=color)
        for line, (name, each) in zip(("--", ":"), floors.items(), strict=True):
            axis.plot(ahead, each, line, color="#666666", linewidth=1, label=name)
        log_scale(axis)
        label(axis, "frames ahead", "squared error of a pixel", world)
    run.save_figure(
        figure,
        "over_time",
        "Squared error as models of one size roll out on what they expect. Thin lines are seeds; "
        "grey: the last frame that was seen again, and the mean frame.",
    )


def clip(run, world: str, frames: np.ndarray, expected: dict[str, np.ndarray]) -> None:
    """One clip and what models expect of it."""
    ahead = len(next(iter(expected.values())))
    rows = {"what comes": frames[-ahead:]} | expected
    figure, axes = panels(len(rows), ahead, width=0.62, height=0.66)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name.replace(" and ", " and\n"), fontsize=6, rotation=0, ha="right")
    run.save_figure(
        figure,
        f"clip_{world}",
        f"A clip of {world} after the frames that are seen, and what models expect, one frame "
        "ahead (left) to ten.",
    )


def harm(run, shown: dict[str, dict[str, np.ndarray]]) -> None:
    """What is left of the harm to a belief, by frames."""
    figure, axes = panels(1, len(shown), width=3.4, height=2.6, sharey=True)
    for axis, (world, found) in zip(axes[0], shown.items(), strict=True):
        for color, (name, each) in zip(COLORS, found.items(), strict=False):
            share = each / each[:, :1]
            axis.plot(share.mean(0), "-o", ms=3, color=color, label=name)
            axis.plot(share.T, linewidth=0.4, alpha=0.6, color=color)
        label(axis, "frames of evolving", "share of the harm left", world)
    run.save_figure(
        figure,
        "harm",
        "Half of the cells of a belief made noise: one minus its correlation with the whole "
        "belief, as a share of that at first, as both evolve with nothing seen. Thin lines: seeds.",
    )
