"""Images side by side, maps of words, and which heads guidance should perturb."""

import jax
import numpy as np

from experiments.map_guidance.generator import captions, images, no_guidance
from experiments.plots import COLORS, label, panels
from jattn.tasks import scenes
from jattn.training import Run

ARMS = ("plain", "segregated", "retained", "cosine", "layer", "hunted")
SHOWN = 6


def draw(run: Run, config, params, found) -> None:
    """All figures."""
    figure, axes = panels(1, 2, width=4.2)
    left, right = axes[0]
    place = np.arange(len(ARMS))
    for axis, names in ((left, ("right", "missing", "swapped")), (right, ("overlap",))):
        for number, name in enumerate(names):
            values = np.stack([found[f"{arm}/{name}"] for arm in ARMS])
            spread = values.std(1) / values.shape[1] ** 0.5
            axis.bar(place + 0.27 * (number - (len(names) - 1) / 2), values.mean(1), 0.25,
                     yerr=spread, color=COLORS[number], label=name)  # fmt: skip
        axis.set_xticks(place, list(ARMS), rotation=30, fontsize=8)
    label(left, "", "share", "three objects asked for")
    label(right, "", "soft overlap of two objects' maps", "cross-attention")
    run.save_figure(figure, "arms", "Left: captions of three objects that are met, objects that "
                    "are missing, and those whose colour has another shape; standard errors over "
                    "sets. Right: how far maps of two objects overlap.")  # fmt: skip

    asked = captions(jax.random.key(config.seed + 9), SHOWN, scenes.OBJECTS)
    plain = no_guidance(config)
    led = plain._replace(separate=found["segregated/rate"].astype(np.float32))
    rows = [images(config, params, asked, plain), images(config, params, asked, led, moves=True)]
    figure, axes = panels(4, SHOWN, width=1.6, height=1.7)
    for row, ((picture, maps), name) in enumerate(zip(rows, ("plain", "segregated"), strict=True)):
        side = int(maps.shape[-1] ** 0.5)
        for column in range(SHOWN):
            top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
            top.imshow(np.clip((np.asarray(picture[column]) + 1) / 2, 0, 1))
            title = scenes.describe(np.asarray(asked.words[column])).replace(", ", "\n")
            top.set_title(title if row == 0 else "", fontsize=7)
            shown = np.asarray(maps[column]).reshape(-1, side, side)
            shown = shown / shown.max((1, 2), keepdims=True)
            bottom.imshow(np.moveaxis(shown, 0, -1))
            for axis in (top, bottom):
                axis.set_xticks([])
                axis.set_yticks([])
        axes[2 * row, 0].set_ylabel(name, fontsize=8)
        axes[2 * row + 1, 0].set_ylabel("maps", fontsize=8)
    run.save_figure(figure, "images", "Images of the same captions and noise, without and with "
                    "segregation; below each the maps of its three objects as red, green and blue: "
                    "where they overlap, colours mix.")  # fmt: skip

    figure, axes = panels(1, 2, width=3.2)
    for axis, name, title in (
        (axes[0, 0], "singles", "captions met, one head perturbed"),
        (axes[0, 1], "hunted", "heads that the search chose"),
    ):
        shown = axis.imshow(found[f"heads/{name}"], cmap="viridis")
        axis.set_xticks(range(config.heads))
        axis.set_yticks(range(config.layers))
        label(axis, "head", "layer", title)
        figure.colorbar(shown, ax=axis, fraction=0.04)
    run.save_figure(figure, "heads", "Guidance away from one head's identity map, and the heads "
                    "that greedy search adds up.")  # fmt: skip
