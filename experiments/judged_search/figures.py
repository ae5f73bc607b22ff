"""Figures of judged search."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.plots import COLORS, label, panels


def tabular(run, table: np.ndarray, names: Sequence[str]) -> None:
    """Bars of match, searches and right judgements by payment."""
    figure, axes = panels(1, 3, width=2.7, height=2.7)
    place = np.arange(len(names))
    titles = ("right answers", "searches of four", "right judgements")
    for number, (axis, title) in enumerate(zip(axes[0], titles, strict=True)):
        values = table[:, :, number]
        axis.bar(place, values.mean(1), yerr=values.std(1), color=COLORS[: len(names)])
        axis.set_xticks(place, names, rotation=25, fontsize=8, ha="right")
        label(axis, "", "", title)
    run.save_figure(
        figure, "tabular",
        "An agent of a few numbers, by what is paid beside a right answer: nothing, the sum of its "
        "judgements' rewards, their mean, or the sum where only what holds the answer is useful.",
    )  # fmt: skip


def agents(run, of: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """What agents do on the way, and in the test by turns."""
    figure, axes = panels(1, 4, width=2.6, height=2.6)
    fields = ("match", "searches", "judged")
    for axis, field in zip(axes[0], fields, strict=False):
        for color, name in zip(COLORS, names, strict=False):
            values = of[f"{name}/on the way/{field}"].mean(0)
            width = max(len(values) // 10, 1)
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            axis.plot(np.arange(len(smooth)) + width, smooth, color=color, label=name)
    label(axes[0, 0], "update", "", "right answers")
    label(axes[0, 1], "update", "", "searches", legend=False)
    label(axes[0, 2], "update", "", "right judgements", legend=False)
    turns = sorted(int(name.split()[-1]) for name in of if name.startswith("mean/turns"))
    values = np.stack([of[f"mean/turns {turn}"].mean(0) for turn in turns])
    for hop in range(2):
        axes[0, 3].plot(turns, values[:, hop], "o-", color=COLORS[hop], label=f"{hop + 1} hops")
    label(axes[0, 3], "turns at most", "", "right, by turns (mean)")
    run.save_figure(
        figure, "agents",
        "Agents by what is paid beside a right answer: right answers, searches and right "
        "judgements of each update (means over a tenth of them); and right answers of the agent "
        "that is paid by the mean, with so many turns.",
    )  # fmt: skip
