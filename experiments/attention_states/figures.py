"""Figures of states of attention."""

import numpy as np

from experiments.attention_states.world import Beliefs
from experiments.plots import COLORS, label, panels
from jattn.tasks.behaviour_stream import STATES, Stream


def episode(run, stream: Stream, belief: Beliefs, held: np.ndarray) -> None:
    """One episode: the truth, what the filter believes, and what is acted on."""
    figure, axes = panels(2, 1, width=7.0, height=1.7, sharex=True)
    truth = np.asarray(stream.states[0])
    at = np.arange(len(truth))
    axes[0, 0].stackplot(at, belief.filtered[0].T, colors=COLORS[:4], labels=STATES, step="mid")
    axes[0, 0].set_ylim(0, 1)
    axes[0, 0].set_ylabel("belief")
    lower = axes[1, 0]
    for name, row, shift in (("truth", truth, 0.08), ("acted on", held[0], -0.08)):
        color = "black" if name == "truth" else COLORS[5]
        lower.step(at, row + shift, where="mid", color=color, label=name, linewidth=1.2)
    lower.set_yticks(range(4), STATES)
    label(lower, "window", "", legend=False)
    for axis in (axes[0, 0], lower):
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    run.save_figure(
        figure,
        "episode",
        "One episode: what the exact filter believes in each window (above), and the true state "
        "beside the one that the policy acts on (below).",
    )


def confusion(run, matrix: np.ndarray) -> None:
    """How a wizard's states are met by the policy's."""
    figure, axes = panels(1, 1, width=3.4, height=3.0)
    axis = axes[0, 0]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        color = "white" if value > 0.6 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    axis.set_xticks(range(4), STATES, rotation=30, fontsize=7)
    axis.set_yticks(range(4), STATES, fontsize=7)
    label(axis, "policy", "wizard", legend=False)
    run.save_figure(
        figure, "confusion", "Of each state that a wizard chose, what the policy acted on."
    )


def accuracy(run, right: dict[str, np.ndarray], macro: dict[str, float]) -> None:
    """Accuracy of all that tell states, by episode, and macro F1."""
    figure, axes = panels(1, 1, width=5.6, height=2.6)
    axis = axes[0, 0]
    names = list(right)
    axis.boxplot([right[name] for name in names], orientation="horizontal", widths=0.6)
    axis.plot([macro[name] for name in names], 1 + np.arange(len(names)), "d", color=COLORS[1])
    axis.set_yticks(1 + np.arange(len(names)), names)
    axis.axvline(right["Bayes filter"].mean(), color="#999999", linestyle=":", linewidth=1)
    label(axis, "accuracy", "", legend=False)
    run.save_figure(
        figure,
        "accuracy",
        "Accuracy by episode of the test (boxes: quartiles), and macro F1 (diamonds). Dotted: the "
        "mean of the exact filter, which nothing that is causal can pass.",
    )
