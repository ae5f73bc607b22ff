"""Figures of sinks."""

import numpy as np

from experiments.plots import COLORS, label, panels
from experiments.sink_emergence.arm import Arm
from experiments.sink_emergence.training import Trained


def name_of(arm: Arm) -> str:
    """What an arm has that the usual one has not."""
    usual = Arm()
    changed = {f: getattr(arm, f) for f in Arm._fields if getattr(arm, f) != getattr(usual, f)}
    return ", ".join(
        str(v) if f == "operation" else f"{f} {v:g}" if isinstance(v, int | float) else f"{f} {v}"
        for f, v in changed.items()
    ) or "softmax"  # fmt: skip


def overview(run, trained: Trained) -> None:
    """Sink of the first position at the end, and the loss, of every arm."""
    figure, axes = panels(1, 2, width=4.2, height=0.2 * len(trained.arms) + 0.8, sharey=True)
    at = np.arange(len(trained.arms))
    for axis, values, name in (
        (axes[0, 0], trained.noted["sink"][-1][..., 0], "Sink_1"),
        (axes[0, 1], trained.noted["test"][-1], "loss, nats a token"),
    ):
        axis.barh(at, values.mean(0), color=COLORS[0], height=0.7)
        axis.plot(values.T, at, "k.", markersize=3)
        label(axis, name, "")
    axes[0, 0].set_yticks(at, [name_of(arm) for arm in trained.arms], fontsize=7)
    axes[0, 0].invert_yaxis()
    run.save_figure(figure, "overview", "Share of samples and heads with a sink on the first "
                    "position, and the loss, at the end of training. Dots are seeds.")  # fmt: skip


def emergence(run, trained: Trained, usual: Arm, name: str = "emergence") -> None:
    """The sink against the step."""
    chosen = [usual, Arm(operation="sigmoid"), Arm(operation="sigmoid_norm"), Arm(bias="key")]
    figure, axes = panels(1, 2, width=3.8, height=2.8)
    for color, arm in zip(COLORS, chosen, strict=False):
        index = trained.arms.index(arm)
        for axis, values in (
            (axes[0, 0], trained.noted["sink"][:, :, index, 0]),
            (axes[0, 1], trained.noted["test"][:, :, index]),
        ):
            axis.plot(trained.steps, values.mean(1), color=color, label=name_of(arm))
    label(axes[0, 0], "step", "Sink_1")
    label(axes[0, 1], "step", "loss, nats a token", legend=False)
    ids = "K12 K13 K14" if name == "emergence" else ""
    run.save_figure(figure, name, "The sink on the first position, and the loss, against the "
                    f"step. {ids}")  # fmt: skip


def by_position(run, sinks: np.ndarray) -> None:
    """The sink metric of a trained model, by position."""
    figure, axes = panels(1, 1, width=4.0, height=2.6)
    axes[0, 0].bar(np.arange(1, len(sinks) + 1), sinks, color=COLORS[0])
    label(axes[0, 0], "position", "share of heads and samples with a sink")
    run.save_figure(figure, "trained_model", "Sink_k of SmolLM2-135M. K16")
