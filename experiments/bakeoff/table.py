"""The bake-off's table and figures."""

from collections.abc import Sequence

import numpy as np

from experiments.bakeoff.study import Row
from experiments.plots import COLORS, label, panels
from jattn.training import Run

HEAD = ("mechanism", "parameters", "MFLOP", "ms", "text", "16x", "recall", "copy", "induction")


def mean(values: np.ndarray) -> float:
    """The mean over seeds."""
    return float(np.mean(values))


def standard_error(values: np.ndarray) -> float:
    """Of the mean over seeds."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def markdown(rows: Sequence[Row], stretches: Sequence[int]) -> str:
    """The table, in Markdown; means over seeds with standard errors."""
    head = [*HEAD[:5], f"text at {stretches[-1]}x", *HEAD[6:]]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        if row.failed:
            lines.append(f"| `{row.mechanism}` | failed: {row.failed} |" + " |" * (len(head) - 2))
            continue
        lines.append("| `" + row.mechanism + "` | " + " | ".join(_cells(row)) + " |")
    return "\n".join(lines) + "\n"


def plain(rows: Sequence[Row], stretches: Sequence[int]) -> list[str]:
    """The table in lines of at most 100 columns."""
    names = [row.mechanism[:30] for row in rows]
    head = ["", "params", "MFLOP", "ms", "text", f"x{stretches[-1]}", "recall", "copy", "induct."]
    widths = [30, 8, 6, 6, 9, 9, 8, 8, 8]
    lines = [_line(head, widths)]
    for name, row in zip(names, rows, strict=True):
        if row.failed:
            lines.append(f"{name:30} failed: {row.failed}"[:100])
        else:
            cells = _cells(row)
            short = [*cells[:3], *(cell.replace(" ± ", "±") for cell in cells[3:])]
            lines.append(_line([name, *short], widths))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return f"{first[0]:{first[1]}}" + "".join(f" {cell:>{width}}" for cell, width in rest)


def _cells(row: Row) -> list[str]:
    def both(values):
        error = f"{standard_error(values):.2f}".removeprefix("0")
        return f"{mean(values):.2f} ± {error}"

    cells = [f"{row.parameters:,}", f"{row.flops / 1e6:.3f}", f"{row.milliseconds:.1f}"]
    cells.append(both(row.quality["text"]) if "text" in row.quality else "")
    cells.append(both(row.stretched[-1]) if len(row.stretched) else "")
    for task in ("recall", "copy", "induction"):
        cells.append(both(row.quality[task]) if task in row.quality else "")
    return cells


def draw(run: Run, config, rows: Sequence[Row]) -> None:
    """Quality against cost, and quality at greater lengths."""
    rows = [row for row in rows if not row.failed]
    if any("text" in row.quality for row in rows):
        _draw_length(run, config, [row for row in rows if "text" in row.quality])
    if rows:
        _draw_costs(run, rows)


def _style(number: int) -> dict:
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": "osD^vP*X"[number // len(COLORS) % 8],
    }


def _draw_length(run: Run, config, rows: Sequence[Row]) -> None:
    figure, axes = panels(1, 1, width=6.5, height=4.0)
    axis = axes[0, 0]
    lengths = [config.text_length * n for n in config.stretches]
    for number, row in enumerate(rows):
        axis.errorbar(
            lengths,
            row.stretched.mean(1),
            [standard_error(values) for values in row.stretched],
            label=row.mechanism,
            markersize=4,
            **_style(number),
        )
    axis.set_xscale("log", base=2)
    axis.axvline(config.text_length, color="#999999", linestyle=":", linewidth=1)
    label(axis, "bytes read", "bits a byte", legend=False)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    run.save_figure(
        figure,
        "length",
        f"Held-out text at up to {config.stretches[-1]} times the length of training (dotted): "
        "what rises has learned the length with the text. Means and standard errors over seeds.",
    )


def _draw_costs(run: Run, rows: Sequence[Row]) -> None:
    tasks = [t for t in ("text", "recall", "copy", "induction") if t in rows[0].quality]
    sizes = {
        "parameters": [row.parameters for row in rows],
        "MFLOP a token": [row.flops / 1e6 for row in rows],
        "ms a step": [row.milliseconds for row in rows],
    }
    figure, axes = panels(len(tasks), len(sizes), width=2.6, height=2.2)
    for line, task in zip(axes, tasks, strict=True):
        for axis, (name, values) in zip(line, sizes.items(), strict=True):
            for number, (row, value) in enumerate(zip(rows, values, strict=True)):
                if task not in row.quality:
                    continue
                axis.errorbar(
                    value,
                    mean(row.quality[task]),
                    standard_error(row.quality[task]),
                    label=row.mechanism,
                    markersize=5,
                    linestyle="",
                    **_style(number),
                )
            unit = "bits a byte" if task == "text" else "accuracy"
            label(axis, name, f"{task}: {unit}", legend=False)
            axis.locator_params(axis="x", nbins=4)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside right center")
    run.save_figure(
        figure,
        "quality_and_cost",
        "Quality on each task (rows) against parameters, the compiler's count of FLOPs, and the "
        "time of a training step on this machine (columns). Means and standard errors over seeds.",
    )
