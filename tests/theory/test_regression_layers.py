"""Every layer is the minimum, or the step, that it is said to be; errors are as sampled."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.attention import attend
from jattn.mechanisms.linear.delta_rule import delta_rule
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.linear.local_linear_attention import local_linear_attention
from jattn.tasks.piecewise_regression import piecewise_regression
from jattn.theory import regression_layers as layers

D, N, M = 3, 9, 4
local_linear = jax.jit(layers.local_linear)


@pytest.fixture
def problem(x64):
    return jax.jit(piecewise_regression(D, N, M, most_segments=2))(jax.random.key(0), 2)


def close(a, b, tolerance=1e-9):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def heads(*arrays):
    return [x[None, :, None] for x in arrays]


def test_linear_attention_is_a_step_of_gradient_descent(problem):
    loss = lambda w: 0.5 * ((problem.value - problem.key @ w) ** 2).sum()
    w = -0.3 * jax.grad(loss)(jnp.zeros((D, D)))
    out = layers.gradient_step(problem.query, problem.key, rate=0.3) @ problem.value
    close(out, problem.query @ w)
    arrays = heads(problem.query, problem.key, problem.value)
    read = linear_attention(*arrays, feature_map="identity", normalize=False)
    close(out, 0.3 * read[0, :, 0])


def test_the_delta_rule_is_gradient_descent_online(problem):
    w = jnp.zeros((D, D))
    for k, v in zip(problem.key, problem.value, strict=True):
        w -= 0.7 * jax.grad(lambda w, k=k, v=v: 0.5 * ((v - k @ w) ** 2).sum())(w)
    out = layers.online_gradient_descent(problem.query, problem.key, rate=0.7) @ problem.value
    close(out, problem.query @ w)
    beta = jnp.full((1, N, 1), 0.7)
    arrays = heads(problem.key, problem.key, problem.value)
    state: Any = delta_rule(*arrays, beta=beta, return_state=True)[1]
    close(problem.query @ state[0, 0], out, 1e-5)  # Its keys are unit up to an epsilon.


@pytest.mark.parametrize("intercept", [False, True])
def test_ridge_regression_is_the_minimum(problem, intercept):
    key, query, value = problem.key, problem.query, problem.value

    def loss(fit):
        return ((value - key @ fit[1:] - intercept * fit[0]) ** 2).sum() + 0.2 * (
            fit[1:] ** 2
        ).sum()

    predict = lambda q: layers.ridge_regression(q, key, penalty=0.2, intercept=intercept) @ value
    points = jnp.concatenate([jnp.zeros((1, D)), jnp.eye(D)])
    at = predict(points)  # An affine function, so its values there are its coefficients.
    close(jax.grad(loss)(at.at[1:].add(-at[0])), jnp.zeros((D + 1, D)))
    close(predict(query), at[0] + query @ (at[1:] - at[0]))


def test_softmax_attention_is_a_local_constant(problem):
    arrays = heads(problem.query, problem.key, problem.value)
    scores = 3.0 * problem.query @ problem.key.T
    out = layers.local_constant(scores) @ problem.value
    close(out, attend(*arrays, scale=3.0)[0, :, 0])
    squares = lambda b: (jnp.exp(scores) * ((problem.value - b[:, None]) ** 2).sum(-1)).sum()
    close(jax.grad(squares)(out), jnp.zeros_like(out))
    # On the sphere the kernel is Gaussian.
    gaussian = layers.gaussian_scores(problem.query, problem.key, bandwidth=3.0**-0.5)
    close(layers.local_constant(gaussian), layers.local_constant(scores))


def test_local_linear_attention_is_a_local_line(problem):
    query, key, value = problem.query, problem.key, problem.value
    weights = local_linear(query, key, 3.0 * query @ key.T, ridge=0.1)
    close(weights.sum(-1), jnp.ones(M))
    chosen = functools.partial(local_linear_attention, scale=3.0, ridge=0.1, solver="exact")
    out = jax.jit(chosen)(*heads(query, key, value))
    close(weights @ value, out[0, :, 0])
    # Without scores and ridge it is least squares with an intercept.
    flat = local_linear(query, key, jnp.zeros((M, N)), ridge=1e-10)
    close(flat, layers.ridge_regression(query, key, penalty=1e-9, intercept=True), 1e-7)


def test_bias_and_variance_are_those_of_draws(problem):
    weights = layers.ridge_regression(problem.query, problem.key, penalty=0.5)
    errors = layers.bias_and_variance(weights, problem.clean, problem.target, noise_variance=0.04)
    noise = 0.2 * jax.random.normal(jax.random.key(1), (4096, *problem.clean.shape))
    drawn = ((weights @ (problem.clean + noise) - problem.target) ** 2).sum(-1).mean(0)
    np.testing.assert_allclose(errors.total, drawn, rtol=0.05)


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("fit", ["constant", "linear"])
def test_narrow_kernels_err_as_the_expansion_says(x64, fit, boundary):
    h, n = 0.01, 4000
    key = (jnp.arange(n)[:, None] + 0.5) / n
    query = jnp.array([[0.0 if boundary else 0.4]])
    scores = layers.gaussian_scores(query, key, bandwidth=h)
    law = lambda x: jnp.exp(x)
    if fit == "constant":
        weights = layers.local_constant(scores)
    else:
        weights = local_linear(query, key, scores, ridge=1e-9)
    terms = layers.leading_terms(fit, boundary=boundary)
    slope = jax.grad(lambda x: law(x).sum())
    curvature = jax.grad(lambda x: slope(x).sum())
    derivative = (slope, curvature)[terms.order - 1](query)
    measured = (weights @ law(key) - law(query)) / (h**terms.order * derivative)
    assert float(measured[0, 0]) == pytest.approx(terms.bias, rel=0.05)
    assert float((weights**2).sum() * n * h) == pytest.approx(terms.variance, rel=0.05)


def test_errors_name_the_argument(plain_checks):
    with pytest.raises(ValueError, match="fit: expected one of 'constant', 'linear', got 'cubic'"):
        layers.leading_terms("cubic", boundary=True)
    with pytest.raises(ValueError, match="pairs: expected at least 1, got 0"):
        piecewise_regression(2, 0, 1, most_segments=1)
    with pytest.raises(ValueError, match="noise: expected at least 0, got -1"):
        piecewise_regression(2, 1, 1, most_segments=1, noise=-1)
