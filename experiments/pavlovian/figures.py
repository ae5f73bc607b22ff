"""The figures of conditioning."""

import numpy as np
from matplotlib.ticker import NullFormatter
from scipy import stats

from experiments.plots import COLORS, label, legend_below, panels
from experiments.power_law import exponent
from jattn.tasks.conditioning import STIMULI
from jattn.theory import memory_capacity as theory

RULE_COLORS = dict(zip(("hebb", "delta", "decay", "oja", "bcm", "softmax"), COLORS, strict=False))


def mapping(run) -> None:
    """Which part of attention is which part of conditioning."""
    figure, axes = panels(1, 1, width=7.2, height=2.4)
    axis = axes[0, 0]
    axis.axis("off")
    axis.set(xlim=(0, 10), ylim=(0, 3.2))
    boxes = {
        "key": (1.6, 2.6, "CS   y\nkey  k = f(y W_K)", COLORS[0]),
        "value": (1.6, 1.6, "US   z\nvalue  v = g(z W_V)", COLORS[1]),
        "query": (1.6, 0.5, "test stimulus   x\nquery  q = f(x W_Q)", COLORS[2]),
        "memory": (5.3, 2.1, "memory\nS += alpha k^T v", COLORS[6]),
        "read": (8.6, 1.2, "conditioned response\nr = q S", COLORS[3]),
    }
    for x, y, text, color in boxes.values():
        box = dict(boxstyle="round,pad=0.5", facecolor="white", edgecolor=color)
        axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)
    arrows = (((2.5, 2.6), (4.35, 2.3)), ((2.6, 1.65), (4.35, 1.95)), ((6.25, 2.0), (7.5, 1.45)),
              ((2.6, 0.5), (7.5, 1.0)))  # fmt: skip
    for start, end in arrows:
        axis.annotate("", xy=end, xytext=start, arrowprops=dict(arrowstyle="->"))
    run.save_figure(figure, "mapping", "Attention read as conditioning: keys are conditioned "
                    "stimuli, values unconditioned ones, queries test stimuli.")  # fmt: skip


def noise(run, curves) -> None:
    """Interference over load, and its distribution."""
    figure, axes = panels(1, 2, width=3.6)
    load = np.array([(pairs - 1) / dim for dim, pairs in curves])
    ratio = np.array([1 / values.mean() for values in curves.values()])
    line = np.geomspace(load.min() / 1.5, load.max() * 1.5, 50)
    axes[0, 0].loglog(line, 1 / line, color="black", linestyle=":", label="d_k / (n - 1)")
    axes[0, 0].loglog(load, ratio, "o", color=COLORS[0], label="measured")
    for color, ((dim, pairs), values) in zip(COLORS, curves.items(), strict=False):
        share = values / theory.noise_power(pairs, d_k=dim)
        axes[0, 1].hist(share, bins=60, range=(0, 3), density=True, histtype="step", color=color,
                        label=f"d_k = {dim}, n = {pairs}")  # fmt: skip
        grid = np.linspace(1e-3, 3, 300)
        shape = theory.noise_spread(pairs, d_k=dim, d_v=dim) ** -2
        axes[0, 1].plot(grid, stats.gamma.pdf(grid, shape, scale=1 / shape), color=color,
                        linestyle=":", linewidth=0.8)  # fmt: skip
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].yaxis.set_minor_formatter(NullFormatter())
    label(axes[0, 0], "(n - 1) / d_k", "signal to noise")
    label(axes[0, 1], "|noise|^2 / its mean", "density")
    run.save_figure(figure, "interference", "Left: the signal to noise ratio depends on load only "
                    "(theorem 6). Right: the power of the noise concentrates as memories grow; "
                    "dotted: Gamma laws of the same mean and spread.")  # fmt: skip


def capacity(run, dims, grids, worst, measured, epsilon) -> None:
    """Phase diagram of failures, and n* over d_k."""
    deltas = list(measured)
    figure, axes = panels(1, len(deltas) + 1, width=3.5, height=3.0)
    fine = np.geomspace(min(dims), max(dims), 60)
    loads = np.linspace(0.02, 1.29, 128)
    for axis, delta in zip(axes[0], deltas, strict=False):
        field = np.array(
            [np.interp(loads * d, grids[d], (worst[d] >= delta).mean(0), left=0) for d in dims]
        )
        image = axis.pcolormesh(dims, loads, field.T, cmap="magma_r", vmin=0, vmax=1,
                                shading="nearest")  # fmt: skip
        floor = np.array([theory.capacity_floor(d, delta=delta, epsilon=epsilon) for d in fine])
        ceiling = theory.capacity_ceiling(fine, delta=delta)
        law = np.array([theory.capacity(d, d_v=d, delta=delta, epsilon=epsilon) for d in fine])
        axis.plot(fine, floor / fine, color=COLORS[0], linestyle="--", label="worst case")
        axis.plot(fine, ceiling / fine, color=COLORS[2], linestyle="--", label="average case")
        axis.plot(fine, law / fine, color=COLORS[5], label="Gamma law")
        axis.plot(dims, measured[delta] / dims, "o", color="white", markeredgecolor="black",
                  label="n*")  # fmt: skip
        axis.set(xscale="log", ylim=(0, loads[-1]))
        label(axis, "d_k", "n / d_k", f"delta = {delta:g}", legend=False)
        legend_below(axis)
        figure.colorbar(image, ax=axis, label="P(any pair fails)")
    axis = axes[0, -1]
    for color, delta in zip(COLORS, deltas, strict=False):
        slope = exponent(dims, measured[delta]) if len(dims) > 1 else 0
        axis.loglog(dims, measured[delta], "o-", color=color,
                    label=f"n*, delta = {delta:g}: slope {slope:.2f}")  # fmt: skip
        floor = [theory.capacity_floor(d, delta=delta, epsilon=epsilon) for d in fine]
        axis.loglog(fine, floor, color=color, linestyle="--")
        axis.loglog(fine, theory.capacity_ceiling(fine, delta=delta), color=color, linestyle=":")
    axis.xaxis.set_minor_formatter(NullFormatter())
    label(axis, "d_k", "pairs", "dashed: square root; dotted: linear")
    run.save_figure(figure, "capacity", "Phase diagram: how often any of n pairs fails. Light: all "
                    "are given back. The border n* lies far above the worst case (square root) "
                    "and nears the average case (linear) as d_k grows.")  # fmt: skip


def failures(run, one, together, heads: int) -> None:
    """How often heads fail, alone and all together, by what they share."""
    figure, axes = panels(1, 1, width=4.4, height=3.0)
    names = list(one)
    for color, values, what in (
        (COLORS[0], {name: one[name] for name in names}, "one head"),
        (COLORS[1], together, f"all {heads} heads"),
        (COLORS[2], {name: one[name] ** heads for name in names}, f"one head's to the {heads}rd"),
    ):
        for place, name in enumerate(names):
            shown = np.full(len(values[name]), place)
            axes[0, 0].semilogy(shown, values[name], "o", ms=3, alpha=0.6, color=color,
                                label=what if place == 0 else None)  # fmt: skip
    said = [name.replace("shared_", "shared, d = ").replace("own", "stimuli of their own")
            for name in names]  # fmt: skip
    axes[0, 0].set_xticks(range(len(names)), said)
    label(axes[0, 0], "", "failure rate")
    run.save_figure(figure, "failures", "Heads that project the same stimuli fail more often than "
                    "heads with stimuli of their own, and more often together than if they failed "
                    "independently. Dots are blocks of networks.")  # fmt: skip


def chains(run, curves) -> None:
    """Accuracy and noise over depth, with and without clean-up."""
    figure, axes = panels(1, 3, width=3.3)
    depth = None
    for color, pairs in zip(COLORS, (64, 128, 192, 256), strict=False):
        found = curves[64, pairs]
        depth = np.arange(1, len(found["raw"]) + 1)
        axes[0, 0].plot(depth, found["clean"][:, 0], "o-", color=color, markersize=3,
                        label=f"n = {pairs}")  # fmt: skip
        axes[0, 0].plot(depth, found["clean"][:, 1], color=color, linestyle="--", linewidth=0.8)
        axes[0, 0].plot(depth, found["raw"], color=color, linestyle=":")
        axes[0, 1].semilogy(depth, found["noise"], "o", color=color, markersize=3,
                            label=f"n = {pairs}")  # fmt: skip
        axes[0, 1].semilogy(depth, theory.chained_noise(pairs, depth, d_k=64), color=color)
    for color, dim in zip(COLORS, (32, 64, 128), strict=False):
        found = {pairs: x for (d, pairs), x in curves.items() if d == dim}
        load = np.array(sorted(found)) / dim
        axes[0, 2].plot(load, [found[n]["clean"][-1, 0] for n in sorted(found)], "o-",
                        color=color, markersize=3, label=f"width {dim}")  # fmt: skip
        axes[0, 2].plot(load, [found[n]["raw"][-1] for n in sorted(found)], color=color,
                        linestyle=":")  # fmt: skip
    label(axes[0, 0], "layers", "accuracy", "width 64")
    label(axes[0, 1], "layers", "noise power", "no clean-up")
    label(axes[0, 2], "n / d", "accuracy", "after the last layer")
    run.save_figure(figure, "chains", "Chains of memories. Left: accuracy with clean-up (solid; "
                    "dashed with three heads averaged) and without (dotted). Middle: without "
                    "clean-up noise multiplies; lines: (1 + (n - 1)/d)^L - 1. Right: over load, "
                    "by width.")  # fmt: skip


def forgetting(run, decays, found, delta) -> None:
    """Forgetting curves."""
    figure, axes = panels(1, 2, width=3.8)
    for color, (gamma, (measured, wanted)) in zip(COLORS, decays.items(), strict=False):
        ages = np.arange(len(measured))
        axes[0, 0].semilogy(ages, gamma ** (2 * ages) / measured, color=color,
                            label=f"gamma = {gamma:g}")  # fmt: skip
        axes[0, 0].semilogy(ages, gamma ** (2 * ages) / wanted, color="black", linestyle=":",
                            linewidth=0.8)  # fmt: skip
    axes[0, 0].axhline(1, color="black", linewidth=0.6)
    axes[0, 0].set(xlim=(0, 100), ylim=(0.03, 40))
    for rule, values in found.items():
        axes[0, 1].plot(values, color=RULE_COLORS[rule], label=rule)
    axes[0, 1].plot(delta, color="black", linestyle=":", linewidth=0.8)
    label(axes[0, 0], "age", "signal to noise", "fading memory")
    label(axes[0, 1], "age", "squared error", "n = d_k = 64, one pass")
    run.save_figure(figure, "forgetting", "Forgetting by age. Left: a fading memory trades reach "
                    "for clarity. Right: Hebb forgets nothing and is noisy throughout; the delta "
                    "rule writes the last pair exactly and overwrites old ones. Dotted: "
                    "theory.")  # fmt: skip


def passes(run, curves) -> None:
    """Error of the delta rule over passes."""
    figure, axes = panels(1, 1, width=3.8)
    for color, (pairs, error) in zip(COLORS, curves.items(), strict=False):
        count = np.arange(1, len(error) + 1)
        axes[0, 0].loglog(count, error, color=color, label=f"n = {pairs}")
    axes[0, 0].set_ylim(1e-6, 3)
    label(axes[0, 0], "passes", "squared error", "delta rule, d = 64")
    run.save_figure(figure, "passes", "Repeated, the delta rule solves for the memory: to zero "
                    "error while n < d, slowly at n = d, never above.")  # fmt: skip


def protocols(run, found, second, config) -> None:
    """Conditioning curves, a panel a protocol."""
    titles = {
        "acquisition": ("acquisition: A+", 0, 0),
        "extinction": ("extinction: A+, A", 0, 0),
        "latent_inhibition": ("latent inhibition: A, A+", 0, 0),
        "rebinding": ("rebinding: response to the new US", 0, 1),
        "overshadowing": ("overshadowing: AB+", 0, 0),
        "blocking": ("blocking: A+, AB+; response to B", 1, 0),
        "blocking_control": ("control: AB+; response to B", 1, 0),
    }
    figure, axes = panels(2, 4, width=2.9, height=2.5)
    for axis, (name, (title, stimulus, outcome)) in zip(axes.flat, titles.items(), strict=False):
        for rule, color in RULE_COLORS.items():
            path = found[f"{name}-{rule}"][:, stimulus, outcome]
            axis.plot(np.arange(1, len(path) + 1), path, color=color, label=rule,
                      linestyle="--" if rule in ("oja", "softmax") else "-")  # fmt: skip
        if len(path) > config.trials_a_phase:
            axis.axvline(config.trials_a_phase + 0.5, color="black", linewidth=0.6, linestyle=":")
        axis.set_ylim(-0.1, 2.1)
        label(axis, "trial", f"response to {STIMULI[stimulus]}", title, legend=name == "extinction")
    axis = axes[1, 3]
    axis.plot(np.arange(1, len(second) + 1), second, color=RULE_COLORS["delta"])
    axis.set_ylim(-0.1, 2.1)
    label(axis, "trials of each pair", "response to B", "second order: B -> A, A -> US")
    run.save_figure(figure, "protocols", "The classical protocols. The delta rule acquires, "
                    "extinguishes, blocks and overshadows as animals do; Hebb's rule only adds. "
                    "Softmax learns at once, does not block, and shows latent inhibition, which "
                    "no linear rule does. Dotted: the second phase begins.")  # fmt: skip


def generalisation(run, angles, response) -> None:
    """The gradient of generalisation."""
    figure, axes = panels(1, 1, width=3.4)
    degrees = np.degrees(angles)
    axes[0, 0].plot(degrees, response, "o", color=COLORS[0], markersize=3, label="memory")
    axes[0, 0].plot(degrees, np.cos(angles), color="black", linestyle=":", label="cos theta")
    label(axes[0, 0], "angle to the conditioned stimulus (degrees)", "response")
    run.save_figure(figure, "generalisation", "Stimuli that resemble the conditioned one are "
                    "answered in proportion to the cosine.")  # fmt: skip


def softmax(run, sharpness, curves, dim) -> None:
    """Error of softmax over its temperature."""
    figure, axes = panels(1, 1, width=4.0)
    fine = np.linspace(sharpness[0], sharpness[-1], 100)
    for color, (pairs, found) in zip(COLORS, curves.items(), strict=False):
        axes[0, 0].semilogy(sharpness, found["error"], "o", color=color, label=f"n = {pairs}")
        wanted = theory.softmax_error(pairs, d_k=dim, inverse_temperature=fine)
        axes[0, 0].semilogy(fine, wanted, color=color)
        axes[0, 0].axhline(theory.noise_power(pairs, d_k=dim), color=color, linestyle=":")
    label(axes[0, 0], "inverse temperature", "squared error", f"softmax, d_k = {dim}")
    run.save_figure(figure, "softmax", "A softmax read sharpens until nothing interferes, where a "
                    "linear memory of the same pairs has the noise of the dotted line. Lines: "
                    "mean field.")  # fmt: skip
