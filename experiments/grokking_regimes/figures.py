"""Figures of grokking."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit

from experiments.grokking_regimes.cohort import Cohort
from experiments.plots import COLORS, label, log_scale, panels
from jattn.theory.grokking import Delay, Transition


def trajectories(run, config, cohort: Cohort) -> None:
    """Accuracies and diagnostics over training, for some decays."""
    fields = {
        "test": "right answers, test",
        "similarity": "likeness of heads",
        "entropy_std": "deviation of entropies",
        "norm": "norm of parameters",
    }
    figure, axes = panels(1, len(fields), width=3.0, height=2.6)
    shown = (0.0, *config.compare, config.collapse)
    for axis, (field, name) in zip(axes[0], fields.items(), strict=True):
        for color, decay in zip(COLORS, shown, strict=False):
            values = cohort.noted[field][:, :, cohort.at(decay=decay)]
            axis.plot(cohort.steps, values, color=color, linewidth=0.5, alpha=0.5)
            axis.plot(cohort.steps, values.mean(1), color=color, label=f"lambda {decay:g}")
            if field == "test":
                train = cohort.noted["train"][:, :, cohort.at(decay=decay)].mean(1)
                axis.plot(cohort.steps, train, ":", color=color)
        label(axis, "step", name, legend=field == "test")
    run.save_figure(figure, "trajectories", "Training with weight decays: accuracy on the test set "
                    "(dotted: on the training set), likeness of heads and deviation of their "
                    "entropies, norm of the parameters. Thin lines are seeds. G1 G2-test G3-train "
                    "G4 G5 G8")  # fmt: skip


def laws(run, config, decays, times, transition: Transition, delay: Delay) -> None:
    """P(grok) with its logistic, and the delay with its power law."""
    figure, axes = panels(1, 2, width=3.6, height=2.8)
    grid = np.geomspace(decays[0], decays[-1], 200)
    rates = np.isfinite(times).mean(0)
    axes[0, 0].plot(decays, rates, "o", color=COLORS[0], label="share of seeds")
    logistic = expit(transition.steepness * np.log10(grid / transition.critical))
    axes[0, 0].plot(grid, logistic, color=COLORS[1], label="logistic")
    axes[0, 0].set_xscale("log")
    label(axes[0, 0], "weight decay", "P(grok)")
    above = decays > transition.critical
    axes[0, 1].plot(decays[above] - transition.critical, times[:, above].T, "o", color=COLORS[0])
    if np.isfinite(delay.exponent) and above.any():
        over = grid[grid >= decays[above][0]] - transition.critical
        axes[0, 1].plot(over, delay.amplitude * over**-delay.exponent, color=COLORS[1],
                        label=f"exponent {-delay.exponent:.2f}")  # fmt: skip
    log_scale(axes[0, 1], "x")
    log_scale(axes[0, 1], "y")
    label(axes[0, 1], "weight decay above the critical one", "steps until it groks")
    run.save_figure(figure, "laws", "How often and when it groks, over weight decay, and fits. "
                    "G6-transition G6-clock G6-exponent G6-critical")  # fmt: skip


def plane(run, config, sizes: Sequence[float], decays: Sequence[float], rates: np.ndarray) -> None:
    """Share of runs that grok, by decay and size of the training set."""
    figure, axes = panels(1, 1, width=4.4, height=3.0)
    shown = axes[0, 0].imshow(rates, vmin=0, vmax=1, aspect="auto", origin="lower")
    axes[0, 0].set_xticks(range(len(decays)), [f"{d:g}" for d in decays])
    axes[0, 0].set_yticks(range(len(sizes)), [f"{s * config.modulus**2:.0f}" for s in sizes])
    figure.colorbar(shown, label="P(grok)")
    label(axes[0, 0], "weight decay", "problems to train on")
    run.save_figure(figure, "plane", "Share of runs that grok, by decay and problems. G9")


def interventions(run, steps: np.ndarray, deviation: np.ndarray, at: int) -> None:
    """Deviation between heads with and without interventions."""
    figure, axes = panels(1, 1, width=4.4, height=2.8)
    names = ("neither", "heads drawn anew", "norm clipped")
    for arm, (color, name) in enumerate(zip(COLORS, names, strict=False)):
        values = deviation[:, :, arm]
        axes[0, 0].plot(steps, values, color=color, linewidth=0.5, alpha=0.5)
        axes[0, 0].plot(steps, values.mean(1), color=color, label=name)
    axes[0, 0].axvline(at, color="#999999", linestyle=":", linewidth=1)
    label(axes[0, 0], "step", "deviation of entropies")
    run.save_figure(figure, "interventions", "Deviation between entropies of heads, with an "
                    "intervention at the dotted step and without. Thin lines are seeds. "
                    "G10-reset G10-clip")  # fmt: skip


def capacity(run, peaks: Mapping[int, np.ndarray]) -> None:
    """The largest deviation between heads over their size."""
    figure, axes = panels(1, 1, width=3.6, height=2.8)
    sizes = sorted(peaks)
    axes[0, 0].plot(sizes, [peaks[s].mean() for s in sizes], color=COLORS[0], marker="o")
    for size in sizes:
        axes[0, 0].plot([size] * len(peaks[size]), peaks[size], ".", color=COLORS[0], alpha=0.5)
    log_scale(axes[0, 0], "x")
    label(axes[0, 0], "channels of a head", "largest deviation of entropies")
    run.save_figure(figure, "capacity", "The largest deviation between the entropies of heads in "
                    "training, over the size of a head. Dots are seeds.")  # fmt: skip


def networks(run, decays: np.ndarray, rates: Mapping[str, np.ndarray]) -> None:
    """Share of runs that grok, over decay, of each network."""
    figure, axes = panels(1, 1, width=4.0, height=2.8)
    for color, (net, values) in zip(COLORS, rates.items(), strict=False):
        axes[0, 0].plot(decays, values, color=color, marker="o", label=net)
    axes[0, 0].set_xscale("log")
    label(axes[0, 0], "weight decay", "P(grok)")
    run.save_figure(figure, "networks", "Share of runs that grok, over weight decay, of other "
                    "networks.")  # fmt: skip
