"""Figures of self-contradiction."""

from collections.abc import Sequence

import numpy as np

from experiments.plots import COLORS, label, panels

NAMES = ("city", "trade", "school", "spouse", "prize", "debut", "rival", "likes")
CELL, DROPPED = 1.15, "#d55e00"


def draw(run, config, rows: Sequence[dict[str, np.ndarray]], triggers: Sequence[str]) -> None:
    """All figures, of runs with several seeds."""
    _triggers(run, rows, triggers)
    _rounds(run, rows)
    _revised(run, rows[0])


def _triggers(run, rows, triggers) -> None:
    figure, axes = panels(1, 2, width=3.8, height=2.9)
    left, right = axes[0]
    place = np.arange(len(triggers))
    for number, (name, text) in enumerate(
        (("named", "names the attribute"), ("triggered", "and another value"))
    ):
        values = np.stack([row[name] for row in rows]).mean(0)
        left.bar(place + 0.35 * (number - 0.5), values, 0.33, color=COLORS[number], label=text)
    left.set_xticks(place, triggers, fontsize=8)
    label(left, "what asks for another sentence", "share of facts", "triggers")
    pairs = np.concatenate([row["pair"] for row in rows])
    for rate in np.unique(pairs[:, 0].round(3)):
        told = pairs[np.isclose(pairs[:, 0], rate, atol=1e-3), 1]
        error = 2 * np.sqrt(told.mean() * (1 - told.mean()) / len(told))
        right.errorbar(rate, told.mean(), error, fmt="o", color=COLORS[0], capsize=3)
    right.plot([0, 0.7], [0, 0.7], color="#999999", linestyle=":")
    label(right, "1 - sum p^2 of the texts", "measured rate", "contradictions by fact")
    run.save_figure(
        figure, "triggers",
        "Left: how often another sentence can be compared with a fact, and contradicts it, by what "
        "asks for it. Right: how often filling the gap contradicts facts whose weights in the "
        "texts are the same, against what these weights say; two standard errors.",
    )  # fmt: skip


def _rounds(run, rows) -> None:
    figure, axes = panels(1, 3, width=2.9, height=2.6)
    for number, (judge, text) in enumerate((("exact", "exact judge"), ("own", "its own judge"))):
        of = lambda name, judge=judge: np.stack([row[f"{judge}_{name}"] for row in rows]).mean(0)
        for axis, values in zip(axes[0], (of("rate"), of("kept"), of("truth")), strict=True):
            axis.plot(np.arange(len(values)), values, "o-", color=COLORS[number], label=text)
        axes[0, 1].axhline(
            of("dropped"), color=COLORS[number], linestyle=":", label=f"dropped at once, {judge}"
        )
    for axis, title in zip(
        axes[0], ("flagged sentences", "facts left", "agree with most texts"), strict=True
    ):
        label(axis, "round", "", title)
    run.save_figure(
        figure, "rounds",
        "By round of judging: the share of sentences with a flagged fact; facts before each round, "
        "and at the end, beside what is left if flagged sentences are dropped at once; and the "
        "share of those facts that is what most texts of training say.",
    )  # fmt: skip


def _revised(run, row) -> None:
    """A text with sentences that are dropped and rewritten, most of it taken, clause by clause."""
    text, keep = row["exact_text"], row["exact_keep"]
    taken = keep[0] & ~keep[-1]
    dropped = keep[0].any(2) & ~keep[-1].any(2)
    rewritten = taken.any(2) & keep[-1].any(2)
    both = dropped.any(1) * 1 + rewritten.any(1)
    which = int(np.argmax(100 * both + taken.sum((1, 2))))
    facts, before, after = text[which], keep[0][which], keep[-1][which]
    count = int(before.any(1).sum())
    figure, axes = panels(1, 1, width=8.2, height=0.35 * count + 0.9)
    axis = axes[0, 0]
    axis.set_axis_off()
    for i in range(count):
        state = "dropped" if not after[i].any() else (
            "rewritten" if (before[i] != after[i]).any() else "as it was"
        )  # fmt: skip
        axis.text(-0.05, -i, state, ha="right", va="center", fontsize=8, color="#666666")
        for f in np.flatnonzero(before[i]):
            words = f"{NAMES[facts[i, f, 1]]} is no. {facts[i, f, 2] + 1}"
            gone = not after[i, f]
            x = CELL * f
            axis.text(x, -i, words, va="center", fontsize=9, color=DROPPED if gone else "black")
            if gone:
                axis.plot([x, x + 0.42], [-i, -i], color=DROPPED, linewidth=1)
    axis.set_xlim(-0.6, CELL * 3)
    axis.set_ylim(-count + 0.4, 0.8)
    title = f"what person {facts[0, 0, 0]} is said to be, sentence by sentence"
    axis.set_title(title, fontsize=10)
    run.save_figure(
        figure, "revised",
        "A text before and after: clauses that contradicted what the model itself wrote in their "
        "place are struck out. Sentences with none left are dropped, others are rewritten without "
        "them.",
    )  # fmt: skip
