"""The risk at finite length against whole prompts, and the laws of several tasks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks.linear_regression import linear_regression
from jattn.theory import icl, icl_estimators, icl_exact, icl_multitask

PROBLEM: dict[str, Any] = dict(dim=5, length=40, noise_variance=0.1)
SIZES: dict[str, Any] = dict(length=40, noise_variance=0.1)
TASKS = ((0, 1, 2, 3), (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("omega", "mu"), [([0.5], [1.5]), ([0.3, -0.3], [1.4, -1.5]), ([0.6, -0.1], [1.0, 0.7])]
)
def test_the_risk_at_finite_length_is_that_of_prompts(omega, mu):
    omega, mu = jnp.array(omega), jnp.array(mu)
    sample = linear_regression(**PROBLEM)

    def errors(key):
        prompts = jax.vmap(sample)(jax.random.split(key, 5_000))
        predict = jax.vmap(lambda p: icl_estimators.softmax_heads(p, omega, mu))
        return (predict(prompts) - prompts.target[:, 0]) ** 2

    found = np.asarray(jax.lax.map(errors, jax.random.split(jax.random.key(1), 20))).ravel()
    error = found.std() / len(found) ** 0.5
    exact = float(icl.exact_reduced_risk(omega, mu, draws=8_000, **PROBLEM))
    assert abs(found.mean() - exact) < 3 * error + 0.002
    large = float(icl.approximate_risk(omega, mu, **PROBLEM))
    assert abs(large - exact) > 0.004  # what the form of large L leaves out


def test_small_scales_are_debiased_descent_and_the_optimum_is_one():
    eta = icl.effective_step(**PROBLEM)
    with jax.enable_x64(True):  # heads of small scales cancel
        omega, mu = jnp.array([0.02, -0.02]), jnp.array([1.0, -1.0]) * eta / 0.04
        exact = float(icl.exact_reduced_risk(omega, mu, draws=8_000, **PROBLEM))
    assert exact == pytest.approx(icl.debiased_gradient_descent_risk(eta, **PROBLEM), abs=0.003)
    omega, mu, best = icl_exact.exact_single_head_optimum(**PROBLEM)
    for step in (-0.05, 0.05):
        moved = jnp.array([omega + step])
        linear, quadratic = icl_exact.exact_moments(moved, draws=8_000, **PROBLEM)
        assert 1.1 - float(linear[0] ** 2 / quadratic[0, 0]) > best
    scale = icl_exact.exact_manifold_output(np.array([0.05, 0.3]), **PROBLEM)
    limit = np.asarray(icl.manifold_output(np.array([0.05, 0.3]), **PROBLEM))
    np.testing.assert_allclose(scale, limit, rtol=0.05)


def test_the_flow_of_several_tasks_descends_its_risk():
    rng = np.random.default_rng(0)
    omega, mu = rng.normal(0, 0.3, (3, 6)), rng.normal(0, 0.3, (3, 2))
    risk = lambda w, m: icl_multitask.multitask_reduced_risk(w, m, TASKS, **SIZES).mean()
    step = 1e-4
    moved = icl_multitask.multitask_flow(omega, mu, np.array([0.0, step]), TASKS, **SIZES)
    gradient = []
    for array in (omega, mu):
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1e-5, -1e-5):
                array[index] += sign
                ends.append(risk(omega, mu))
                array[index] -= sign
            gradient.append((ends[0] - ends[1]) / 2e-5)
    # Along the flow the risk falls by the square of its gradient.
    assert (moved[0] - moved[1]) / step == pytest.approx(np.sum(np.square(gradient)), rel=1e-3)
    one = icl_multitask.multitask_reduced_risk(
        0.3 * np.ones((1, 5)), np.ones((1, 1)), [range(5)], **SIZES
    )
    single = icl.approximate_risk(jnp.array([0.3]), jnp.array([1.0]), **PROBLEM)
    assert one[0] == pytest.approx(float(single), abs=1e-5)


@pytest.mark.parametrize(("heads", "law"), [(3, -1 / 2), (4, -2 / 3)])
def test_excess_risk_falls_by_the_law_of_its_number_of_heads(heads, law):
    rng = np.random.default_rng(heads)
    omega, mu = rng.normal(0, 0.1, (heads, 6)), rng.normal(0, 0.1, (heads, 2))
    risk = icl_multitask.multitask_flow(omega, mu, np.array([1e4, 1e6]), TASKS, **SIZES)
    excess = risk - icl_multitask.multitask_infimum(TASKS, **SIZES)
    assert np.log(excess[1] / excess[0]) / np.log(100) == pytest.approx(law, abs=0.03)


def test_the_preconditioned_step_is_the_debiased_one_for_multiples_of_the_identity():
    prompt = linear_regression(**PROBLEM)(jax.random.key(0))
    step = icl_estimators.preconditioned_descent(prompt, 0.8 * jnp.eye(5)[None])
    np.testing.assert_allclose(
        step[0], icl_estimators.debiased_gradient_descent(prompt, 0.8), atol=1e-5
    )
