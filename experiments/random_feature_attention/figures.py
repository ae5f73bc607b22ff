"""The figures: test error against everything that is swept."""

import numpy as np

from experiments.plots import COLORS, label, log_scale, panels
from experiments.random_feature_attention import reference

LABELS = {
    "rfa": "RFA",
    "brfa": "BRFA (biased)",
    "rfmlp": "RFMLP (network)",
    "rfa_kernel": "RFA, infinite",
    "brfa_kernel": "BRFA, infinite",
    "rfmlp_kernel": "RFMLP, infinite",
}
# A kernel has the colour of the model it is the limit of.
STYLES = {
    name: dict(
        color=COLORS[("rfa", "brfa", "rfmlp").index(name.removesuffix("_kernel"))],
        linestyle="--" if name.endswith("_kernel") else "-",
    )
    for name in LABELS
}


def band(axis, x, values, **style) -> None:
    """Mean over seeds (the leading axis) with a band of one standard deviation."""
    mean, deviation = values.mean(0), values.std(0)
    axis.plot(x, mean, marker="o", ms=3, **style)
    low = np.maximum(mean - deviation, mean / 10)  # the axis is logarithmic
    axis.fill_between(x, low, mean + deviation, color=style["color"], alpha=0.2, linewidth=0)


def best_constant(axis) -> None:
    """The error of the best constant, as a guide."""
    axis.axhline(1.0, color="black", linewidth=0.6, linestyle=":")


def error_by_size(run, config, curves) -> None:
    """Test error against sample size, one panel a target."""
    targets = list(config.targets)
    rows = -(-len(targets) // 5)
    figure, axes = panels(rows, min(len(targets), 5), width=2.7, height=2.4, sharex=True)
    for axis, target in zip(axes.flat, targets, strict=False):
        for model in config.models:
            band(
                axis,
                config.sample_sizes,
                curves[model, target],
                label=LABELS[model],
                **STYLES[model],
            )
            known = reference.curve(config, model, target)
            if known is not None:
                axis.plot(config.sample_sizes, known, "x", ms=4, color="black", alpha=0.6)
        best_constant(axis)
        axis.set_xscale("log", base=2)
        log_scale(axis)
        axis.set_ylim(bottom=min(axis.get_ylim()[0], 0.2))  # small differences look small
        label(axis, "examples n", "relative test error", target, legend=axis is axes.flat[0])
    for axis in list(axes.flat)[len(targets) :]:
        axis.set_axis_off()
    run.save_figure(
        figure,
        "error_by_size",
        f"Test error against sample size, d = {config.dim}, N = {config.key_count}, {config.heads} "
        f"heads; mean and deviation of {config.seeds} seeds. Attention (blue) needs far fewer "
        "examples than the network (green) on polynomials of the keys; the bias (orange) costs "
        "there and wins where the target compares the query with the keys. Crosses: an "
        "independent implementation. Dotted: the best constant.",
    )


def against_reference(run, ours, theirs) -> None:
    """Our errors beside the reference's."""
    figure, axes = panels(1, 1, width=4.0, height=3.6)
    axis = axes[0, 0]
    axis.loglog(theirs, ours, "o", ms=3, color=COLORS[0], alpha=0.7)
    ends = np.array([np.nanmin(theirs), np.nanmax(theirs)])
    axis.loglog(ends, ends, color="black", linewidth=0.8, linestyle=":")
    label(axis, "error, independent implementation", "error, ours")
    run.save_figure(
        figure,
        "against_reference",
        "Mean errors of all models, targets and sample sizes beside those of an independent "
        "implementation (three decimals; dotted: equal).",
    )


def error_by_keys(run, counts, targets, error, size: int) -> None:
    """Test error against the number of keys."""
    figure, axes = panels(1, len(targets), width=3.4)
    for which, target in enumerate(targets):
        axis = axes[0, which]
        for model, values in error.items():
            band(axis, counts, values[..., which].T, label=LABELS[model], **STYLES[model])
        best_constant(axis)
        axis.set_xscale("log", base=2)
        log_scale(axis)
        label(axis, "keys N", "relative test error", target)
    run.save_figure(
        figure,
        "error_by_keys",
        f"More keys, n = {size} examples: attention does not notice, the network loses the target.",
    )


def error_by_heads(run, counts, targets, finite, infinite, size: int) -> None:
    """Test error against the number of heads, with the kernel's as a dashed line."""
    figure, axes = panels(1, len(targets), width=3.0)
    for which, target in enumerate(targets):
        axis = axes[0, which]
        band(axis, counts, finite[..., which], label="RFA", **STYLES["rfa"])
        axis.axhline(infinite[:, which].mean(), label=LABELS["rfa_kernel"], **STYLES["rfa_kernel"])
        axis.set_xscale("log", base=2)
        log_scale(axis)
        label(axis, "heads M", "relative test error", target)
    run.save_figure(
        figure,
        "error_by_heads",
        f"More heads, n = {size} examples: the error falls to that of the kernel (dashed).",
    )


def error_by_bias(run, scales, targets, error, size: int) -> None:
    """Test error against the strength of the bias."""
    figure, axes = panels(1, 1, width=4.2, height=3.0)
    for which, target in enumerate(targets):
        band(axes[0, 0], scales, error[..., which].T, label=target, color=COLORS[which])
    best_constant(axes[0, 0])
    log_scale(axes[0, 0])
    label(axes[0, 0], "bias scale", "relative test error")
    run.save_figure(
        figure,
        "error_by_bias",
        f"Mean of the query-key matrices in identities, n = {size}: there is a best strength for "
        "a target that compares query and keys; one that reads keys only wants none.",
    )


def error_by_share(run, shares, pairs, at) -> None:
    """Errors with and without bias as the target changes, and their ratio."""
    figure, axes = panels(1, 3, width=3.2)
    titles = {
        "mix": "(1-g) keys_2 + g corr_only_2",
        "turned": r"$\langle x_0, S x_i\rangle^2 \langle\beta, x_i\rangle$, $S = (1-g) I + g O$",
    }
    for axis, (family, (rfa, brfa)) in zip(axes[0], pairs.items(), strict=False):
        band(axis, shares, rfa, label=LABELS["rfa"], **STYLES["rfa"])
        band(axis, shares, brfa, label=LABELS["brfa"], **STYLES["brfa"])
        log_scale(axis)
        label(axis, "g", "relative test error", titles[family])
    for color, (family, (rfa, brfa)) in zip(COLORS[3:], pairs.items(), strict=False):
        axes[0, 2].plot(
            shares, brfa.mean(0) / rfa.mean(0), marker="o", ms=3, color=color, label=family
        )
    best_constant(axes[0, 2])
    log_scale(axes[0, 2])
    label(axes[0, 2], "g", "BRFA / RFA error", "below 1 the bias pays")
    run.save_figure(
        figure,
        "error_by_share",
        f"d = {at.dim}, N = {at.key_count}, {at.heads} heads, n = {at.size}. Left: from a target "
        "of the keys to one that compares them with the query, the bias starts to pay. Middle: as "
        "the true interaction S turns from the identity into a random rotation, the advantage of "
        "weights with mean identity fades, and zero-mean weights do not notice.",
    )


def gram_errors(run, counts, curves, at) -> None:
    """Distance of Gram matrices to their limits."""
    figure, axes = panels(1, 1, width=4.2, height=3.0)
    axis = axes[0, 0]
    for model, error in curves.items():
        band(axis, counts, error, label=LABELS[model], **STYLES[model])
    guide = curves["rfa"].mean(0)[0] * (np.array(counts) / counts[0]) ** -0.5
    axis.plot(counts, guide, color="black", linestyle=":", label="slope -1/2")
    axis.set_xscale("log")
    log_scale(axis)
    label(axis, "heads or units M", "relative Gram error")
    run.save_figure(
        figure,
        "gram_errors",
        f"Gram matrices of {at.inputs} inputs approach the closed-form kernels as M^-1/2.",
    )
