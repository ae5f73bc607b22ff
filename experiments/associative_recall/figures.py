"""Figures of associative recall."""

from experiments.plots import COLORS, label, panels

MARKERS = "osD^vP*X"


def _look(mechanisms: list[str], name: str) -> dict:
    number = mechanisms.index(name)
    marker = MARKERS[number // len(COLORS) % len(MARKERS)]
    return {"color": COLORS[number % len(COLORS)], "marker": marker, "markersize": 4}


def _aside(axis) -> None:
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _mechanisms(found) -> list[str]:
    return list(dict.fromkeys(case.mechanism for case in found))


def over_steps(run, found) -> None:
    """Accuracy during training, mean over seeds and each seed."""
    figure, axes = panels(1, 1, width=5.4, height=3.2)
    axis, names = axes[0, 0], _mechanisms(found)
    for case, outcome in found.items():
        look = _look(names, case.mechanism)
        axis.plot(outcome.steps, outcome.accuracy.mean(0), label=case.mechanism, **look)
        axis.plot(outcome.steps, outcome.accuracy.T, linewidth=0.4, alpha=0.6, color=look["color"])
    case = next(iter(found))
    axis.axhline(1 / case.pairs, color="black", linewidth=0.6)
    axis.set_ylim(0, 1.03)
    label(axis, "step", "recall", legend=False)
    _aside(axis)
    run.save_figure(
        figure,
        "over_steps",
        f"Recall of {case.pairs} pairs in {case.length} tokens during training, d = {case.dim}. "
        "Thin lines are seeds; the black line is a guess among the values of the sequence.",
    )


def over_state(run, found) -> None:
    """Final accuracy over the numbers a layer keeps, a panel a task."""
    tasks = list(dict.fromkeys((case.length, case.pairs) for case in found))
    figure, axes = panels(1, len(tasks), width=3.4, height=3.0, sharey=True)
    names = _mechanisms(found)
    for axis, (length, pairs) in zip(axes[0], tasks, strict=True):
        for name in names:
            points = sorted(
                (outcome.state, outcome.final)
                for case, outcome in found.items()
                if (case.mechanism, case.length, case.pairs) == (name, length, pairs)
            )
            axis.plot(*zip(*points, strict=True), label=name, **_look(names, name))
        axis.set_xscale("log", base=2)
        label(axis, "numbers kept by a layer", "recall", f"{pairs} pairs", legend=False)
    _aside(axes[0, -1])
    run.save_figure(
        figure,
        "over_state",
        "Recall over the size of what a layer keeps of a sequence: a state, or for softmax the "
        "keys and values of all tokens.",
    )


def over_pairs(run, found) -> None:
    """Final accuracy over the number of pairs, a panel a size of the model."""
    sizes = list(dict.fromkeys((case.dim, case.heads) for case in found))
    figure, axes = panels(1, len(sizes), width=3.0, height=3.0, sharey=True)
    names = _mechanisms(found)
    for axis, (dim, heads) in zip(axes[0], sizes, strict=True):
        for name in names:
            points = sorted(
                (case.pairs, outcome.final)
                for case, outcome in found.items()
                if (case.mechanism, case.dim, case.heads) == (name, dim, heads)
            )
            axis.plot(*zip(*points, strict=True), label=name, **_look(names, name))
        axis.set_xscale("log", base=2)
        label(axis, "pairs", "recall", f"d = {dim}, {heads} heads", legend=False)
    _aside(axes[0, -1])
    run.save_figure(figure, "over_pairs", "Recall over the number of pairs in the context.")
