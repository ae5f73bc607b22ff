"""Figures of directed connectivity."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from experiments.directed_connectivity.common import CHANNELS, OFF, TRUE
from experiments.plots import COLORS, label, panels


def _matrix(axis, values: np.ndarray, title: str, *, top: float | None = None) -> None:
    """One number for each pair of channels; links that are there have a frame."""
    shown = np.where(OFF, values, np.nan)
    top = top or max(float(np.nanmax(shown)), 1e-9)
    axis.imshow(shown, cmap="Blues", vmin=0, vmax=top)
    for sink in range(CHANNELS):
        for source in range(CHANNELS):
            if sink == source:
                continue
            value = values[sink, source]
            color = "white" if value > 0.6 * top else "black"
            axis.text(source, sink, f"{value:.2f}", ha="center", va="center", color=color)
            if TRUE[sink, source]:
                corner = (source - 0.46, sink - 0.46)
                frame = Rectangle(
                    corner, 0.92, 0.92, fill=False, edgecolor=COLORS[1], linewidth=1.6
                )
                axis.add_patch(frame)
    axis.set_xticks(range(CHANNELS))
    axis.set_yticks(range(CHANNELS))
    label(axis, "from", "to", title, legend=False)


def links(run, truth: dict[str, np.ndarray], flags: dict[str, np.ndarray]) -> None:
    """Exact measures of all links, and how often each is found."""
    figure, axes = panels(1, 4, width=2.5, height=2.7)
    _matrix(axes[0, 0], truth["pdc"], "PDC, squared")
    _matrix(axes[0, 1], truth["ddtf"], "direct DTF")
    _matrix(axes[0, 2], flags["granger"].mean(0), "found by Granger", top=1.0)
    _matrix(axes[0, 3], flags["surrogate"].mean(0), "found by direct DTF", top=1.0)
    run.save_figure(
        figure,
        "links",
        "Links of the network, which are framed. Left: partial directed coherence and direct DTF "
        "of the network itself, the largest over frequencies; the second is not 0 for 0 -> 2. "
        "Right: how often each is found in series, by Granger's test and by direct DTF.",
    )


def mixing(run, found: dict[str, np.ndarray]) -> None:
    """Partial directed coherence before and after channels are mixed."""
    figure, axes = panels(1, 2, width=2.5, height=2.7)
    _matrix(axes[0, 0], found["plain_pdc"].mean(0), "channels")
    _matrix(axes[0, 1], found["mixed_pdc"].mean(0), "mixed channels")
    run.save_figure(
        figure,
        "mixing",
        "Squared partial directed coherence, the largest over frequencies, of fits to long series: "
        "of the channels themselves, and of mixtures of them. Means over series.",
    )


def groups(run, difference: np.ndarray, found: np.ndarray, measures: Sequence[str]) -> None:
    """How often each link is called different between the groups."""
    figure, axes = panels(1, len(measures), width=2.7, height=2.8)
    for axis, rates, measure in zip(axes[0], found, measures, strict=True):
        _matrix(axis, rates, measure, top=1.0)
    run.save_figure(
        figure,
        "groups",
        "How often each link is called different between two groups of subjects of which only "
        "0 -> 1 differs, by three measures; framed are links that are there in both.",
    )


def text(run, config, found: dict[str, np.ndarray]) -> None:
    """Overlap and diversity of texts by temperature, beside people's."""
    figure, axes = panels(1, 3, width=2.7, height=2.6)
    named = (("overlap", "shared bigrams"), ("vendi", "effective number"), ("distinct", "distinct"))
    for axis, (measure, words), color in zip(axes[0], named, COLORS, strict=False):
        values = found[measure]
        axis.plot(config.temperatures, values[:, :-1].T, color=color, linewidth=0.5, alpha=0.6)
        axis.plot(config.temperatures, values[:, :-1].mean(0), color=color, label=config.writer)
        axis.axhline(values[:, -1].mean(), color="black", linewidth=0.8, label="people")
        label(axis, "temperature", words)
    run.save_figure(
        figure,
        "text",
        "Texts of one prompt, by temperature: mean overlap of bigrams, effective number of "
        "different texts (Vendi score), share of different bigrams. Thin lines are seeds; black: "
        "pieces of what people wrote on one topic.",
    )
