"""Figures of mental simulation."""

from collections.abc import Sequence

import numpy as np

from experiments.plots import COLORS, label, panels


def floors(run, tables: dict[str, np.ndarray], rows: Sequence[str], kinds: Sequence[str]) -> None:
    """Scores of what knows all or less, for each kind of neurons."""
    figure, axes = panels(1, 2, width=4.2, height=2.9, sharey=True)
    at = np.arange(len(rows))
    for axis, (epoch, table) in zip(axes[0], tables.items(), strict=True):
        for number, kind in enumerate(kinds):
            mean, spread = table[:, number].mean(0), table[:, number].std(0)
            place = at + 0.27 * (number - 1)
            axis.bar(place, mean, 0.25, yerr=spread, color=COLORS[number], label=kind)
        axis.axhline(1, color="#999999", linestyle=":", linewidth=1)
        axis.set_xticks(at, rows, rotation=25, fontsize=8)
        title = "behind the occluder" if epoch == "hidden" else "all frames"
        label(axis, "", "corrected score", title, legend=False)
    axes[0, 1].legend(fontsize=8, frameon=False)
    run.save_figure(
        figure,
        "floors",
        "How well what knows the ball's state, or less, explains three kinds of made neurons, "
        "corrected for noise; behind the occluder (left; neurons that see are silent there) and "
        "over all frames. Means and standard deviations over seeds.",
    )


def latents(run, found: np.ndarray, encoders: Sequence[str], modes: Sequence[str]) -> None:
    """Scores of encoders and dynamics."""
    figure, axes = panels(1, 2, width=4.2, height=2.7, sharey=True)
    at = np.arange(len(encoders))
    titles = ("behind the occluder", "all frames")
    for axis, table, title in zip(axes[0], found.transpose(1, 0, 2, 3), titles, strict=True):
        for number, mode in enumerate(modes):
            values = table[:, :, number]
            place = at + 0.2 * (number - 1.5)
            bars = dict(yerr=values.std(0)) if len(values) > 1 else {}
            axis.bar(place, values.mean(0), 0.18, color=COLORS[number], label=mode, **bars)
        axis.set_xticks(at, encoders)
        label(axis, "encoder", "corrected score", title, legend=False)
    axes[0, 1].legend(fontsize=8, frameon=False)
    run.save_figure(
        figure,
        "latents",
        "How well latents explain neurons that simulate: rolled out by dynamics, held at the last "
        "one that was seen, or of the empty screen; by encoder. Behind the occluder, and over all "
        "frames.",
    )
