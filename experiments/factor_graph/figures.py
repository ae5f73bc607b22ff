"""Figures of the factor graph."""

import numpy as np

from experiments.plots import COLORS, label, panels


def graph(run, config, found: dict[str, np.ndarray]) -> None:
    """What each variable is thought of with, in the first seed."""
    figure, axes = panels(1, 1, width=3.6, height=3.2)
    axis = axes[0, 0]
    image = axis.imshow(found["graph"][-1, 0], cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, fraction=0.046)
    for place in (config.causes - 0.5,):
        axis.axhline(place, color="black", linewidth=0.5)
        axis.axvline(place, color="black", linewidth=0.5)
    label(axis, "second variable", "first variable", legend=False)
    run.save_figure(
        figure,
        "graph",
        "The factor graph that was learned, first seed: of each variable, the probability of what "
        "it is thought of with. Causes come first, then effects.",
    )


def precision(run, found: dict[str, dict[str, np.ndarray]], chance: float) -> None:
    """Precision of the pairs in training."""
    figure, axes = panels(1, 1, width=4.2, height=2.8)
    axis = axes[0, 0]
    for color, (model, each) in zip(COLORS, found.items(), strict=False):
        values = each["precision"]
        axis.plot(values.mean(1), color=color, label=model)
        axis.plot(values, color=color, linewidth=0.4, alpha=0.6)
    axis.axhline(chance, color="black", linewidth=0.6)
    label(axis, "note in training", "precision of pairs")
    run.save_figure(
        figure,
        "precision",
        "Share of thoughts whose two variables belong together, in training. Thin lines are seeds; "
        "the black line is chance.",
    )
