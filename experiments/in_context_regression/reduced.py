"""What theory says without the layer: estimators, and the reduced model's dynamics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.in_context_regression import figures
from experiments.in_context_regression.common import TEST_SEED, claim_of, problem_of, risks
from experiments.power_law import exponent
from jattn.tasks.linear_regression import linear_regression
from jattn.theory import icl, icl_estimators, icl_exact, icl_flow, icl_measures
from jattn.training import Claim, Run, fit


def estimators(run: Run, config) -> list[Claim]:
    """The step against Bayes, and two small heads against the step (C15, C16)."""
    dim, count, noise = 20, 100, 3.0  # the corner where the paper quotes numbers
    problem: dict[str, Any] = dict(dim=dim, length=count, noise_variance=noise)
    eta = icl.effective_step(**problem)

    def predict(prompts):
        step = jax.vmap(lambda p: icl_estimators.debiased_gradient_descent(p, eta))(prompts)
        ridge = jax.vmap(lambda p: icl_estimators.ridge(p, dim * noise))(prompts)
        return jnp.stack([step, ridge])[..., None]

    step, ridge = risks(run, config, "bayes", predict, **problem)[0]

    gammas = np.array([0.3, 0.13, 0.05, 0.01])
    ours = problem_of(config)
    sample = linear_regression(**ours)
    prompts = jax.vmap(sample)(jax.random.split(jax.random.key(TEST_SEED), 2_000))

    def distance(gamma):
        mu = icl.manifold_output(gamma, **ours)
        signs = jnp.array([1.0, -1.0])
        pair = jax.vmap(lambda p: icl_estimators.softmax_heads(p, gamma * signs, mu * signs))
        step = jax.vmap(lambda p: icl_estimators.debiased_gradient_descent(p, 2 * gamma * mu))
        return jnp.mean(jnp.abs(pair(prompts) - step(prompts)))

    distances = np.asarray(jax.lax.map(distance, jnp.asarray(gammas, jnp.float32)))
    slope = float(exponent(gammas, distances))
    figures.bayes_ratio(run)
    figures.approximation(run, gammas, distances, slope)
    return [
        claim_of(
            "C15",
            "one debiased step is near Bayes: ratio of risks at d = 20, L = 100, s2 = 3, against "
            "the asymptotic bound",
            icl.bayes_ratio_bound(dim / count, noise),
            float(step / ridge),
            "<=",
            None,
            where="fig. 2.5",
            kind="identity",
            note="of two estimators, on draws of prompts; no layer takes part",
        ),
        claim_of(
            "C16",
            "two heads approach the debiased step as omega -> 0: log-log slope of their distance",
            2.0,
            slope,
            "~=",
            0.1,
            derived=True,
            note="first orders cancel between heads of opposite signs",
        ),
    ]


def reduced_flow(run: Run, config) -> list[Claim]:
    """Gradient flow on the approximate risk (C18)."""
    problem, starts, counts = problem_of(config), 20, (2, 3, 4, 8)
    times = np.logspace(0, 6, 61)
    late = {}

    def compute():
        arrays = {}
        with run.progress("reduced flow", len(counts) * starts) as advance:
            for count in counts:
                draw = np.random.default_rng(count).normal(0, 0.05, (starts, 2, count))
                ends = []
                for omega, mu in draw:
                    # Signs are settled long before t = 100, where the exponential escape ends.
                    ends.append(icl_flow.reduced_flow(omega, mu, np.array([100.0]), **problem).mu)
                    advance(1)
                mu = np.concatenate(ends)
                arrays[f"both_{count}"] = icl_measures.has_both_signs(mu)
                first = int(arrays[f"both_{count}"].argmax())
                omega, mu = draw[first]
                path = icl_flow.reduced_flow(omega, mu, times, **problem)
                arrays[f"omega_{count}"], arrays[f"mu_{count}"] = path
        return arrays

    stored = run.cached("flow_random_starts", compute)
    claims = []
    for count in counts:
        chance = 1 - 2.0 ** (1 - count)
        testable = chance * (1 - chance) * starts >= 0.5  # else no start is expected to differ
        claims += [
            claim_of(
                f"C18-signs-{count}",
                f"reduced flow, {count} heads, {starts} random starts: fraction with both signs",
                chance,
                float(stored[f"both_{count}"].mean()),
                "~=",
                2 * (chance * (1 - chance) / starts) ** 0.5,
                derived=True,
            )
        ][: int(testable)]
        mu, omega = stored[f"mu_{count}"], stored[f"omega_{count}"]
        positive, negative = int((mu[-1] > 0).sum()), int((mu[-1] < 0).sum())
        law = icl_flow.late_output(times, positive, negative, **problem)
        total = np.where(mu > 0, mu, 0).sum(-1)
        late[count] = (total, np.abs(omega).mean(-1), law)
        claims.append(
            claim_of(
                f"C18-law-{count}",
                f"reduced flow, {positive} positive and {negative} negative heads: mu_plus at "
                "t = 1e6 / its late-time law",
                1.0,
                float(total[-1] / law[-1]),
                "~=",
                0.01,
                derived=True,
            )
        )
    figures.late_law(run, times, late, icl.effective_step(**problem))
    return claims


def trajectory(run: Run, config) -> list[Claim]:
    """Stochastic gradient descent on the reduced model against the flow, from the same starts."""
    problem, rate = problem_of(config), 0.02
    seeds = config.seeds

    def init(key):
        """A start from which the heads take both signs, which only those that do are tested on.

        A head leaves zero along omega = mu, so the sign of their sum at the start is its sign; and
        a head is as likely as its negative, so half of all starts are such.
        """
        omega, mu = 0.05 * jax.random.normal(key, (2, 2))
        alike = jnp.sign(omega + mu).prod() > 0
        turn = jnp.where(alike, jnp.array([1.0, -1.0]), 1.0)
        return {"omega": turn * omega, "mu": turn * mu}

    def loss(params, prompts):
        predict = jax.vmap(lambda p: icl_estimators.softmax_heads(p, params["omega"], params["mu"]))
        return jnp.mean((predict(prompts) - prompts.target[:, 0]) ** 2)

    result = fit(
        init,
        loss,
        linear_regression(**problem),
        optax.sgd(rate),
        run=run,
        name="trajectory_both_signs",
        seeds=seeds,
        steps=config.steps.trajectory,
        batch_size=config.batch_size,
        seed=config.seed,
        log_every=20,
        record=lambda params: params,
    )
    omega, mu = result.history["omega"], result.history["mu"]
    times = rate * result.steps

    def compute():
        paths = [
            icl_exact.exact_reduced_flow(omega[0, seed], mu[0, seed], times, **problem)
            for seed in range(seeds)
        ]
        return {
            "omega": np.stack([path[0] for path in paths], 1),
            "mu": np.stack([path[1] for path in paths], 1),
        }

    flow = run.cached("flow_both_signs", compute)
    figures.flow_overlay(run, times, (omega, mu), (flow["omega"], flow["mu"]))
    step, ideal = (omega * mu).sum(-1), (flow["omega"] * flow["mu"]).sum(-1)
    return [
        claim_of(
            "flow",
            "SGD on the reduced model follows the flow of the risk at this length: |difference of "
            "effective steps| averaged over training (both signs at the end)",
            0.0,
            np.abs(step - ideal).mean(0),
            "<=",
            0.02,
            derived=True,
            chosen=icl_measures.has_both_signs(mu[-1]),
        )
    ]
