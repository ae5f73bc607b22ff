"""Figures of the conversion by Hedgehog."""

import numpy as np

from experiments.plots import COLORS, label, panels


def spikes(run, found, maps) -> None:
    """Weights over scores for every feature map: one row of weights, and the two numbers."""
    figure, axes = panels(2, 3, width=3.0, height=2.3)
    for axis, name in zip(axes.flat, maps, strict=True):
        axis.scatter(found["scores"][0], found[f"weights_{name}"][0], s=8, color=COLORS[0])
        axis.set_yscale("log")
        axis.set_ylim(bottom=max(1e-6, found[f"weights_{name}"][0].min() / 2))
        rank, entropy = (found[f"{q}_{name}"].mean() for q in ("spearman", "entropy"))
        label(axis, "q.k / sqrt(d)", "weight", f"{name}: rank {rank:.2f}, entropy {entropy:.2f}",
              legend=False)  # fmt: skip
    run.save_figure(
        figure,
        "spikes",
        "The weights of one random query over its scores. Softmax is a line, and spiky. Features "
        "that are not learned lose the order of scores, the spikes, or both; of these the joint "
        "softmax is the spikiest. Titles: mean rank correlation and entropy over all draws.",
    )


def conversion(run, plans, found, students, file="conversion", what="recall") -> None:
    """Accuracy during fine-tuning, and the divergence of every layer."""
    figure, axes = panels(1, 2, width=4.2, height=3.0)
    recall, layers = axes[0]
    for color, name in zip(COLORS, students, strict=False):
        curve = found[f"accuracy_{name}"]
        steps = np.linspace(0, plans.fine_tuning.steps, curve.shape[1])
        recall.plot(steps, curve.mean(0), marker="o", ms=3, color=color, label=name)
        recall.plot(steps, curve.T, linewidth=0.4, alpha=0.6, color=color)
        kl = found[f"divergence_{name}"]
        layers.plot(1 + np.arange(kl.shape[1]), kl.mean(0), marker="o", color=color, label=name)
    recall.axhline(found["teacher"].mean(), color="black", linestyle="--", linewidth=0.8)
    recall.set_ylim(0, 1.03)
    layers.set_ylim(bottom=0)
    layers.set_xticks(range(1, 1 + found[f"divergence_{students[0]}"].shape[1]))
    label(recall, "steps of fine-tuning", what, "in place of softmax (dashed)")
    label(layers, "layer", "KL from softmax, nats", "before fine-tuning")
    run.save_figure(
        figure,
        file,
        f"Left: {what} after linear attention has taken the place of a trained softmax (dashed), "
        "with all projections kept. Right: how far its weights are from softmax's.",
    )


def learned_weights(run, found, students) -> None:
    """Weights on one sequence, and over scores, in the layer that is hardest to be linear in."""
    names = ["teacher", *students]
    layer = int(found["divergence_elu1"].mean(0).argmax())
    figure, axes = panels(2, len(names), width=2.3, height=2.2)
    scores = found["scores"][0, layer]
    seen = np.tril(np.ones_like(scores, dtype=bool))
    for column, name in zip(axes.T, names, strict=True):
        weights = found[f"weights_{name}"][0, layer]
        column[0].imshow(weights**0.5, cmap="Blues", vmin=0, vmax=1)
        column[0].set_title(name, fontsize=9)
        column[0].set_xticks([])
        column[0].set_yticks([])
        column[1].scatter(scores[seen], weights[seen], s=2, alpha=0.3, color=COLORS[0])
        column[1].set_yscale("log")
        column[1].set_ylim(1e-6, 1.5)
        label(column[1], "q.k", "weight", legend=False)
    run.save_figure(
        figure,
        "learned_weights",
        f"Layer {layer + 1} on one sequence, one head of the first seed. Above: square roots of "
        "weights. Below: weights over scores; softmax is monotone up to each row's normaliser.",
    )
