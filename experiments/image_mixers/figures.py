"""The figure of mixers of patches."""

import numpy as np

from experiments.image_mixers.models import AGENTS
from experiments.margins import standard_error
from experiments.plots import COLORS, label, panels


def draw(run, rows: dict[str, dict[str, np.ndarray]], speed: dict[str, np.ndarray]) -> None:
    """Errors of all mixers, and error and time by the number of agents."""
    figure, axes = panels(1, 3, width=3.4, height=3.0)
    errors = {name: 100 * (1 - row["test_accuracy"]) for name, row in rows.items()}
    means = [each.mean() for each in errors.values()]
    spread = [standard_error(each) for each in errors.values()]
    axes[0, 0].barh(list(errors), means, xerr=spread, color=COLORS[0], alpha=0.7, capsize=2)
    axes[0, 0].invert_yaxis()
    axes[0, 0].tick_params(axis="y", labelsize=6)
    label(axes[0, 0], "test error (%)", "", "one number of parameters", legend=False)
    entries = list(rows)
    agents = {int(name.removeprefix(AGENTS)): name for name in entries if name.startswith(AGENTS)}
    counts = sorted(agents)
    axes[0, 1].errorbar(
        counts,
        [errors[agents[n]].mean() for n in counts],
        [standard_error(errors[agents[n]]) for n in counts],
        marker="o",
        color=COLORS[0],
        label="agent attention",
    )
    milliseconds = [speed["ms"][entries.index(agents[n])] for n in counts]
    axes[0, 2].plot(counts, milliseconds, "-o", color=COLORS[0], label="agent attention")
    if "softmax_attention" in rows:
        softmax = entries.index("softmax_attention")
        axes[0, 1].axhline(means[softmax], color=COLORS[1], label="softmax")
        axes[0, 2].axhline(speed["ms"][softmax], color=COLORS[1], label="softmax")
    label(axes[0, 1], "agents", "test error (%)")
    label(axes[0, 2], "agents", "ms of a larger picture")
    run.save_figure(
        figure,
        "mixers",
        "Test error of vision transformers of one size by what mixes their patches (left), and "
        "error and time by the number of agents. Means and standard errors over seeds.",
    )
