"""The figures of the Dynamical Systems Framework, from our own runs."""

import numpy as np

from experiments.plots import COLORS, label, panels


def features_of_softmax(run, error, orders, scales, largest, dim: int) -> None:
    """Error of the truncated series over the number of features it needs."""
    figure, axes = panels(1, 1, width=4.6, height=3.2)
    axis = axes[0, 0]
    for color, scale, row, score in zip(COLORS, scales, error, largest, strict=False):
        for parity, style in ((0, "-"), (1, ":")):
            chosen = [i for i, order in enumerate(orders) if order % 2 == parity]
            counts = [sum(float(dim) ** p for p in range(orders[i] + 1)) for i in chosen]
            name = f"scores x {scale:g} (largest {score:.1f})" if parity == 0 else None
            if chosen:
                axis.plot(counts, row[chosen], style, marker="o", ms=3, color=color, label=name)
    axis.axhline(0.01, color="black", linewidth=0.6, linestyle="--")
    axis.set_xscale("log")
    axis.set_yscale("log")
    label(axis, "features of the system", "largest error of the output")
    run.save_figure(
        figure,
        "features_of_softmax",
        "Softmax attention is a system of infinitely many features. Small scores are served by a "
        "few hundred; at scores of the usual size it takes more than any model has. Points: "
        "orders of the Taylor series, 1 apart from the even ones.",
    )


MIXER_COLORS: dict[str, str] = dict(
    zip(
        ("softmax", "linear", "exp", "softplus", "sigmoid", "ssd", "qlstm", "qlstm_reversed"),
        (*COLORS, "#000000"),
        strict=True,
    )
)


def _style(spec, expansions):
    """A colour a mixer; a line style an expansion."""
    lines = ("-", "--", ":", "-.")
    position = sorted(expansions).index(spec.expansion)
    return {"color": MIXER_COLORS[spec.mixer], "linestyle": lines[position % len(lines)]}


def recall_over_steps(run, curves, steps, pairs: int) -> None:
    """Accuracy on fresh sequences during training, mean over seeds and each seed."""
    blocks = sorted({spec.mlp for spec in curves})
    figure, axes = panels(1, len(blocks), width=4.4, height=3.2, sharey=True)
    for axis, mlp in zip(axes[0], blocks, strict=True):
        for spec, curve in curves.items():
            if spec.mlp != mlp:
                continue
            same = [s.expansion for s in curves if s.mixer == spec.mixer]
            look = _style(spec, set(same))
            axis.plot(steps, curve.mean(0), label=spec.name.removesuffix("_mlp"), **look)
            axis.plot(steps, curve.T, linewidth=0.4, alpha=0.6, **look)
        axis.axhline(1 / pairs, color="black", linewidth=0.6)
        axis.set_ylim(0, 1.03)
        label(axis, "step", "recall", "with an MLP" if mlp else "without an MLP", legend=False)
        axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    run.save_figure(
        figure,
        f"recall_over_steps_{pairs}",
        f"Recall of {pairs} values during training, by mixer and state expansion. Thin lines are "
        "seeds. The black line is a guess among the values in the sequence.",
    )


def recall_over_state(run, curves, pairs: int) -> None:
    """Final accuracy over the state expansion, where a mixer was trained with several."""
    expansions: dict[str, list[int]] = {}
    for spec in curves:
        if not spec.mlp:
            expansions.setdefault(spec.mixer, []).append(spec.expansion)
    several = {mixer: sorted(found) for mixer, found in expansions.items() if len(found) > 1}
    if not several:
        return
    figure, axes = panels(1, 1, width=4.4, height=3.0)
    for mixer, found in several.items():
        of_mixer = {spec.expansion: c[:, -1] for spec, c in curves.items()
                    if spec.mixer == mixer and not spec.mlp}  # fmt: skip
        values = np.array([of_mixer[n] for n in found])
        color = MIXER_COLORS[mixer]
        axes[0, 0].plot(found, values.mean(1), color=color, marker="o", ms=3, label=mixer)
        axes[0, 0].plot(found, values, ".", color=color, ms=3, alpha=0.6)
    axes[0, 0].axhline(1 / pairs, color="black", linewidth=0.6)
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].set_ylim(0, 1.03)
    label(axes[0, 0], "state expansion n", "recall")
    run.save_figure(
        figure,
        f"recall_over_state_{pairs}",
        f"Recall of {pairs} values at the end of training over the state expansion; dots: seeds.",
    )


def recall_by_mixer(run, curves, pairs: int) -> None:
    """Final accuracy of every mixer, a dot a seed."""
    figure, axes = panels(1, 1, width=6.2, height=2.8)
    axis = axes[0, 0]
    for place, (spec, curve) in enumerate(curves.items()):
        color = COLORS[1] if spec.mlp else COLORS[0]
        axis.bar(place, curve[:, -1].mean(), color=color, alpha=0.5)
        axis.plot(np.full(len(curve), place), curve[:, -1], "o", ms=3, color=color)
    axis.axhline(1 / pairs, color="black", linewidth=0.6)
    axis.set_xticks(range(len(curves)), [spec.name for spec in curves], rotation=40, ha="right")
    axis.set_ylim(0, 1.03)
    label(axis, "", "recall")
    run.save_figure(
        figure,
        f"recall_by_mixer_{pairs}",
        f"Recall of {pairs} values at the end of training; the number is the state expansion, "
        "orange has an MLP. Dots are seeds; the black line is a guess among the values in the "
        "sequence.",
    )
