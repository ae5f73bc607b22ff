"""Shared look of the experiments' figures."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

# Colour-blind safe, in a fixed order so that a model keeps its colour across figures.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")


def panels(
    rows: int, columns: int, *, width: float = 3.0, height: float = 2.6, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes `[rows, columns]`; width and height are of one panel, in inches."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def heat_map(
    axis: Axes,
    matrix: np.ndarray,
    *,
    limit: float | None = None,
    title: str = "",
    split: Sequence[float] = (),
) -> None:
    """Draws a signed matrix, white at zero, numbers in its cells, dashed lines at `split`.

    Args:
        axis: where.
        matrix: `[rows, columns]`.
        limit: magnitude of the strongest colour; by default the largest in the matrix.
        title: what it is.
        split: columns and rows before which a dashed line separates blocks.
    """
    matrix = np.atleast_2d(matrix)
    limit = float(np.abs(matrix).max()) if limit is None else limit
    axis.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="equal")
    for (row, column), value in np.ndenumerate(matrix):
        color = "white" if abs(value) > 0.6 * limit else "black"
        text = f"{value:.2f}".replace("0.", ".") if abs(value) >= 0.005 else "0"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    for position in split:
        if position < matrix.shape[1]:
            axis.axvline(position - 0.5, color="black", linestyle="--", linewidth=0.8)
        if position < matrix.shape[0]:
            axis.axhline(position - 0.5, color="black", linestyle="--", linewidth=0.8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=10)


def log_scale(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis with plain numbers, at 1, 2 and 5 of each decade that is in sight."""
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def label(axis: Axes, x: str, y: str, title: str = "", *, legend: bool = True) -> None:
    """Axis labels, a title, and a legend below if anything is labelled."""
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title, fontsize=10)
    if legend and axis.get_legend_handles_labels()[0]:
        legend_below(axis)


def bars(axis: Axes, values: Mapping[str, np.ndarray], x: str) -> None:
    """A horizontal bar for each name, the mean over its seeds, which are dots.

    Args:
        axis: where.
        values: `[seeds]` by name, from top to bottom.
        x: what they are.
    """
    axis.barh(list(values), [each.mean() for each in values.values()], color=COLORS[0], alpha=0.6)
    for row, each in enumerate(values.values()):
        axis.plot(each, [row] * len(each), "o", ms=3, color=COLORS[1])
    axis.invert_yaxis()
    label(axis, x, "")


def legend_below(axis: Axes) -> None:
    """A legend under the panel: inside, it would lie on a curve sooner or later."""
    place: Any = dict(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    axis.legend(fontsize=8, frameon=False, handlelength=1.2, columnspacing=1.0, **place)


matplotlib.rcParams["font.size"] = 9
