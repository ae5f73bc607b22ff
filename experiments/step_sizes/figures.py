"""The figure: errors by network, and step sizes and stiffness by block."""

import numpy as np

from experiments.plots import COLORS, label, panels
from experiments.step_sizes.networks import STEPNET
from jattn.training import Run


def draw(run: Run, found: dict[str, dict[str, np.ndarray]]) -> None:
    """Saves a figure of the results by network."""
    figure, axes = panels(1, 2, width=3.6, height=2.9)
    left, right = axes[0]
    for place, one in enumerate(found.values()):
        left.bar(place, one["loss"].mean(), 0.7, color=COLORS[place])
        left.plot(np.full(len(one["loss"]), place), one["loss"], "k.", markersize=3)
    left.set_xticks(range(len(found)), list(found), rotation=30, ha="right")
    label(left, "", "test error")
    own = found[STEPNET]
    blocks = 1 + np.arange(own["sizes"].shape[1])
    right.plot(blocks, own["sizes"].T, color=COLORS[0], linewidth=0.8)
    right.set_ylim(0, 1)
    label(right, "block", "")
    right.set_ylabel("step size", color=COLORS[0])
    other = right.twinx()
    other.spines["top"].set_visible(False)
    other.plot(blocks, own["stiffness"].T, color=COLORS[1], linewidth=0.8, linestyle="--")
    other.set_ylabel("stiffness (dashed)", color=COLORS[1])
    run.save_figure(
        figure,
        "step_sizes",
        "Where the Van der Pol oscillator is after some time, learned by residual networks. Left: "
        "test errors, with attention in no block, to the change alone, StepNet's, and StepNet's in "
        "half of the blocks; dots are seeds. Right: median step size and stiffness of StepNet's "
        "blocks, one line a seed.",
    )
