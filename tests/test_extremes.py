"""Maxima whose gradients do not hang on how a program rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.extremes import largest, least
from jattn.mechanisms.layers.affine import norm


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("axes", [0, -1, (1, 2), (0, 2)])
def test_values_are_those_of_numpy(axes):
    x, there = numbers(3, 4, 5), np.random.default_rng(1).random((3, 4, 1)) < 0.6
    shown = np.where(there, x, np.nan)
    for ours, of_all, of_some in ((largest, np.max, np.nanmax), (least, np.min, np.nanmin)):
        np.testing.assert_array_equal(ours(x, axes), of_all(x, axis=axes, keepdims=True))
        some = np.isfinite(shown).any(axes, keepdims=True)
        with np.errstate(all="ignore"):
            expected = np.nan_to_num(of_some(np.where(some, shown, 0), axis=axes, keepdims=True))
        np.testing.assert_array_equal(ours(x, axes, jnp.asarray(there)), expected)


def test_the_first_of_equals_has_the_gradient():
    gradient = jax.grad(lambda x: largest(x, 0).sum())(jnp.array([1.0, 2.0, 2.0]))
    assert gradient.tolist() == [0, 1, 0]


def test_hidden_numbers_have_no_gradient():
    x, there = jnp.array([1.0, jnp.nan, 2.0]), jnp.array([True, False, False])
    assert jax.grad(lambda x: largest(x, 0, there).sum())(x).tolist() == [1, 0, 0]
    assert jax.grad(lambda x: least(x, 0, ~there & there).sum())(x).tolist() == [0, 0, 0]


def test_a_gradient_is_finite_where_the_compiler_rounds_twice():
    """The gradient of `jnp.max` was NaN here: it computes the norm twice, not bit by bit."""
    scale = {"scale": 1 + 0.1 * numbers(8, seed=1), "shift": 0.1 * numbers(8, seed=2)}
    inner, outer = numbers(8, 8, seed=3), numbers(8, 8, seed=4)

    def loss(x):
        y = norm(scale, x + jnp.tanh(x @ inner) @ outer)
        return (largest(y, 1) @ outer).sum()

    gradient = jax.jit(jax.grad(loss))
    for seed in range(5):
        x, way = numbers(4, 64, 8, seed=5 + seed), numbers(4, 64, 8, seed=50 + seed)
        found = np.asarray(gradient(x))
        assert np.isfinite(found).all()
        step = 1e-3
        slope = (loss(x + step * way) - loss(x - step * way)) / (2 * step)
        np.testing.assert_allclose((found * way).sum(), slope, rtol=0.02, atol=0.2)
