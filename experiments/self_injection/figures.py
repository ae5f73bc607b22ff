"""Figures of self-injection."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.plots import COLORS, label, panels


def draw(run, study: str, of: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """What captions say that is not there, by round and by sentence; and what they leave out."""
    figure, axes = panels(1, 3, width=2.9, height=2.6)
    for color, name in zip(COLORS, names, strict=False):
        for axis, field in zip(axes[0], ("chair", "recall"), strict=False):
            values = of[f"{name}/{field}"]
            axis.errorbar(
                np.arange(values.shape[1]), values.mean(0), values.std(0) if len(values) > 1 else 0,
                fmt="o-", color=color, label=name, markersize=4,
            )  # fmt: skip
        values = of[f"{name}/by_sentence"].mean(0)
        axes[0, 2].plot(np.arange(1, values.shape[1] + 1), values[-1], "o-", color=color,
                        markersize=4, label=name)  # fmt: skip
    before = of[f"{names[0]}/by_sentence"].mean(0)[0]
    axes[0, 2].plot(np.arange(1, len(before) + 1), before, ":", color="#666666", label="before")
    label(axes[0, 0], "round", "CHAIR_i", "mentions of what is not there")
    label(axes[0, 1], "round", "recall", "what is there and mentioned")
    label(axes[0, 2], "sentence", "wrong mentions", "by sentence, after the last round")
    run.save_figure(
        figure, study,
        f"The {study} captioner: mentions of absent objects over mentions, and the share of what "
        "is there that is mentioned, by round of preference; and wrong mentions by sentence. Means "
        "and standard deviations over seeds.",
    )  # fmt: skip
