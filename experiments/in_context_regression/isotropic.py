"""One task, isotropic inputs: the pattern, the number of heads, the prompt length."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.in_context_regression import figures
from experiments.in_context_regression.common import (
    PAPER,
    Trained,
    claim_of,
    layer_risks,
    paired_risks,
    problem_of,
    risk_claim,
    risks,
    train,
)
from jattn.theory import icl, icl_estimators, icl_exact, icl_measures
from jattn.training import Claim, Run


class Isotropic(NamedTuple):
    """The main run, which other studies compare with."""

    trained: Trained
    risk: np.ndarray  # [lengths, seeds]


def main_run(run: Run, config) -> Isotropic:
    """The isotropic run with `config.heads` heads and its risk at all test lengths."""
    name = f"heads_{config.heads}"
    trained = train(run, config, name, heads=config.heads, steps=config.steps.isotropic)
    risk = layer_risks(run, config, name, trained, lengths=config.test_lengths)
    return Isotropic(trained, risk)


def at_length(config, risk: np.ndarray, length: int | None = None) -> np.ndarray:
    """The row of a risk table for one test length (default: the trained one)."""
    return risk[list(config.test_lengths).index(config.length if length is None else length)]


def isotropic(run: Run, config, main: Callable[[], Isotropic]) -> list[Claim]:
    """The pattern that emerges, the solution manifold, the effective step (C1-C8, C12, C17)."""
    trained, problem = main().trained, problem_of(config)
    paired, dim = trained.paired, config.dim
    key_query, output_value = trained.key_query[-1], trained.output_value[-1]
    omega, mu = trained.omega[-1], trained.mu[-1, ..., 0]
    active = icl_measures.active_heads(mu)
    eta = icl.effective_step(**problem)
    debiased = icl.debiased_gradient_descent_risk(eta, **problem)
    found = paired_risks(
        run,
        config,
        f"paired_{config.heads}",
        trained,
        lambda prompt: icl_estimators.debiased_gradient_descent(prompt, eta)[None],
        debiased,
    )
    figures.circuits(run, trained, paired, dim)
    figures.trajectories(run, trained, paired, problem)
    figures.snapshots(run, trained, paired, dim)

    # Along the run: positive output scale against the manifold at the run's own gamma.
    all_mu = trained.mu[..., 0]
    all_active = icl_measures.active_heads(all_mu)
    size = np.abs(trained.omega)
    gamma = np.nanmean(np.where(all_active, size, np.nan), axis=-1)
    positive = np.where(all_mu > 0, all_mu, 0).sum(-1)
    # Once a seed has both signs for good, it is given a thousand steps to come near.
    both_signs = np.asarray(icl_measures.has_both_signs(all_mu))
    found_pair = np.logical_and.accumulate(both_signs[::-1])[::-1]
    since = np.where(found_pair, trained.steps[:, None], np.inf).min(0) + 1_000
    late = trained.steps[:, None] >= np.maximum(since, 2_000)
    settled = -max(len(trained.steps) // 10, 1)  # steps of Adam are noisy: the last tenth
    step = (all_mu * trained.omega).sum(-1)[settled:].mean(0)
    table = np.linspace(0.01, 1.5 * max(float(gamma.max()), 0.02), 60)
    best = table * icl_exact.exact_manifold_output(table, **problem)
    manifold = np.interp(gamma, table, best)  # best gamma mu of two heads at this length
    ratio = positive * gamma / manifold
    peak = gamma.argmax(0)
    seeds = np.arange(len(peak))
    chance = 1 - 2.0 ** (1 - config.heads)

    claim = partial(claim_of, chosen=paired)
    claims = [
        PAPER.claim(
            "pairs",
            "fraction of seeds that end with a positive and a negative head; at initialisation "
            f"it is {chance:.2f}, and training can only add to it",
            chance,
            float(paired.mean()),
            ">=",
            2 * float(np.sqrt(chance * (1 - chance) / config.seeds)),
            derived=True,
            note=f"{paired.sum()} of {len(paired)} seeds, slack of two binomial deviations; the "
            "claims below are medians over them",
            kind="identity",
        ),
        claim(
            "C1",
            "KQ circuits are diagonal: share of the norm on the diagonal, worst active head",
            1.0,
            icl_measures.diagonal_energy(key_query, active, dim),
            ">=",
            0.01,
            where="fig. 2.1, 2.2",
        ),
        claim(
            "C2",
            "KQ diagonals are homogeneous: std / mean, worst active head",
            0.0,
            icl_measures.inhomogeneity(key_query, active, dim),
            "<=",
            0.05,
            where="fig. 2.2",
        ),
        claim(
            "C3",
            "OV circuits read the label only: largest other entry / label entry",
            0.0,
            icl_measures.output_leak(output_value, active, dim),
            "<=",
            0.02,
            where="fig. 2.2",
        ),
        claim(
            "C4",
            "each active head has sign(omega) = sign(mu)",
            1.0,
            icl_measures.signs_match(omega, mu, active).astype(float),
            "is",
            None,
            where="fig. 2.2",
        ),
        claim(
            "C5",
            "OV scales sum to zero: |sum mu| / sum |mu|",
            0.0,
            icl_measures.imbalance(mu),
            "<=",
            0.02,
            where="fig. 2.3",
        ),
        claim(
            "C6",
            "active heads share one |omega|: std / mean",
            0.0,
            icl_measures.scale_spread(omega, active),
            "<=",
            0.05,
            where="fig. 2.2",
        ),
        claim(
            "C7",
            "the run moves along the solution manifold: largest |mu_plus / mu_gamma - 1| after "
            "2000 steps, and 1000 after both signs are there, mu_gamma the best at this length",
            0.0,
            np.where(late.any(0), np.where(late, np.abs(ratio - 1), 0).max(0), np.nan),
            "<=",
            0.05,
            where="theorem on the manifold",
            note="the paper's own mu_gamma is that of large L, some per cent off at this length",
        ),
        claim(
            "C8",
            "effective step sum_h mu_h omega_h is eta* = 1 / (1 + (1 + s2) d / L)",
            eta,
            step,
            "~=",
            0.03,
            note="mean of the last tenth of the run",
        ),
        claim(
            "C8-exact",
            "effective step / the best one of two heads at the run's own omega, at this length",
            1.0,
            step / (2 * manifold[settled:].mean(0)),
            "~=",
            0.015,
            derived=True,
            note="half the distance between the forms at this length and at large L",
        ),
        risk_claim(
            "C12",
            f"risk at L = {config.length} is that of debiased gradient descent",
            debiased,
            found,
            chosen=paired,
            where="fig. 2.5",
        ),
    ]
    if config.steps.isotropic >= 20_000:  # the slow drift takes that long to show
        claims.append(
            claim(
                "C17",
                "omega overshoots and shrinks while mu_plus grows: max omega / final omega "
                "(zero where mu_plus does not grow after the peak)",
                1.5,
                np.where(positive[-1] > positive[peak, seeds], gamma[peak, seeds] / gamma[-1], 0.0),
                ">",
                None,
                where="fig. 2.3",
                because="half as much again is a clear overshoot",
            )
        )
    return claims


def heads(run: Run, config, main: Callable[[], Isotropic]) -> list[Claim]:
    """Other numbers of heads (C9, C10, C11)."""
    (main_trained, main_risk), problem = main(), problem_of(config)
    curves = {config.heads: median_curve(main_risk, main_trained.paired)}
    claims = []
    for count in config.compared_heads:
        name = f"heads_{count}"
        trained = train(run, config, name, heads=count, steps=config.steps.heads)
        risk = layer_risks(run, config, name, trained, lengths=config.test_lengths)
        chosen = trained.paired if count > 1 else np.ones(config.seeds, bool)
        curves[count] = median_curve(risk, chosen)
        if count == 1:
            omega, mu, best = icl_exact.exact_single_head_optimum(**problem)
            ideal = icl.debiased_gradient_descent_risk(icl.effective_step(**problem), **problem)

            def one_head(prompt, omega=omega, mu=mu):
                """The head, and its mirror image, which has the same risk."""
                signs = jnp.array([[1.0], [-1.0]])
                return jax.vmap(
                    lambda sign: icl_estimators.softmax_heads(prompt, sign * omega, sign * mu)
                )(signs)[:, None]

            claims += [
                claim_of(
                    "C11",
                    "one head: omega, against its best at this length (1/sqrt(d) at large L)",
                    omega,
                    np.abs(trained.omega[-1, :, 0]),
                    "~=",
                    0.03,
                    where="fig. 2.1",
                    derived=True,
                ),
                risk_claim(
                    "C11-risk",
                    "one head: risk, against the least at this length",
                    best,
                    paired_risks(run, config, "paired_1", trained, one_head, best),
                    where="fig. 2.4",
                    tolerance=0.006,
                ),
                claim_of(
                    "C10",
                    "one head is worse than two: ratio of risks at the trained length, against "
                    "that of the best of each",
                    best / ideal,
                    at_length(config, risk) / at_length(config, curves[config.heads]),
                    "~=",
                    0.05,
                    where="fig. 2.4",
                    derived=True,
                ),
            ]
        elif count >= 4:
            gap = np.abs(curves[count] / curves[config.heads] - 1)
            claims.append(
                claim_of(
                    "C9" if count == 4 else f"C9-{count}",
                    f"more than two heads do not help: largest |R_{count} / R_2 - 1| over lengths",
                    0.0,
                    float(gap.max()),
                    "<=",
                    0.01,
                    where="fig. 2.4",
                )
            )
    figures.risk_by_heads(run, curves, config.test_lengths, config.length, problem)
    return claims


def median_curve(risk: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Median over the chosen seeds at each length; NaN if there are none."""
    return np.median(risk[:, chosen], axis=1) if chosen.any() else np.full(len(risk), np.nan)


def length(run: Run, config, main: Callable[[], Isotropic]) -> list[Claim]:
    """Other prompt lengths than the trained one (C13, C14)."""
    main_trained, main_risk = main()
    problem, lengths = problem_of(config), np.array(config.test_lengths)
    trained = train(run, config, "linear", heads=1, steps=config.steps.length, activation="linear")
    linear = layer_risks(
        run, config, "linear", trained, activation="linear", lengths=config.test_lengths
    )
    sizes = dict(dim=config.dim, noise_variance=config.noise_variance)
    steps = (main_trained.mu[-1, ..., 0] * main_trained.omega[-1]).sum(-1)
    theory = icl.debiased_gradient_descent_risk(steps[None], length=lengths[:, None], **sizes)
    error = np.abs(main_risk / theory - 1)[lengths >= 20].max(0)
    learned = (trained.mu[-1, ..., 0] * trained.omega[-1]).sum(-1)
    forms = {
        n: icl.linear_attention_risk(learned, train_length=config.length, length=n, **sizes)
        for n in lengths
    }
    longest = int(lengths.max())
    estimators = estimator_risks(run, config)
    figures.risk_by_length(
        run,
        config.test_lengths,
        {
            f"softmax, {config.heads} heads": median_curve(main_risk, main_trained.paired),
            "linear attention": np.median(linear, axis=1),
            "gradient descent": estimators[:, 0],
            "debiased gradient descent": estimators[:, 1],
            "ridge (Bayes)": estimators[:, 2],
        },
        problem,
        float(np.median(learned)),
    )
    return [
        claim_of(
            "C13",
            "the layer generalises over length: largest relative distance of its risk to debiased "
            "descent at its own step, lengths >= 20",
            0.0,
            error,
            "<=",
            0.05,
            chosen=main_trained.paired,
            where="fig. 4.1",
            derived=True,
        ),
        claim_of(
            "C14",
            f"linear attention breaks: risk at {longest} / closed form at its learned step",
            1.0,
            at_length(config, linear, longest) / forms[longest],
            "~=",
            0.05,
            where="fig. 4.1",
            derived=True,
        ),
        claim_of(
            "C14-ratio",
            f"linear attention breaks: risk at {longest} / risk at the trained length",
            float(np.median(forms[longest] / forms[config.length])),
            at_length(config, linear, longest) / at_length(config, linear),
            "~=",
            0.05 * float(np.median(forms[longest] / forms[config.length])),
            where="fig. 4.1",
            derived=True,
        ),
    ]


def estimator_risks(run: Run, config) -> np.ndarray:
    """Risk of gradient descent, its debiased form and ridge at the test lengths, `[lengths, 3]`."""
    eta = icl.effective_step(**problem_of(config))
    penalty = config.dim * config.noise_variance

    def predict(prompts):
        each = [
            jax.vmap(lambda p: icl_estimators.gradient_descent(p, eta))(prompts),
            jax.vmap(lambda p: icl_estimators.debiased_gradient_descent(p, eta))(prompts),
            jax.vmap(lambda p: icl_estimators.ridge(p, penalty))(prompts),
        ]
        return jnp.stack(each)[..., None]

    return risks(run, config, "estimators", predict, lengths=config.test_lengths)
