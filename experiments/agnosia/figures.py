"""Figures of agnosia."""

from collections.abc import Sequence

import numpy as np

from experiments.agnosia.items import FIRST, OPTION, OPTIONS, Items
from experiments.plots import COLORS, label, panels
from jattn.tasks import scene_items as si

SHAPES = ("square", "disc", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow")
ANSWERS = (
    "no", "yes", *COLOURS, "small", "large", "1", "2", "3", "4", *si.QUADRANTS, *si.RELATIONS,
    *SHAPES,
)  # fmt: skip


def rates(run, table: dict[str, np.ndarray], stages: Sequence[str]) -> None:
    """Agnosia of each aspect after each stage, with 95 % intervals."""
    figure, axes = panels(1, 1, width=6.4, height=2.8)
    axis = axes[0, 0]
    at, chance = np.arange(len(si.ASPECTS)), 1 / OPTIONS
    for number, stage in enumerate(stages):
        value = table[f"{stage} agnosia"].mean(0)
        ends = [
            1 - (table[f"{stage} {end}"].mean(0) - chance) / (1 - chance) for end in ("high", "low")
        ]
        bars = np.clip([value - ends[0], ends[1] - value], 0, None)
        place = at + 0.26 * (number - 1)
        axis.bar(place, value, 0.24, yerr=bars, color=COLORS[number], label=stage)
    axis.plot(at, table["blind"].mean(0), "_", color="black", markersize=22, label="blind")
    axis.axhline(1, color="#999999", linestyle=":", linewidth=1)
    axis.set_xticks(at, list(si.ASPECTS))
    label(axis, "", "agnosia")
    run.save_figure(
        figure,
        "rates",
        "Agnosia by aspect: 0 sees, 1 guesses, above 1 is misled. After coarse teaching, after all "
        "aspects, and after colour alone, each from the coarse one; black: without the image. Bars "
        "are 95 % intervals.",
    )


def question_of(row: np.ndarray) -> str:
    """A question in words.

    Example:
        >>> question_of(np.array([0, 1, 2, -1, -1, -1, 0]))
        'colour of the triangle?'
    """
    thing = lambda shape, colour: " ".join(
        filter(
            None, [COLOURS[colour] if colour >= 0 else "", SHAPES[shape] if shape >= 0 else "thing"]
        )
    )
    aspect, one, other = row[1], thing(*row[2:4]), thing(*row[4:6])
    if aspect == si.EXISTENCE:
        return f"is there a {one}?"
    if aspect == si.COUNT:
        return "how many?"
    if aspect == si.RELATION:
        return f"{one}: where from {other}?"
    return f"{si.ASPECTS[aspect]} of the {one}?"


def examples(run, asked: Items, found: np.ndarray) -> None:
    """One scene of each aspect, what is asked, and what is answered."""
    figure, axes = panels(1, len(si.ASPECTS), width=1.9, height=2.3)
    for axis, rows, scores in zip(axes[0], np.asarray(asked.rows), found, strict=True):
        row, guess = rows[0], int(scores[0].argmax())
        axis.imshow(np.asarray(si.render(asked.scenes[row[0]][None]))[0])
        axis.set_axis_off()
        said = ANSWERS[FIRST[row[1]] + guess]
        right = "" if guess == row[OPTION] else f" (no: {ANSWERS[FIRST[row[1]] + row[OPTION]]})"
        axis.set_title(question_of(row), fontsize=7)
        axis.text(0.5, -0.12, said + right, transform=axis.transAxes, ha="center", fontsize=8)
    run.save_figure(
        figure,
        "examples",
        "One item of each aspect, and what the model answers after all aspects were taught; where "
        "it is wrong, the right answer.",
    )
