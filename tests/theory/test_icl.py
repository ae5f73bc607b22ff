"""Closed forms against Monte Carlo, finite differences and their own limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.tasks.linear_regression import linear_regression, toeplitz_covariance
from jattn.theory import icl, icl_estimators, icl_flow
from jattn.theory import in_context_attention as ica

PROBLEM: dict[str, Any] = dict(dim=5, length=40, noise_variance=0.1)


def prompts(count, seed=0, **sampler):
    sample = linear_regression(**(PROBLEM | sampler))
    return jax.vmap(sample)(jax.random.split(jax.random.key(seed), count))


def monte_carlo_risk(estimator, batch):
    predicted = jax.jit(jax.vmap(estimator))(batch)
    return float(jnp.mean((predicted - batch.target[:, 0]) ** 2))


@pytest.fixture(scope="module")
def many():
    return prompts(200_000)


def test_sampler_moments(many):
    assert abs(float(jnp.var(many.target)) - 1.1) < 0.02
    assert abs(float(jnp.mean(many.inputs**2)) - 1) < 0.01
    covariance = toeplitz_covariance(5, 0.5)
    x = prompts(20_000, covariance=covariance).query
    np.testing.assert_allclose(x.T @ x / len(x), covariance, atol=0.05)


def test_sampler_gives_each_task_its_coordinates():
    batch = prompts(20_000, dim=6, noise_variance=0.0, tasks=((0, 1, 2, 3), (2, 3, 4, 5)))
    gain = jnp.einsum("bld,bln->bnd", batch.inputs, batch.responses) / 40
    power = jnp.mean(gain**2, 0)
    outside, inside = power[0, 4:], power[0, :4]
    # Off the task's coordinates only sampling noise is left: 1/L against 1/4 + 1.25/L.
    assert float(outside.max()) < 0.03 < 0.25 < float(inside.min())
    assert abs(float(jnp.var(batch.target[:, 1])) - 1) < 0.05


def test_sampler_refuses_bad_sizes(plain_checks):
    with pytest.raises(ValueError, match=r"tasks: expected coordinates in 0\.\.4"):
        linear_regression(5, 40, 0.1, tasks=((0, 5),))
    with pytest.raises(ValueError, match="noise_variance"):
        linear_regression(5, 40, -0.1)
    with pytest.raises(ValueError, match="covariance: expected shape"):
        linear_regression(5, 40, 0.1, covariance=np.eye(4))


@pytest.mark.parametrize("eta", [0.6, 0.8791])
def test_exact_risks_match_monte_carlo(many, eta):
    for estimator, risk in [
        (icl_estimators.gradient_descent, icl.gradient_descent_risk),
        (icl_estimators.debiased_gradient_descent, icl.debiased_gradient_descent_risk),
    ]:
        measured = monte_carlo_risk(lambda p, e=estimator: e(p, eta), many)
        assert abs(measured / risk(eta, **PROBLEM) - 1) < 0.02


def test_best_steps_are_stationary():
    eta = icl.effective_step(**PROBLEM)
    slope = jax.grad(lambda e: icl.debiased_gradient_descent_risk(e, **PROBLEM))
    assert abs(slope(eta)) < 1e-6
    assert abs(jax.grad(lambda e: icl.gradient_descent_risk(e, **PROBLEM))(40 / 46.5)) < 1e-6


def test_linear_attention_risk_matches_monte_carlo():
    batch = prompts(100_000, length=60)
    measured = monte_carlo_risk(
        lambda p: icl_estimators.gradient_descent(p, 0.854 * 60 / 40), batch
    )
    predicted = icl.linear_attention_risk(
        0.854, dim=5, train_length=40, length=60, noise_variance=0.1
    )
    assert abs(measured / predicted - 1) < 0.02


def test_ridge_with_the_prior_beats_other_penalties(many):
    few = jax.tree.map(lambda leaf: leaf[:50_000], many)
    risks = {
        p: monte_carlo_risk(lambda q, p=p: icl_estimators.ridge(q, p), few)
        for p in (0.05, 0.5, 5.0)
    }
    assert min(risks, key=lambda penalty: risks[penalty]) == 0.5


def test_preconditioner_is_best_and_reduces_to_the_step():
    eta = icl.effective_step(**PROBLEM)
    gain = icl.preconditioner(np.eye(5), length=40, noise_variance=0.1)
    np.testing.assert_allclose(gain, eta * np.eye(5), atol=1e-12)
    risk = icl.preconditioned_risk(np.eye(5), length=40, noise_variance=0.1)
    assert abs(risk - icl.debiased_gradient_descent_risk(eta, **PROBLEM)) < 1e-12

    covariance = toeplitz_covariance(5, 0.5)
    gain = jnp.asarray(icl.preconditioner(covariance, length=40, noise_variance=0.1), jnp.float32)
    batch = prompts(100_000, covariance=covariance)

    def descent(scale):
        def estimator(p):
            centred = p.inputs - p.inputs.mean(0)
            return jnp.mean(p.responses[:, 0] * (centred @ (scale * gain @ p.query)))

        return monte_carlo_risk(estimator, batch)

    predicted = icl.preconditioned_risk(covariance, length=40, noise_variance=0.1)
    assert abs(descent(1.0) / predicted - 1) < 0.02
    assert descent(1.0) < min(descent(0.9), descent(1.1))


def test_multitask_forms_reduce_to_one_task():
    tasks = [tuple(range(5))]
    common: dict[str, Any] = dict(length=40, noise_variance=0.1)
    eta = icl.effective_step(**PROBLEM)
    risk = icl.debiased_gradient_descent_risk(eta, **PROBLEM)
    assert abs(icl.multitask_risk(5, **common) - risk) < 1e-12
    np.testing.assert_allclose(icl.multitask_gain(tasks, 5, **common), eta)
    np.testing.assert_allclose(icl.shared_pair_gain(tasks, 5, **common), eta)
    assert abs(icl.shared_pair_risk(tasks, 5, **common) - risk) < 1e-12


def test_risk_gradients_match_autodiff_and_finite_differences(x64):
    omega, mu = np.array([0.2, -0.3, 0.1]), np.array([1.0, -2.0, 0.5])
    exact = icl_flow.risk_gradients(omega, mu, **PROBLEM)
    risk = lambda w, m: icl.approximate_risk(jnp.asarray(w), jnp.asarray(m), **PROBLEM)
    for got, expected in zip(exact, jax.grad(risk, (0, 1))(omega, mu), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)
    step = 1e-6 * np.array([1.0, 0, 0])
    slope = (risk(omega + step, mu) - risk(omega - step, mu)) / 2e-6
    np.testing.assert_allclose(exact[0][0], slope, rtol=1e-6)


def test_manifold_is_stationary_and_best_in_mu(x64):
    gamma = 0.2
    mu = float(icl.manifold_output(gamma, **PROBLEM))
    omega, outputs = np.array([gamma, -gamma, -gamma]), np.array([mu, -0.3 * mu, -0.7 * mu])
    _, slope = icl_flow.risk_gradients(omega, outputs, **PROBLEM)
    np.testing.assert_allclose(slope, 0, atol=1e-12)
    risk = lambda m: float(icl.approximate_risk(jnp.array(omega), jnp.array(m), **PROBLEM))
    assert abs(risk(outputs) - float(icl.manifold_risk(gamma, **PROBLEM))) < 1e-12
    for key in range(5):
        assert risk(outputs + 0.1 * np.random.default_rng(key).normal(size=3)) > risk(outputs)
    limit = 1.1 - icl.effective_step(**PROBLEM)
    assert abs(float(icl.manifold_risk(1e-4, **PROBLEM)) - limit) < 1e-6


def test_single_head_optimum_is_stationary():
    omega, mu, risk = icl.single_head_optimum(**PROBLEM)
    slopes = icl_flow.risk_gradients(np.array([omega]), np.array([mu]), **PROBLEM)
    np.testing.assert_allclose(np.concatenate(slopes), 0, atol=1e-12)
    value = icl.approximate_risk(jnp.array([omega]), jnp.array([mu]), **PROBLEM)
    assert abs(float(value) - risk) < 1e-6


def test_small_opposite_heads_are_debiased_descent(x64):
    batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), prompts(50))
    eta, gap = 0.88, {}
    for gamma in (1e-2, 1e-3):
        omega, mu = jnp.array([gamma, -gamma]), eta / (2 * gamma) * jnp.array([1.0, -1.0])
        heads = jax.vmap(lambda p, w=omega, m=mu: icl_estimators.softmax_heads(p, w, m))(batch)
        step = jax.vmap(lambda p: icl_estimators.debiased_gradient_descent(p, eta))(batch)
        gap[gamma] = float(jnp.linalg.norm(heads - step) / jnp.linalg.norm(step))
    assert gap[1e-3] < 1e-4
    assert gap[1e-2] / gap[1e-3] > 50  # second order in gamma


def test_bayes_limit_and_bound():
    # d = 20, L = 100: the paper's own corner, where ridge and the step nearly coincide.
    bound = icl.bayes_ratio_bound(0.2, 3.0)
    best = 1 + 3 - 1 / (1 + 4 * 0.2)
    assert 1 < best / icl.bayes_risk_limit(0.2, 3.0) < bound < 1.03
    with pytest.raises(ValueError, match="the bound needs"):
        icl.bayes_ratio_bound(2.0, 0.1)


def test_flow_reaches_the_late_law():
    start = np.array([0.05, -0.03])
    path = icl_flow.reduced_flow(start, start, np.array([1e6]), **PROBLEM)
    law = icl_flow.late_output(1e6, 1, 1, **PROBLEM)
    assert abs(path.mu[-1].max() / law - 1) < 0.01
    stuck = icl_flow.reduced_flow(np.abs(start), np.abs(start), np.array([1e3]), **PROBLEM)
    assert (stuck.omega[-1] > 0).all()


# --- the layer -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layer():
    params = ica.init(jax.random.key(1), heads=3, dim=6, responses=2)
    return params, prompts(4, length=12, dim=6, tasks=((0, 1, 2, 3), (2, 3, 4, 5)))


def test_layer_is_attention_with_a_readout(layer):
    params, batch = layer
    tokens = jnp.concatenate([batch.inputs, batch.responses], -1)
    query = jnp.pad(batch.query, ((0, 0), (0, 2)))[:, None]
    project = lambda weights, z: jnp.einsum("hij,btj->bthi", weights, z)
    mixed = jattn.attend(
        project(params.query, query), project(params.key, tokens), project(params.value, tokens)
    )
    expected = jnp.einsum("hni,bthi->bn", params.output, mixed)
    np.testing.assert_allclose(ica.predict(params, batch), expected, atol=1e-6)


def test_demonstration_order_and_score_shift_do_not_matter(layer):
    params, batch = layer
    order = jax.random.permutation(jax.random.key(2), 12)
    shuffled = batch._replace(inputs=batch.inputs[:, order], responses=batch.responses[:, order])
    expected = ica.predict(params, batch)
    np.testing.assert_allclose(ica.predict(params, shuffled), expected, atol=1e-6)
    shifted = ica.predict(params, batch, lambda s: jax.nn.softmax(s + 7.0))
    np.testing.assert_allclose(shifted, expected, atol=1e-5)


def test_linear_attention_is_a_softmax_pair_of_vanishing_scale(x64):
    batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), prompts(20))
    batch = batch._replace(inputs=batch.inputs - batch.inputs.mean(1, keepdims=True))
    eta, gamma = 0.7, 1e-4
    identity = jnp.eye(6) * 6**0.25
    last = jnp.zeros((1, 6)).at[0, 5].set(1.0)
    linear = ica.Parameters(identity[None], identity[None], jnp.eye(6)[None], eta * last[None])
    pair = ica.Parameters(
        gamma * jnp.stack([identity, -identity]),
        jnp.stack([identity] * 2),
        jnp.stack([jnp.eye(6)] * 2),
        eta / (2 * gamma) * jnp.stack([last, -last]),
    )
    # The linear layer also reads <z_l, z_q>, whose label coordinate is zero in the query.
    expected = ica.predict(linear, batch, ica.activation_weights("linear", train_length=40))
    np.testing.assert_allclose(ica.predict(pair, batch), expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["affine", "square", "tanh"])
def test_other_activations_sum_to_one(activation):
    weights = ica.activation_weights(activation)(jnp.array([[0.1, -0.3, 0.2]]))
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)


def test_inits(plain_checks):
    pair = ica.init(jax.random.key(0), heads=2, dim=5, scheme="opposite_identity")
    key_query, _ = ica.circuits(pair)
    signs = jnp.sign(jnp.diagonal(key_query, axis1=-2, axis2=-1))
    assert (signs[0] == 1).all()
    assert (signs[1] == -1).all()
    with pytest.raises(ValueError, match="scheme: expected one of"):
        ica.init(jax.random.key(0), heads=2, dim=5, scheme="orthogonal")
    with pytest.raises(ValueError, match="train_length"):
        ica.activation_weights("linear")
