"""The figure: losses of variants in all layers, in every other one, and taken out again."""

from collections.abc import Sequence

import numpy as np

from experiments.plots import COLORS, label, panels
from jattn.training import Run

FORMS = {
    "uniform": "in all layers",
    "hybrid": "in every other layer",
    "skip": "those layers taken out",
}


def draw(run: Run, variants: Sequence[str], losses: dict[str, np.ndarray]) -> None:
    """Saves a figure of the losses, `[seeds]`, by variant and form."""
    figure, axes = panels(1, 1, width=6.0, height=3.4)
    axis = axes[0, 0]
    places = np.arange(len(variants))
    for number, (form, title) in enumerate(FORMS.items()):
        at = places + 0.27 * (number - 1)
        found = np.stack([losses[f"{name}, {form}"] for name in variants])
        axis.bar(at, found.mean(1), 0.25, color=COLORS[number], label=title)
        for of_seed in found.T:
            axis.plot(at, of_seed, "k.", markersize=2)
    axis.axhline(losses["standard"].mean(), color="black", linestyle="--", linewidth=0.8)
    axis.set_xticks(places, variants)
    label(axis, "", "nats a byte of held-out text")
    run.save_figure(
        figure,
        "deconstructed",
        "Text read by decoders whose attention lacks an ingredient; dashed, standard attention. In "
        "every layer that costs, in every other layer little, and still these layers are of use: "
        "taken out of the trained model they cost most. Dots are seeds.",
    )
