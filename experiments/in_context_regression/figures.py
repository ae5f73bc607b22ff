"""The figures of in-context regression, redrawn from our own runs."""

import numpy as np

from experiments.plots import COLORS, heat_map, label, panels
from jattn.theory import icl


def typical_seed(trained, chosen: np.ndarray) -> int:
    """The seed in the middle of those chosen, by final loss; of all, if none is chosen."""
    seeds = np.flatnonzero(chosen) if chosen.any() else np.arange(len(chosen))
    final = trained.loss[-1, seeds]
    return int(seeds[np.argsort(final)[len(seeds) // 2]])


def circuits(run, trained, chosen, dim: int) -> None:
    """Heat maps of the trained circuits of one typical seed (paper: figures 2.1, 2.2)."""
    seed = typical_seed(trained, chosen)
    figure, axes = panels(2, trained.heads, height=1.9, gridspec_kw={"height_ratios": [5, 1]})
    key_query, output_value = trained.key_query[-1, seed], trained.output_value[-1, seed]
    limits = np.abs(key_query[..., :dim]).max(), np.abs(output_value).max()
    for head in range(trained.heads):
        heat_map(
            axes[0, head],
            key_query[head],
            limit=limits[0],
            title=f"KQ, head {head + 1}",
            split=[dim],
        )
        heat_map(
            axes[1, head],
            output_value[head],
            limit=limits[1],
            title=f"OV, head {head + 1}",
            split=[dim],
        )
    run.save_figure(
        figure,
        "circuits",
        f"Circuits after {trained.steps[-1]} steps (the seed of median loss among those that "
        "found the pair). KQ becomes a multiple of the identity on the inputs, OV reads the label "
        "only, and the two heads have opposite signs. The last column of KQ meets only zeros.",
    )


def trajectories(run, trained, chosen, problem) -> None:
    """Scales and loss over training with their guide lines (paper: figure 2.3)."""
    seed, steps = typical_seed(trained, chosen), trained.steps
    omega, mu = trained.omega[:, seed], trained.mu[:, seed, :, 0]
    eta = icl.effective_step(**problem)
    figure, axes = panels(1, 4, width=3.2)
    for head in range(trained.heads):
        axes[0, 0].plot(steps, omega[:, head], color=COLORS[head], label=f"head {head + 1}")
        axes[0, 1].plot(steps, mu[:, head], color=COLORS[head], label=f"head {head + 1}")
    axes[0, 1].plot(steps, mu.sum(-1), color="black", linewidth=1, label="sum")
    gamma = np.abs(omega).mean(-1)
    manifold = np.asarray(icl.manifold_output(np.maximum(gamma, 1e-3), **problem))
    later = steps >= 1000
    for sign in (1, -1):
        axes[0, 1].plot(
            steps[later],
            sign * manifold[later],
            color="black",
            linestyle=":",
            label="manifold at this omega" if sign == 1 else None,
        )
    axes[0, 2].plot(steps, (omega * mu).sum(-1), color=COLORS[0], label="sum of mu omega")
    axes[0, 2].axhline(eta, color="black", linestyle=":", label="eta*")
    axes[0, 3].plot(steps, trained.loss, color=COLORS[6], linewidth=0.6, alpha=0.6)
    axes[0, 3].plot(steps, trained.loss[:, seed], color=COLORS[0], label="training loss")
    risk = icl.debiased_gradient_descent_risk(eta, **problem)
    axes[0, 3].axhline(risk, color="black", linestyle=":", label="debiased descent")
    single = icl.single_head_optimum(**problem)[2]
    axes[0, 3].axhline(single, color="black", linestyle="--", label="one head (large L)")
    axes[0, 3].set_ylim(0.15, 1.2)
    for axis, name in zip(axes[0], ("omega", "mu", "effective step", "loss"), strict=True):
        label(axis, "step", name)
    run.save_figure(
        figure,
        "trajectories",
        "Training from random weights. Omega overshoots and then drifts down while mu grows, along "
        "the solution manifold (dotted); their product stays at the theory's step. Grey: other "
        "seeds; those that stay at the dashed line have two heads of one sign.",
    )


def snapshots(run, trained, chosen, dim: int) -> None:
    """KQ at several steps (paper: figure 2.6)."""
    seed = typical_seed(trained, chosen)
    wanted = [0, 0.05, 0.1, 0.25, 0.5, 1.0]
    rows = [int(np.argmin(np.abs(trained.steps - share * trained.steps[-1]))) for share in wanted]
    rows = sorted(set(rows))
    figure, axes = panels(trained.heads, len(rows), width=2.1, height=2.2)
    for column, row in enumerate(rows):
        for head in range(trained.heads):
            heat_map(
                axes[head, column],
                trained.key_query[row, seed, head][:, :dim],
                title=f"step {trained.steps[row]}",
                split=[dim],
            )
    run.save_figure(figure, "snapshots", "KQ circuits of both heads as training goes on.")


def risk_by_heads(run, curves, lengths, trained_length: int, problem) -> None:
    """Risk by number of heads (paper: figure 2.4)."""
    figure, axes = panels(1, 2, width=3.6)
    at = list(lengths).index(trained_length)
    counts = sorted(curves)
    axes[0, 0].plot(counts, [curves[n][at] for n in counts], "o-", color=COLORS[0], label="trained")
    eta = icl.effective_step(**problem)
    axes[0, 0].axhline(
        icl.debiased_gradient_descent_risk(eta, **problem),
        color="black",
        linestyle=":",
        label="debiased descent",
    )
    axes[0, 0].axhline(
        icl.single_head_optimum(**problem)[2],
        color="black",
        linestyle="--",
        label="one head (large L)",
    )
    axes[0, 0].set_xticks(counts)
    label(axes[0, 0], "heads", f"risk at L = {trained_length}")
    for color, count in zip(COLORS, counts, strict=False):
        axes[0, 1].plot(lengths, curves[count], "o-", ms=3, color=color, label=f"{count} heads")
    label(axes[0, 1], "prompt length", "risk")
    run.save_figure(
        figure,
        "risk_by_heads",
        "Test risk by number of heads: two heads reach debiased descent, more add nothing.",
    )


def risk_by_length(run, lengths, curves, problem, learned_step: float) -> None:
    """Length generalisation (paper: figure 4.1)."""
    figure, axes = panels(1, 1, width=5.5, height=3.6)
    axis, lengths = axes[0, 0], np.asarray(lengths)
    fine = np.linspace(lengths.min(), lengths.max(), 100)
    sizes = {"dim": problem["dim"], "noise_variance": problem["noise_variance"]}
    eta = icl.effective_step(**problem)
    forms = {
        "linear attention": icl.linear_attention_risk(
            learned_step, train_length=problem["length"], length=fine, **sizes
        ),
        "gradient descent": icl.gradient_descent_risk(eta, length=fine, **sizes),
        "debiased gradient descent": icl.debiased_gradient_descent_risk(eta, length=fine, **sizes),
    }
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        axis.plot(lengths, curve, "o", ms=4, color=color, label=name)
        if name in forms:
            axis.plot(fine, forms[name], color=color, linewidth=1)
    axis.axvline(problem["length"], color="black", linewidth=0.6, linestyle=":")
    axis.set_yscale("log")
    label(axis, "prompt length (trained at the dotted line)", "risk")
    run.save_figure(
        figure,
        "risk_by_length",
        "Risk at other prompt lengths; dots measured, lines closed forms. Softmax weights sum to "
        "one at any length; linear attention divides by the trained length and breaks.",
    )


def bayes_ratio(run) -> None:
    """Best descent step over Bayes, against its bound, in the proportional limit."""
    figure, axes = panels(1, 1, width=4.5, height=3.0)
    ratios = np.linspace(0.02, 1.0, 99)
    for color, noise in zip(COLORS, (0.5, 1.0, 3.0), strict=False):
        best = 1 + noise - 1 / (1 + (1 + noise) * ratios)
        bayes = np.array([icl.bayes_risk_limit(ratio, noise) for ratio in ratios])
        bound = [icl.bayes_ratio_bound(r, noise) if noise + 1 / r > 1 else np.nan for r in ratios]
        axes[0, 0].plot(ratios, best / bayes, color=color, label=f"noise variance {noise}")
        axes[0, 0].plot(ratios, bound, color=color, linestyle=":")
    label(axes[0, 0], "d / L", "risk / Bayes risk")
    run.save_figure(
        figure, "bayes_ratio", "One step of descent against Bayes (dotted: the paper's bound)."
    )


def approximation(run, gammas, distances, slope: float) -> None:
    """Distance of two heads to the debiased step."""
    figure, axes = panels(1, 1, width=4.0, height=3.0)
    axes[0, 0].loglog(
        gammas, distances, "o-", color=COLORS[0], label=f"measured, slope {slope:.2f}"
    )
    axes[0, 0].loglog(
        gammas, distances[0] * gammas / gammas[0], color="black", linestyle=":", label="slope 1"
    )
    label(axes[0, 0], "omega", "mean |difference|")
    run.save_figure(
        figure, "approximation", "Two heads of scale omega against one debiased descent step."
    )


def late_law(run, times, late, eta: float) -> None:
    """The reduced flow against its late-time law."""
    figure, axes = panels(1, 2, width=3.6)
    for color, (count, (total, gamma, law)) in zip(COLORS, late.items(), strict=False):
        axes[0, 0].loglog(times, total, color=color, label=f"{count} heads")
        axes[0, 0].loglog(times, law, color=color, linestyle=":")
        axes[0, 1].loglog(times, gamma, color=color, label=f"{count} heads")
        axes[0, 1].loglog(times, eta / (2 * law), color=color, linestyle=":")
    label(axes[0, 0], "time", "mu_plus")
    label(axes[0, 1], "time", "mean |omega|")
    run.save_figure(
        figure,
        "late_law",
        "Gradient flow on the approximate risk (solid) and its late-time law (dotted): a drift as "
        "t^(1/6) that never ends.",
    )


def flow_overlay(run, times, trained, flow) -> None:
    """SGD on the reduced model over the flow from the same starts."""
    figure, axes = panels(1, 3, width=3.4)
    (omega, mu), (flow_omega, flow_mu) = trained, flow
    pairs = (
        ("omega", omega, flow_omega),
        ("mu", mu, flow_mu),
        ("effective step", (omega * mu).sum(-1), (flow_omega * flow_mu).sum(-1)),
    )
    for axis, (name, measured, predicted) in zip(axes[0], pairs, strict=True):
        flat, smooth = measured.reshape(len(times), -1), predicted.reshape(len(times), -1)
        axis.plot(times, flat, color=COLORS[0], linewidth=0.8)
        axis.plot(times, smooth, color="black", linestyle=":", linewidth=1)
        axis.plot([], [], color=COLORS[0], label="SGD, all seeds and heads")
        axis.plot([], [], color="black", linestyle=":", label="gradient flow")
        label(axis, "learning rate x steps", name)
    run.save_figure(
        figure,
        "flow_overlay",
        "Stochastic gradient descent on the reduced model, against gradient flow on the "
        "closed-form risk from the same starts.",
    )


def preconditioner(run, gain, chosen, best, inverse) -> None:
    """The learned gain beside W* and the inverse covariance (paper: figure 3.1)."""
    seed = int(np.flatnonzero(chosen)[0]) if chosen.any() else 0
    figure, axes = panels(1, 3)
    titles = ("learned gain", "W*", "inverse covariance")
    for axis, matrix, title in zip(axes[0], (gain[seed], best, inverse), titles, strict=True):
        heat_map(axis, matrix, title=title, limit=float(np.abs(inverse).max()))
    run.save_figure(
        figure,
        "preconditioner",
        "Correlated inputs: the learned gain equals the finite-L preconditioner W*, not the "
        "inverse covariance, which is its limit for long prompts.",
    )


def multitask(run, trained, chosen, gain, ideal) -> None:
    """Circuits and gains with several tasks (paper: figure 3.5)."""
    seed = typical_seed(trained, chosen)
    figure, axes = panels(2, max(trained.heads, 2), height=2.8)
    dim = ideal.shape[1]
    for head in range(trained.heads):
        heat_map(
            axes[0, head],
            trained.key_query[-1, seed, head],
            title=f"KQ, head {head + 1}",
            split=[dim],
        )
    mu = trained.mu[-1, seed]
    heat_map(axes[1, 0], mu.T, title="mu (task x head)")
    heat_map(axes[1, 1], gain[seed], title="gain G (task x coordinate)", limit=1.0)
    if trained.heads > 2:
        heat_map(axes[1, 2], ideal, title="ideal gain", limit=1.0)
    for axis in axes[1, 3:]:
        axis.set_axis_off()
    run.save_figure(
        figure,
        "multitask",
        "Two tasks on overlapping coordinates served by three heads in superposition: a head can "
        "help one task and hinder the other; only the sums matter.",
    )


def risk_by_task_heads(run, risk, chosen, predicted) -> None:
    """Risk averaged over tasks by number of heads."""
    figure, axes = panels(1, 1, width=4.0, height=3.0)
    counts = sorted(risk)
    for count in counts:
        kept = chosen[count]
        axes[0, 0].plot([count] * len(kept), risk[count], "o", ms=3, color=COLORS[6], alpha=0.6)
        if kept.any():
            axes[0, 0].plot(count, np.median(risk[count][kept]), "o", color=COLORS[0])
        if count in predicted:
            axes[0, 0].plot(count, predicted[count], "_", ms=18, color="black")
    axes[0, 0].set_xticks(counts)
    label(axes[0, 0], "heads", "risk, mean over tasks", legend=False)
    run.save_figure(
        figure,
        "risk_by_task_heads",
        "Risk by number of heads for several tasks. Grey: each seed; blue: median of those that "
        "arrived; bar: closed form of enough heads.",
    )


def superposition(run, times, curves, tasks: int) -> None:
    """Excess risk of the reduced model over time, by number of heads."""
    figure, axes = panels(1, 1, width=4.2, height=3.0)
    for color, (count, excess) in zip(COLORS, curves.items(), strict=False):
        axes[0, 0].loglog(times, excess.T, color=color, linewidth=0.8)
        law = -2 / 3 if count == 2 * tasks else -1 / 2
        guide = np.median(excess[:, -1]) * (times / times[-1]) ** law
        late = times >= 1e2
        axes[0, 0].loglog(times[late], guide[late], ":", color="black")
        axes[0, 0].plot([], [], color=color, label=f"{count} heads, t^{law:.2f}")
    label(axes[0, 0], "time", "excess risk")
    run.save_figure(
        figure,
        "superposition",
        f"{tasks} tasks: the excess risk of the reduced model along gradient flow. A pair of heads "
        "for each task loses it as t^(-2/3), heads in superposition as t^(-1/2) (dotted).",
    )


def activations(run, ends, dim: int) -> None:
    """Circuits with other maps than exp (paper: figures 4.2, 4.3)."""
    figure, axes = panels(len(ends), 2, height=2.6)
    for row, (name, (trained, chosen)) in enumerate(ends.items()):
        seed = typical_seed(trained, chosen)
        for head in range(2):
            heat_map(
                axes[row, head],
                trained.key_query[-1, seed, head],
                title=f"f = {name}: KQ, head {head + 1}",
                split=[dim],
            )
    run.save_figure(figure, "activations", "The same pattern with other normalised activations.")
