"""Regimes of weight decay: none memorises, some generalises late, much collapses (G1 to G10)."""

import numpy as np

from experiments.grokking_regimes import figures
from experiments.grokking_regimes.cohort import PAPER, Arm, Cohort, train
from jattn.tasks.modular_arithmetic import OPERATIONS
from jattn.theory.grokking import fit_delay, fit_transition
from jattn.training import Claim, Run

RANDOM = "random"
AFTER = 10  # evaluations behind an intervention that it is judged by


def regimes(run: Run, config) -> list[Claim]:
    """One cohort of all decays on addition, other operations, random answers, and other sizes."""
    usual = config.compare[0]
    arms = [Arm(decay) for decay in config.decays]
    arms += [Arm(usual, operation) for operation in (*OPERATIONS[1:], RANDOM)]
    sizes = [(f, d) for f in config.fractions for d in config.decays if 0 < d < config.collapse]
    arms += [Arm(decay, fraction=fraction) for fraction, decay in sizes]
    arms += [Arm(usual, reset_at=config.change_at), Arm(usual, clip_at=config.change_at)]
    return judged(run, config, train(run, config, "cohort", arms))


def judged(run: Run, config, cohort: Cohort) -> list[Claim]:
    """Claims and figures of a trained cohort."""
    usual = config.compare[0]
    figures.trajectories(run, config, cohort)
    return [
        *_of_extremes(config, cohort),
        *_of_time(run, config, cohort),
        *_of_heads(config, cohort),
        *_of_operations(config, cohort, usual),
        *_of_sizes(run, config, cohort),
        *_of_interventions(run, config, cohort, usual),
    ]


def _of_extremes(config, cohort: Cohort) -> list[Claim]:
    end = {field: values[-1] for field, values in cohort.noted.items()}
    none, much = cohort.at(decay=0.0), cohort.at(decay=config.collapse)
    middle = len(cohort.steps) // 2
    order = [cohort.at(decay=d) for d in (0.0, *config.compare, config.collapse)]
    norms = cohort.noted["norm"][middle][:, order]
    ratio = (norms[:, 1:] / norms[:, :-1]).max(1)
    small = "our build of the paper's network has it at lambda = 10"
    return [
        PAPER.claim("G2-train", "without weight decay all of the training set is known at the end: "
                    "share of right answers", 0.999, float(np.median(end["train"][:, none])), ">=",
                    because="it is all of them, up to one", seeds=end["train"][:, none]),
        PAPER.claim("G2-test", "and the test set is not, by the threshold of grokking: share of "
                    "right answers", 0.99, float(np.median(end["test"][:, none])), "<",
                    where="definition of grokking", seeds=end["test"][:, none]),
        PAPER.claim("G3-similarity", f"lambda = {config.collapse:g} makes all heads the same: mean "
                    "cosine of their maps", 0.9999,
                    float(np.median(end["similarity"][:, much])), ">", where="collapse at 10",
                    because="the paper has 1 exactly", seeds=end["similarity"][:, much]),
        PAPER.claim("G3-entropy", "and their entropies: deviation between heads, nats", 1e-3,
                    float(np.median(end["entropy_std"][:, much])), "<", where="collapse at 10",
                    because=small, seeds=end["entropy_std"][:, much]),
        PAPER.claim("G3-train", "and even the training set is lost: share of right answers", 0.3,
                    float(np.median(end["train"][:, much])), "<", because=small,
                    seeds=end["train"][:, much]),
        PAPER.claim("G5", "the norm of all parameters falls with lambda, in the middle of "
                    "training: largest ratio between neighbours", 1.0, float(np.median(ratio)), "<",
                    where="weight norms", seeds=ratio,
                    note="means " + ", ".join(f"{n:.1f}" for n in norms.mean(0)) + " at lambda "
                    + ", ".join(f"{cohort.arms[i].decay:g}" for i in order)),
    ]  # fmt: skip


def _of_time(run: Run, config, cohort: Cohort) -> list[Claim]:
    """P(grok) and the delay over lambda: the decays up to the strongest that is compared."""
    chosen = [i for i, a in enumerate(cohort.arms) if a == Arm(a.decay)]
    chosen = [i for i in chosen if 0 < cohort.arms[i].decay <= max(config.compare)]
    decays = np.array([cohort.arms[i].decay for i in chosen])
    times = cohort.grok_step[:, chosen]
    rates = np.isfinite(times).mean(0)
    said = ", ".join(f"{d:g}: {r:.2f}" for d, r in zip(decays, rates, strict=True))
    less, more = (cohort.grok_step[:, cohort.at(decay=d)] for d in config.compare)
    both = np.isfinite(less) & np.isfinite(more)
    gain = np.where(both, more, np.nan)[both] / less[both] if both.any() else np.array([np.nan])
    epoch = config.batch_size / (0.5 * config.modulus**2)
    claims = [
        PAPER.claim("G1", f"grokking comes sooner at lambda = {config.compare[1]:g} than at "
                    f"{config.compare[0]:g}: ratio of times", 1.0, float(np.median(gain)), "<",
                    where="t_grok over lambda", seeds=gain,
                    note=f"{int(both.sum())} of {len(both)} seeds grok at both; median epochs "
                    f"{np.median(less) * epoch:.0f} and {np.median(more) * epoch:.0f}"),
    ]  # fmt: skip
    if not 0 < rates.mean() < 1:
        run.note("no transition: all runs grokked, or none did")
        return claims
    flat, did = np.tile(decays, len(times)), np.isfinite(times).ravel()
    whole = fit_transition(flat, did)
    # A seed whose runs all do, or all do not, says nothing of where the transition is.
    by_seed = [
        fit_transition(decays, row).critical
        for row in np.isfinite(times)
        if 0 < row.mean() < 1
    ]  # fmt: skip
    rise = np.interp(np.log([whole.critical / 1.5, whole.critical * 1.5]), np.log(decays), rates)
    clock = np.log(np.array(by_seed) * config.learning_rate * config.steps)
    delays = [fit_delay(decays, row, min(whole.critical, decays.min())) for row in times]
    all_delays = fit_delay(flat, times.ravel(), whole.critical)
    exponents = np.array([d.exponent for d in delays if np.isfinite(d.exponent)])
    claims += [
        PAPER.claim("G6-transition", "P(grok) rises over lambda by a logistic: share of runs that "
                    "grok at 1.5 times lambda_c less that at lambda_c / 1.5", 0.5,
                    float(rise[1] - rise[0]), ">=", where="P(grok)",
                    because="a transition is where it crosses from few to most",
                    note=f"lambda_c {whole.critical:.3g}, k {whole.steepness:.1f}; share by "
                    f"lambda {said}; the paper has 0.0158 and 13.7 at its rate and horizon"),
        PAPER.claim("G6-clock", "the transition is where decay has time to act: logarithm of "
                    "lambda_c times learning rate times steps", 0.0,
                    float(np.median(clock)), "~=", 1.0, derived=True, seeds=clock,
                    note="weights left alone shrink by exp(-lambda lr steps); the paper's own "
                    "lambda_c gives -0.7 to 0.5 for horizons of 3,000 to 10,000 epochs"),
        PAPER.claim("G6-exponent", "the delay falls as (lambda - lambda_c)^-nu: nu", 0.757,
                    all_delays.exponent, "~=", 0.15, where="t_grok over lambda",
                    because="the paper's interval is 0.725 to 0.799, ours has few decays",
                    note=f"A {all_delays.amplitude * epoch:.0f} epochs, R^2 "
                    f"{all_delays.r_squared:.2f}; without lambda_c, by seed, nu is "
                    + ", ".join(f"{x:.2f}" for x in exponents)),
    ]  # fmt: skip
    if config.paper_rate:
        claims.append(
            PAPER.claim("G6-critical", "lambda_c of P(grok)", 0.019, whole.critical, "~=", 0.011,
                        where="P(grok)", because="the paper's interval is 0.0109 to 0.0200")
        )  # fmt: skip
    figures.laws(run, config, decays, times, whole, all_delays)
    return claims


def _of_heads(config, cohort: Cohort) -> list[Claim]:
    """Alignment of heads between memorising and grokking."""
    arm = cohort.at(decay=config.compare[0])
    known = (cohort.noted["train"][:, :, arm] >= 0.99).argmax(0)
    done = (cohort.noted["test"][:, :, arm] >= 0.99).argmax(0)
    runs = np.flatnonzero(np.isfinite(cohort.grok_step[:, arm]))
    similarity = cohort.noted["similarity"][:, :, arm]
    risen = np.array([similarity[done[r], r] - similarity[known[r], r] for r in runs] or [np.nan])
    return [
        PAPER.claim("G4", f"heads align while it groks (lambda = {config.compare[0]:g}): mean "
                    "cosine of their maps when the test is known, less that when the training "
                    "set is", 0.05, float(np.median(risen)), ">", where="phase 1",
                    because="the paper has .93 to .995, our build of its network .80 to .97",
                    seeds=risen,
                    note=f"{np.mean([similarity[known[r], r] for r in runs]):.2f} to "
                    f"{np.mean([similarity[done[r], r] for r in runs]):.2f}" if len(runs) else ""),
    ]  # fmt: skip


def _of_operations(config, cohort: Cohort, decay: float) -> list[Claim]:
    claims = []
    for operation in OPERATIONS:
        arm = cohort.at(decay=decay, operation=operation)
        best = cohort.noted["test"][:, :, arm].max(0)
        when = ", ".join(f"{t:g}" for t in cohort.grok_step[:, arm])
        claims.append(
            PAPER.claim(f"G7-{operation}", f"{operation} is grokked at lambda = {decay:g}: best "
                        "share of right answers of the test", 0.99, float(np.median(best)), ">=",
                        where="four operations", seeds=best, note=f"steps by seed {when}")
        )  # fmt: skip
    rule, null = (cohort.peak(cohort.at(decay=decay, operation=o)) for o in ("add", RANDOM))
    claims.append(
        PAPER.claim("G8", "heads differ more where there is a rule to find: largest deviation of "
                    "their entropies, over that on random answers", 1.0,
                    float(np.median(rule / null)), ">", where="random-label null",
                    seeds=rule / null, note=f"{rule.mean():.3f} and {null.mean():.3f}; the paper "
                    "has about 0.2 and 0.087")
    )  # fmt: skip
    return claims


def _of_sizes(run: Run, config, cohort: Cohort) -> list[Claim]:
    """The plane of decay and size of the training set, where other sizes are trained."""
    if not config.fractions:
        return []
    sizes = sorted({0.5, *config.fractions})
    decays = [d for d in config.decays if 0 < d < config.collapse]
    plane = np.array(
        [[cohort.grok_step[:, cohort.at(decay=d, fraction=f)] for d in decays] for f in sizes]
    )
    figures.plane(run, config, sizes, decays, np.isfinite(plane).mean(-1))
    rates = np.isfinite(plane).mean((1, 2))
    return [
        PAPER.claim("G9", "more problems to train on, more runs that grok: share at the largest "
                    "less that at the smallest training set", 0.0, float(rates[-1] - rates[0]),
                    ">", where="plane of lambda and N",
                    note=", ".join(f"{s:g}: {r:.2f}" for s, r in zip(sizes, rates, strict=True)))
    ]  # fmt: skip


def _of_interventions(run: Run, config, cohort: Cohort, decay: float) -> list[Claim]:
    """Heads drawn anew, and norms clipped, about where heads differ most; against neither."""
    at = config.change_at
    arms = [
        cohort.at(decay=decay, **change)
        for change in ({}, dict(reset_at=at), dict(clip_at=at))
    ]  # fmt: skip
    deviation = cohort.noted["entropy_std"][:, :, arms]
    first = int(np.searchsorted(cohort.steps, at, side="right"))
    behind = deviation[first : first + AFTER].mean(0)
    reset, clipped = behind[:, 1] - behind[:, 0], behind[:, 2] - behind[:, 0]
    peak = int(cohort.steps[1 + deviation[1:, :, 0].mean(1).argmax()])
    figures.interventions(run, cohort.steps, deviation, at)
    return [
        PAPER.claim("G10-reset", f"{config.reset_heads} of {config.heads} heads drawn anew at step "
                    f"{at} make heads differ less: change of the deviation of their entropies, "
                    f"over {AFTER} evaluations", 0.0, float(np.median(reset)), "<",
                    where="interventions", seeds=reset,
                    note=f"from {behind[:, 0].mean():.3f}, which is largest at step {peak}; the "
                    "paper has -0.055 at its peak"),
        PAPER.claim("G10-clip", f"clipping the norm of all parameters to {config.clip_share:g} of "
                    "what it was does less: its change less that of drawing heads anew", 0.0,
                    float(np.median(clipped - reset)), ">", where="interventions",
                    seeds=clipped - reset, note=f"its change is {np.median(clipped):+.3f}"),
    ]  # fmt: skip
