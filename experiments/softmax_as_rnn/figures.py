"""The figures of softmax taken apart, from our own runs."""

import numpy as np

from experiments.plots import COLORS, label, log_scale, panels

SHORT = {
    "gated_softmax_no_gate_L2norm_nodivS_noclamp": "exp, L2 norm",
    "gated_softmax_no_gate_rmsnorm_nodivS": "exp, RMSNorm",
    "gated_softmax_no_gate": "exp / length, LayerNorm",
    "gated_ReLU_no_gate_L2norm_nodivS_noclamp": "relu, L2 norm",
    "softmax_taylor_80terms": "Taylor, order 80",
    "softmax_divs": "exp / length",
    "softmax_gate": "exp, gate",
    "softmax_divS_gate": "exp / length, gate",
    "softmax_divS_norm": "exp / length, RMSNorm",
    "softmax_clamp_denom": "exp, sum of 1 at least",
    "softmax_detach_denom": "exp, sum without gradient",
    "gated_softmax": "two gates, LayerNorm",
    "gated_softmax_no_norm": "two gates / length",
    "linear_relu": "linear (relu)",
    "linear_elu": "linear (elu + 1)",
    "linear_cosine": "linear (cosine)",
}


def short(name: str) -> str:
    """A variant in words."""
    if name.startswith("taylor_"):
        return f"Taylor, order {name.removeprefix('taylor_')}"
    return SHORT.get(name, name)


def error_by_order(run, median, orders, scales, largest) -> None:
    """Distance from softmax over the highest order, divided by the sum or to unit length."""
    figure, axes = panels(1, 2, width=3.6, height=3.0, sharey=True)
    titles = {"sum": "divided by the sum", "l2": "to unit length"}
    for axis, (kind, title) in zip(axes[0], titles.items(), strict=True):
        for color, scale, errors, score in zip(COLORS, scales, median[kind], largest, strict=False):
            name = f"scores x {scale:g} (largest {score:.0f})"
            axis.plot(orders, errors, marker="o", ms=3, color=color, label=name)
        axis.axhline(0.01, color="black", linewidth=0.6, linestyle="--")
        axis.set_yscale("log")
        label(axis, "highest order N", "largest error", title, legend=kind == "sum")
    axes[0, 1].set_ylabel("")
    run.save_figure(
        figure,
        "error_by_order",
        "Softmax attention from its first N orders, each a recurrent network. Every order helps "
        "once N passes the largest score; large scores take tens of orders. It is no easier where "
        "only the direction of the output counts. Dashed: an error of 0.01.",
    )


def _colors(names):
    """Softmax black; what has an exponential, a polynomial, and linear attention."""
    colors = {}
    for name in names:
        if name == "softmax":
            colors[name] = "#000000"
        elif "taylor" in name:
            colors[name] = COLORS[0]
        elif name.startswith("linear") or "ReLU" in name:
            colors[name] = COLORS[1]
        else:
            colors[name] = COLORS[2]
    return colors


def loss_over_steps(run, curves, steps) -> None:
    """Test loss during training, mean over seeds."""
    figure, axes = panels(1, 1, width=5.4, height=3.4)
    axis = axes[0, 0]
    lines = ("-", "--", ":", "-.")
    colors, used = _colors(curves), {}
    for name, curve in curves.items():
        style = lines[used.setdefault(colors[name], 0) % len(lines)]
        used[colors[name]] += 1
        axis.plot(steps, curve.mean(0), style, color=colors[name], label=short(name))
    log_scale(axis)
    label(axis, "step", "loss (nats)", legend=False)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    run.save_figure(
        figure,
        "loss_over_steps",
        "Loss on fresh sequences during training. Black: softmax. Green: its exponential with "
        "another denominator: a norm is as good, the length alone slow. Blue: its first orders. "
        "Orange: linear attention.",
    )


def loss_by_variant(run, curves, right) -> None:
    """Final test loss, a dot a seed."""
    names = sorted(curves, key=lambda name: curves[name][:, -1].mean())
    colors = _colors(names)
    figure, axes = panels(1, 1, width=5.2, height=0.6 + 0.24 * len(names))
    axis = axes[0, 0]
    for place, name in enumerate(names):
        losses = curves[name][:, -1]
        axis.plot(losses, np.full(len(losses), place), "o", ms=3, color=colors[name])
        axis.plot(losses.mean(), place, "|", ms=11, color=colors[name])
        axis.text(1.15 * losses.max(), place, f"{right[name]:.0%}", fontsize=8, va="center")
    log_scale(axis, "x")
    axis.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8)
    axis.invert_yaxis()
    label(axis, "loss at the end (nats)", "")
    run.save_figure(
        figure,
        "loss_by_variant",
        "What each part is worth: loss at the end of training, a dot a seed, a bar the mean, and "
        "the share of right answers. Colours as in the curves.",
    )
