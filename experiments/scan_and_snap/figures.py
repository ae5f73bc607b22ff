"""The figures of scan-and-snap, redrawn from our own runs."""

from typing import Any

import numpy as np

from experiments.plots import COLORS, label, panels
from jattn.theory import scan_snap


def decoder_growth(run) -> None:
    """Discrete and continuous growth of the decoder (paper: figure 8)."""
    figure, axes = panels(1, 2, width=3.6)
    for axis, vocabulary, rates in ((axes[0, 0], 1000, (1.0, 4.0)), (axes[0, 1], 50, (1.0, 2.0))):
        visits = np.arange(301)
        for color, rate in zip(COLORS, rates, strict=False):
            discrete = scan_snap.decoder_growth_discrete(300, vocabulary=vocabulary, eta_y=rate)
            smooth = scan_snap.decoder_growth(1.0 * visits, vocabulary=vocabulary, eta_y=rate)
            axis.plot(visits, discrete, color=color, label=f"h*, eta_y = {rate:g}")
            axis.plot(visits, smooth, color="black", linestyle=":")
        label(axis, "visits of a class", "h", f"M = {vocabulary}")
    run.save_figure(
        figure, "decoder_growth", "Growth of the decoder, step by step and in closed form (dotted)."
    )


def attention_growth(run, config) -> None:
    """The envelope, B(t), and the phases of training (paper: figures 3 and 9)."""
    ode = config.ode
    time = np.linspace(0.1, ode.time, 2_000)
    figure, axes = panels(1, 3, width=3.6)
    for color, rate in zip(COLORS, ode.eta_y, strict=False):
        options: dict[str, Any] = dict(vocabulary=ode.vocabulary, classes=ode.classes, eta_y=rate)
        gamma = scan_snap.gradient_envelope(time, **options)
        growth = scan_snap.attention_growth(time, eta_z=ode.eta_z, c0=ode.c0, **options)
        snap = scan_snap.snap_time(**options)
        axes[0, 0].plot(time, gamma, color=color, label=f"eta_y = {rate:g}")
        axes[0, 1].plot(time, np.exp(2 * growth), color=color, label=f"eta_y = {rate:g}")
        for axis in axes[0, :2]:
            axis.axvline(snap, color=color, linestyle=":", linewidth=0.8)
    ratios, rates = np.logspace(-0.5, 1.5, 80), np.logspace(-1.5, 1, 80)
    field = [
        [
            float(
                scan_snap.attention_growth(
                    ode.time,
                    vocabulary=ode.vocabulary,
                    classes=ode.classes,
                    eta_y=ratio * rate,
                    eta_z=rate,
                    c0=ode.c0,
                )
            )
            for ratio in ratios
        ]
        for rate in rates
    ]
    image = axes[0, 2].pcolormesh(ratios, rates, np.array(field), cmap="viridis", shading="auto")
    # Left of the line the decoder has not converged at that time: attention still scans.
    border = 2 * ode.classes * np.log(ode.vocabulary) / (ratios * ode.time)
    axes[0, 2].plot(ratios, border, color="white", linestyle="--")
    axes[0, 2].set(xscale="log", yscale="log", ylim=(rates[0], rates[-1]))
    figure.colorbar(image, ax=axes[0, 2], label="B at the end")
    label(axes[0, 0], "time", "gamma")
    label(axes[0, 1], "time", "exp(2 B)")
    label(axes[0, 2], "eta_y / eta_z", "eta_z", "below the dashed line: scan; above: snap")
    run.save_figure(
        figure,
        "attention_growth",
        "Left: the gradient envelope of attention, with the snap time t0 dotted. Middle: the bound "
        "on attention's growth. Right: phase diagram of the final growth over learning rates.",
    )


def growth_drift(run, growth, drift, ratios) -> None:
    """What full descent leaves of the growth law, over how far attention grew."""
    figure, axes = panels(1, 1, width=3.8, height=3.0)
    axis = axes[0, 0]
    axis.loglog(growth, drift, "o", color=COLORS[0])
    for x, y, ratio in zip(growth, drift, ratios, strict=True):
        axis.annotate(f"{ratio:g}", (x, y), textcoords="offset points", xytext=(6, -4), fontsize=8)
    guide = np.array([min(growth), max(growth)])
    axis.loglog(guide, drift[0] * (guide / growth[0]) ** 2, ":", color="black", label="square")
    label(axis, "ln chi", "|1 - r / (r0 chi)|")
    run.save_figure(
        figure,
        "growth_drift",
        "Full gradient descent on Syn-Small, at t = 700: how far theorem 3 is off, for eta_y / "
        "eta_z as written. The decoder remembers earlier attention, so the gap is a square.",
    )


def snapped(run, times, constant, rates) -> None:
    """Theorem 4's constant along the reduced dynamics."""
    figure, axes = panels(1, 1, width=3.8, height=3.0)
    for color, rate, values in zip(COLORS, rates, constant, strict=False):
        axes[0, 0].semilogx(times, values, color=color, label=f"eta_z = {rate:g}")
    axes[0, 0].set_ylim(0, 1.3 * constant.max())
    label(axes[0, 0], "time", "(exp(-4 z) - 1) / (4 Gamma)")
    run.save_figure(
        figure,
        "snapped",
        "Reduced dynamics with one common token: what theorem 4 takes for a constant, 1 / C0, from "
        "scan to snap.",
    )


def growth_of_runs(run, chi, rates) -> None:
    """Growth of the leading token in trained runs (paper: figure 3)."""
    figure, axes = panels(1, 1, width=3.8, height=3.0)
    for color, rate, values in zip(COLORS, rates, chi, strict=False):
        axes[0, 0].plot(values, color=color, label=f"eta_y = {rate:g}")
    label(axes[0, 0], "step", "chi of the leading token")
    run.save_figure(
        figure,
        "growth_of_runs",
        "Growth of attention to the most frequent distinct token over the rarest, relative to the "
        "start, in runs of SGD with eta_z = 1: a slower decoder lets it grow for longer.",
    )


def recall_over_threshold(run, curves, thresholds, tokens: int) -> None:
    """Share of distinct tokens above a threshold of attention (paper: figures 11 and 12)."""
    figure, axes = panels(1, 1, width=3.8, height=3.0)
    for color, (name, values) in zip(COLORS, curves.items(), strict=False):
        axes[0, 0].semilogx(thresholds, values, color=color, label=name)
    axes[0, 0].axvline(1 / tokens, color="black", linestyle=":", linewidth=0.8)
    label(axes[0, 0], "threshold", "share of distinct tokens above it")
    run.save_figure(
        figure,
        "recall_over_threshold",
        "Which share of a class's distinct tokens keeps more attention than a threshold, at the "
        "end; dotted: 1 / M.",
    )


def attention_over_time(run, paths, classes, titles, optimizer: str, steps: int) -> None:
    """Attention of each class over training (paper: figures 4 and 5)."""
    shown = classes.num_common + classes.num_distinct * len(classes.labels)
    figure, axes = panels(len(classes.labels), len(titles), width=3.4, height=2.6)
    for column, title in enumerate(titles):
        for n in range(len(classes.labels)):
            image = axes[n, column].imshow(
                paths[column, : steps + 1, n, :shown].T,
                aspect="auto",
                origin="lower",
                cmap="viridis",
            )
            for border in (0, n, n + 1):
                position = classes.num_common + classes.num_distinct * border - 0.5
                axes[n, column].axhline(position, color="white", linewidth=0.6, linestyle="--")
            figure.colorbar(image, ax=axes[n, column])
            label(axes[n, column], "step", "token", f"{title}, class {n + 1}", legend=False)
    run.save_figure(
        figure,
        f"attention_{optimizer}",
        f"Attention over training by {optimizer.upper()}, one seed. Bottom: common tokens, which "
        "lose; between dashed lines: the class's own tokens, rarest first. Attention first moves "
        "(scan), then freezes (snap).",
    )


def entropy_over_ratio(run, tables, errors, paper, rates, ratios) -> None:
    """Final entropy over the ratio of learning rates (paper: figure 6)."""
    figure, axes = panels(1, len(tables), width=3.0, sharey=True)
    for axis, (count, table) in zip(axes[0], tables.items(), strict=True):
        for row, (color, rate) in enumerate(zip(COLORS, rates, strict=False)):
            axis.errorbar(
                ratios, table[row], errors[count][row], color=color, label=f"eta_z = {rate:g}"
            )
            if count in paper:
                axis.plot(ratios, paper[count][row], "x", color=color)
        axis.set_xscale("log")
        label(axis, "eta_y / eta_z", "entropy (nats)", f"{count} query tokens")
    run.save_figure(
        figure,
        "entropy_over_ratio",
        "Entropy of attention within distinct tokens after training, mean and standard error over "
        "seeds. Crosses: the paper's values.",
    )


def text_curves(run, found, settings) -> None:
    """Entropy and attention to common words over training on text (paper: figures 7 and 10)."""
    figure, axes = panels(2, len(found), width=3.0, sharex=True)
    for column, ((optimizer, layers), curves) in enumerate(found.items()):
        rates = settings.sgd_rates if optimizer == "sgd" else settings.adam_rates
        steps = np.linspace(0, settings.steps, curves["entropy"].shape[-1])
        for color, rate, entropy, share in zip(
            COLORS, rates, curves["entropy"].mean(0), curves["common"].mean(0), strict=False
        ):
            axes[0, column].plot(steps, entropy, color=color, label=f"rate {rate:g}")
            axes[1, column].plot(steps, share, color=color)
        axes[1, column].axhline(1.0, color="black", linewidth=0.6, linestyle=":")
        title = f"{optimizer}, {layers} layer{'s' if layers > 1 else ''}"
        label(axes[0, column], "", "entropy (nats)", title)
        label(axes[1, column], "step", "attention on common words")
    run.save_figure(
        figure,
        "text",
        "English text: entropy of the first layer's attention, and attention paid to common words "
        "relative to their share of the context (1: as often as they occur), over training.",
    )


def text_maps(run, found, settings) -> None:
    """The first layer's attention on a sequence, at four times of training (paper: figure 7)."""
    figure, axes = panels(len(found), 4, width=2.2, height=2.2)
    for row, ((optimizer, layers), curves) in zip(axes, found.items(), strict=True):
        maps = curves["map"][0, -1]  # of the first seed, at the highest rate
        for axis, at in zip(row, np.linspace(0, len(maps) - 1, 4).round().astype(int), strict=True):
            step = round(settings.steps * at / (len(maps) - 1))
            axis.imshow(maps[at], cmap="Blues", vmin=0, vmax=min(1.0, float(maps[-1].max())))
            axis.set_xticks([])
            axis.set_yticks([])
            label(axis, "", "", f"{optimizer}, {layers}: step {step}")
    run.save_figure(
        figure,
        "text_maps",
        "Attention of the first layer on one sequence of held-out text (rows: queries) while "
        "training at the highest rate, by optimizer and number of layers: it becomes sparser, then "
        "stays.",
    )
