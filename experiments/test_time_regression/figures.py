"""The figures of regression at test time, from our own runs."""

import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from experiments.plots import COLORS, label, panels

COLOR = {"local linear": COLORS[0], "softmax": COLORS[1], "one line": COLORS[6]}


def _log_axes(axis) -> None:
    """Logarithmic axes; the lower one with plain numbers, at 1, 2 and 5 of each decade."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def bias_by_bandwidth(run, bandwidths, curves) -> None:
    """Bias at a boundary and inside, with its leading term."""
    places = list(dict.fromkeys(place for place, _ in curves))
    figure, axes = panels(1, len(places), width=3.4, height=2.8, sharey=True)
    for axis, place in zip(axes[0], places, strict=True):
        for (where, name), (measured, expected) in curves.items():
            if where == place:
                axis.plot(bandwidths, expected, color=COLOR[name], linewidth=0.8)
                # The second is smaller, to be seen where they agree.
                size = 7 if name == "softmax" else 3
                axis.plot(bandwidths, measured, "o", ms=size, color=COLOR[name], label=name)
        _log_axes(axis)
        label(axis, "bandwidth", "relative bias" if place == places[0] else "", place)
    run.save_figure(
        figure,
        "bias_by_bandwidth",
        "Where data end, a local constant (softmax) is biased to first order in the bandwidth, a "
        "local line to second order, as both are inside, where they agree. Lines: the classical "
        "expansion.",
    )


def error_by_pairs(run, pairs, errors, powers, dim: int) -> None:
    """Expected error of each fit at its best bandwidth."""
    figure, axes = panels(1, 1, width=4.4, height=3.2)
    axis = axes[0, 0]
    for name, error in errors.items():
        axis.plot(pairs, error, "-o", ms=4, color=COLOR[name], label=name)
    for name, power in powers.items():
        guide = errors[name][-1] * (np.asarray(pairs) / pairs[-1]) ** power
        axis.plot(pairs, guide, ":", linewidth=0.8, color=COLOR[name])
    _log_axes(axis)
    label(axis, "pairs seen", "squared error, mean over queries")
    said = " and ".join(f"{power:.2f}" for power in powers.values())
    run.save_figure(
        figure,
        "error_by_pairs" if dim == 1 else f"error_by_pairs_{dim}",
        f"A smooth law, keys of {dim} dimension{'s' * (dim > 1)}: local fits get better with the "
        f"number of pairs; one line for all keeps its bias. Dotted: the powers {said}.",
    )


def bias_and_variance(run, bandwidths, errors, pairs: int) -> None:
    """The two parts of the error by bandwidth, in one dimension."""
    figure, axes = panels(1, 1, width=4.4, height=3.2)
    axis = axes[0, 0]
    for name, parts in errors.items():
        axis.plot(bandwidths, parts.sum(-1), color=COLOR[name], label=name)
        axis.plot(bandwidths, parts[:, 0], "--", linewidth=0.9, color=COLOR[name])
        axis.plot(bandwidths, parts[:, 1], ":", linewidth=0.9, color=COLOR[name])
    _log_axes(axis)
    axis.set_ylim(bottom=1e-5)
    label(axis, "bandwidth", "squared error, mean over queries", f"{pairs} pairs")
    run.save_figure(
        figure,
        "bias_and_variance",
        "Error (solid) is squared bias (dashed) and variance (dotted). At one bandwidth the local "
        "line has less bias and more variance; with a wider kernel it comes out ahead.",
    )


def error_by_scale(run, config, mean, chosen) -> None:
    """Error by the scale of the scores, with its parts, for one region and for two."""
    figure, axes = panels(1, 2, width=3.6, height=3.2)
    for axis, count in zip(axes[0], (1, 2), strict=True):
        curves = {
            "local linear": mean[count]["local_linear"][:, chosen[count][1]],
            "softmax": mean[count]["softmax"],
        }
        for name, parts in curves.items():
            axis.plot(config.scales, parts[:, :2].sum(-1), color=COLOR[name], label=name)
            axis.plot(config.scales, parts[:, 0], "--", linewidth=0.9, color=COLOR[name])
            axis.plot(config.scales, parts[:, 1], ":", linewidth=0.9, color=COLOR[name])
        for name, color in (("mesa", COLORS[2]), ("delta", COLORS[3]), ("linear", COLORS[4])):
            flat = mean[count][name][..., :2].sum(-1).min()
            axis.axhline(flat, color=color, linewidth=0.9, label=f"{name} (best)")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        title = "linear everywhere" if count == 1 else f"{count} regions"
        label(axis, "scale of the scores", "squared error" if count == 1 else "", title)
    axes[0, 0].get_legend().remove()
    run.save_figure(
        figure,
        "error_by_scale",
        "Error (solid), squared bias (dashed) and variance (dotted) of the local fits; levels of "
        "the global ones. Linear everywhere, a line is right and softmax wrong at every scale; "
        "with two regions the global fits are wrong, and a local line is best.",
    )


def error_by_segments(run, spread, names) -> None:
    """Error of every layer by the number of regions; points are seeds."""
    figure, axes = panels(1, 1, width=4.8, height=3.2)
    axis = axes[0, 0]
    counts = list(spread)
    for color, (name, text) in zip(COLORS, names.items(), strict=False):
        axis.plot(
            counts, [spread[c][name].mean() for c in counts], "-o", ms=4, color=color, label=text
        )
        for count in counts:
            seeds = spread[count][name]
            axis.plot([count] * len(seeds), seeds, ".", ms=2, alpha=0.4, color=color)
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(c) for c in counts])
    axis.set_yscale("log")
    label(axis, "regions with a law of their own", "squared error, best of the grid")
    run.save_figure(
        figure,
        "error_by_segments",
        "A law that changes between regions. With one, global fits are right; with two and more, "
        "local linear attention errs least. Points are seeds.",
    )


def interpolation(run, scales, ridges, mean) -> None:
    """The plane of both knobs, and a cut along each."""
    figure, axes = panels(1, 3, width=3.2, height=3.0)
    plane, by_ridge, by_scale = axes[0]
    filled = plane.pcolormesh(ridges, scales, np.log10(mean["error"]), cmap="viridis", rasterized=1)
    row, column = np.unravel_index(mean["error"].argmin(), mean["error"].shape)
    plane.plot(ridges[column], scales[row], "*", ms=10, color="white")
    plane.set_xscale("log")
    plane.set_yscale("log", base=2)
    label(plane, "ridge", "scale of the scores", "log10 of the error")
    figure.colorbar(filled, ax=plane)

    by_ridge.plot(ridges, mean["error"][row], color=COLORS[0], label="local linear")
    by_ridge.axhline(mean["softmax_error"][row], color=COLORS[1], label="softmax")
    by_ridge.set_xscale("log")
    label(by_ridge, "ridge", "squared error", f"scale {scales[row]:g}")

    by_scale.plot(scales, mean["error"][:, column], color=COLORS[0], label="local linear")
    by_scale.plot(scales, mean["softmax_error"], color=COLORS[1], label="softmax")
    by_scale.axhline(mean["line_error"][column], color=COLORS[2], label="ridge regression")
    by_scale.set_xscale("log", base=2)
    by_scale.set_ylim(0, 1.2 * float(mean["line_error"][column]))
    label(by_scale, "scale of the scores", "", f"ridge {ridges[column]:.2g}")
    run.save_figure(
        figure,
        "interpolation",
        "Two regions. Local linear attention lies between two limits: softmax for much ridge, "
        "ridge regression for flat scores. The best (star) is neither.",
    )


def stream(run, sizes, curves, names) -> None:
    """Error along the stream, mean over seeds and over the places near by."""
    figure, axes = panels(1, len(curves), width=4.0, height=3.0, sharey=True)
    window = max(1, sizes.length // 8)
    for axis, (spread, best) in zip(axes[0], curves.items(), strict=True):
        for name, color in zip(best, COLORS, strict=False):
            whole = len(best[name]) // window * window
            smooth = best[name][:whole].reshape(-1, window).mean(-1)
            places = (np.arange(len(smooth)) + 0.5) * window
            axis.plot(places, smooth, color=color, label=names[name])
        for switch in range(1, sizes.segments):
            axis.axvline(switch * sizes.length, color="black", linestyle="--", linewidth=0.5)
        axis.set_yscale("log")
        label(axis, "pairs seen", "squared error of the next" if axis is axes[0, 0] else "")
        axis.set_title(f"spread of each segment's keys {spread:g}", fontsize=10)
    axes[0, 1].get_legend().remove()
    run.save_figure(
        figure,
        "stream",
        "A law that switches (dashed). Where keys tell the segments apart, local linear attention "
        "errs least: it reads the pairs that matter. Where they overlap, old pairs mislead "
        "whatever keeps them, and the delta rule, which overwrites, is best.",
    )
