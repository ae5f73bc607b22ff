"""Magnets (RefAM) on made-up maps: a blob to be found, stop words, and a global sink."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.plots import panels
from jattn.lens.methods.attention_magnets import filtered_heatmap, global_sinks
from jattn.training import Claim, Paper, Run

PAPER = Paper("arXiv 2509.22650", "RefAM: attention magnets for zero-shot referral segmentation")
SIDE, CONTENT, STOP, DRAWS = 16, 3, 6, 20


def magnets(run: Run, config) -> list[Claim]:
    """Segments a blob by maps of words, with and without the filter."""
    found = run.cached("magnets", lambda: measured(config.seed))
    _draw(run, found)
    raw, filtered = found["raw"], found["filtered"]
    return [
        PAPER.claim(
            "magnets-found",
            "A sink of made-up maps is told from words: share of draws in which it alone is.",
            1.0,
            float(found["sinks_right"].mean()),
            ">=",
            because="it is planted",
        ),
        PAPER.claim(
            "magnets-iou",
            "Maps without stop words and sinks find the blob better than all maps: intersection "
            "over union, mean of draws.",
            float(raw.mean()),
            float(filtered.mean()),
            ">",
            because="it is that of all maps in this run",
            seeds=filtered - raw + raw.mean(),
        ),
    ]


def measured(seed: int) -> dict[str, Any]:
    """IoU of thresholded heat maps with the blob, of so many draws."""
    content = jnp.arange(CONTENT + STOP + 1) < CONTENT
    rows: dict[str, list[Any]] = {"raw": [], "filtered": [], "sinks_right": []}
    for key in jax.random.split(jax.random.key(seed), DRAWS):
        blob, maps = _maps(key)
        heat = filtered_heatmap(maps, content)
        mean = maps.mean(1)
        raw = (mean - mean.min()) / (mean.max() - mean.min())
        rows["filtered"].append(_iou(heat > 0.5, blob))
        rows["raw"].append(_iou(raw > 0.5, blob))
        rows["sinks_right"].append(
            (global_sinks(maps) == (jnp.arange(maps.shape[1]) == CONTENT + STOP)).all()
        )
    shown = dict(blob=blob, heat=heat, raw_heat=raw)
    return {name: np.array(values) for name, values in rows.items()} | shown


def _maps(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A disc, and weights of places on words that mean it, stop words, and a sink."""
    where, noise, background = jax.random.split(key, 3)
    row, column = jnp.indices((SIDE, SIDE)).reshape(2, -1)
    centre = jax.random.uniform(where, (2,), minval=4.0, maxval=SIDE - 4.0)
    blob = (row - centre[0]) ** 2 + (column - centre[1]) ** 2 < 9.0
    logits = jax.random.normal(noise, (SIDE**2, CONTENT + STOP + 1))
    logits = logits.at[:, :CONTENT].add(2.5 * blob[:, None])
    # Stop words have patterns of their own: ramps across the picture.
    slopes = jax.random.normal(background, (2, STOP))
    ramps = (row[:, None] * slopes[0] + column[:, None] * slopes[1]) / SIDE
    logits = logits.at[:, CONTENT : CONTENT + STOP].add(1.0 + 2.0 * ramps)
    logits = logits.at[:, -1].add(6.0)
    return blob, jax.nn.softmax(logits, -1)


def _iou(found: jax.Array, wanted: jax.Array) -> jax.Array:
    return (found & wanted).sum() / jnp.maximum((found | wanted).sum(), 1)


def _draw(run: Run, found: dict[str, np.ndarray]) -> None:
    figure, axes = panels(1, 3, width=2.2, height=2.2)
    for axis, name, title in zip(
        axes[0], ("blob", "raw_heat", "heat"), ("wanted", "all words", "filtered"), strict=True
    ):
        axis.imshow(found[name].reshape(SIDE, SIDE), cmap="viridis")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(title, fontsize=10)
    run.save_figure(
        figure, "magnets", "A planted blob, the mean of all words' maps, and that of its content."
    )
