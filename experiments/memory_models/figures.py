"""Figures of memories that learn at test time."""

import numpy as np

from experiments.plots import COLORS, label, log_scale, panels


def errors_by_loss(run, best, losses: list[str]) -> None:
    """A bar a loss, with and without outliers."""
    figure, axes = panels(1, 1, width=5.2, height=2.8)
    axis = axes[0, 0]
    for offset, kind, color, name in (
        (-0.2, "clean", COLORS[5], "no outliers"),
        (0.2, "spoilt", COLORS[1], "10 % outliers"),
    ):
        values = [np.clip(best[f"{loss}/{kind}"], 1e-3, 1e2) for loss in losses]
        places = np.arange(len(losses)) + offset
        means = [v.mean() for v in values]
        spread = [v.std() / np.sqrt(len(v)) for v in values]
        axis.bar(places, means, 0.36, yerr=spread, color=color, alpha=0.7, label=name, capsize=2)
    axis.set_xticks(range(len(losses)), losses)
    log_scale(axis)
    label(axis, "", "relative error of the memory")
    run.save_figure(
        figure,
        "errors_by_loss",
        "How far a linear memory ends from the map it was shown, by the loss it learned with, each "
        "at its best step size. Bars: means over seeds and their standard errors; cut at 100.",
    )


def stored(run, best, settings) -> None:
    """A bar a network: how much of the values one pass leaves."""
    figure, axes = panels(1, 1, width=5.2, height=2.4)
    axis = axes[0, 0]
    means = [each.mean() for each in best.values()]
    errors = [each.std(ddof=1) / np.sqrt(len(each)) for each in best.values()]
    axis.barh(list(best), means, xerr=errors, color=COLORS[0], alpha=0.7, capsize=2)
    axis.invert_yaxis()
    label(axis, "cosine of values and reads", "", legend=False)
    run.save_figure(
        figure,
        "stored",
        f"What one pass over {settings.pairs} pairs leaves of them, by the memory's network, each "
        "at its best step sizes. Bars: means over seeds and their standard errors.",
    )


def deep_and_linear(run, curves, block: int) -> None:
    """Prediction error along the stream."""
    figure, axes = panels(1, 1, width=4.2, height=2.8)
    axis = axes[0, 0]
    for color, (name, errors) in zip(COLORS, curves.items(), strict=False):
        tokens = (np.arange(errors.shape[1]) + 1) * block
        axis.plot(tokens, errors.mean(0), color=color, label=name)
        axis.plot(tokens, errors.T, color=color, linewidth=0.4, alpha=0.6)
    log_scale(axis)
    label(axis, "tokens read", "relative squared error")
    run.save_figure(
        figure,
        "deep_and_linear",
        "Error of predictions on a map that is not linear, while a memory reads. The best matrix "
        "predicts nothing (error 1); an MLP goes on learning. Thin lines are seeds.",
    )


def change_of_mind(run, curves, flip: int) -> None:
    """Prediction error round the change, by forgetting."""
    figure, axes = panels(1, 1, width=4.2, height=2.8)
    axis = axes[0, 0]
    for color, (forget, error) in zip(COLORS, curves.items(), strict=False):
        smooth = np.convolve(error, np.ones(10) / 10, mode="valid")
        axis.plot(np.arange(len(smooth)) + 10, smooth, color=color, label=f"a = {forget:g}")
    axis.axvline(flip, color="black", linewidth=0.6, linestyle="--")
    axis.set_yscale("log")
    axis.set_ylim(bottom=1e-3)
    label(axis, "token", "relative squared error")
    run.save_figure(
        figure,
        "change_of_mind",
        "Error of predictions of a linear memory, mean of ten tokens and all seeds. At the dashed "
        "line the map changes its sign; memories that forget get over it sooner.",
    )


def recall_over_steps(run, found, steps, guess: float) -> None:
    """Recall during training."""
    figure, axes = panels(1, 1, width=5.2, height=3.0)
    axis = axes[0, 0]
    for color, (name, curve) in zip(_cycle(len(found)), found.items(), strict=True):
        axis.plot(steps, curve.mean(1), label=name, **color)
        axis.plot(steps, curve, linewidth=0.4, alpha=0.6, **color)
    axis.axhline(guess, color="black", linewidth=0.6)
    axis.set_ylim(0, 1.03)
    label(axis, "step", "recall", legend=False)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    run.save_figure(
        figure,
        "recall_over_steps",
        "Associative recall during training. Thin lines are seeds; the black line is a guess among "
        "the values of the sequence.",
    )


def accuracy_over_length(run, found, lengths, guess: float) -> None:
    """The needle's accuracy at the length of training and beyond."""
    figure, axes = panels(1, 1, width=5.2, height=3.0)
    axis = axes[0, 0]
    for color, (name, accuracy) in zip(_cycle(len(found)), found.items(), strict=True):
        axis.plot(lengths, accuracy.mean(1), marker="o", markersize=3, label=name, **color)
        axis.plot(lengths, accuracy, linewidth=0.4, alpha=0.6, **color)
    axis.axhline(guess, color="black", linewidth=0.6)
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [str(length) for length in lengths])
    axis.set_ylim(0, 1.03)
    label(axis, "tokens", "needles found", legend=False)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    run.save_figure(
        figure,
        "accuracy_over_length",
        f"Needles found in sequences of {lengths[0]} tokens, the length of training, and in longer "
        "ones. Thin lines are seeds; the black line is a guess among all values.",
    )


def ablated(run, bits) -> None:
    """Bits a byte of the whole and without each part."""
    figure, axes = panels(1, 1, width=5.2, height=2.4)
    axis = axes[0, 0]
    whole, *removed = bits
    more = [bits[name] - bits[whole] for name in removed]
    errors = [each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else 0 for each in more]
    means = [each.mean() for each in more]
    axis.barh([f"without {name}" for name in removed], means, xerr=errors, color=COLORS[0],
              alpha=0.7, capsize=2)  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.6)
    axis.invert_yaxis()
    label(axis, "bits a byte above the whole", "", legend=False)
    run.save_figure(
        figure,
        "ablations",
        "Held-out text: what a decoder with Titans' memory as context loses without a part. Means "
        "over seeds, each against the whole from the same seed, and their standard errors.",
    )


def grid(run, found, losses: list[str], retentions: list[str]) -> None:
    """Recall by loss and retention."""
    figure, axes = panels(1, 1, width=4.6, height=2.8)
    axis = axes[0, 0]
    table = np.array([[found[loss, kept].mean() for kept in retentions] for loss in losses])
    image = axis.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        color = "white" if value > 0.6 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    axis.set_xticks(range(len(retentions)), retentions, fontsize=7)
    axis.set_yticks(range(len(losses)), losses)
    figure.colorbar(image, ax=axis, fraction=0.046)
    label(axis, "retention", "loss", legend=False)
    run.save_figure(
        figure,
        "grid",
        "Recall after training with a linear memory, by the loss that it learns with and by how it "
        "keeps the past. Means over seeds.",
    )


def _cycle(count: int) -> list[dict]:
    lines = ("-", "--", ":")
    return [
        {"color": COLORS[i % len(COLORS)], "linestyle": lines[i // len(COLORS) % len(lines)]}
        for i in range(count)
    ]
