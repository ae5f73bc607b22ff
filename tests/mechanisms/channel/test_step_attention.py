"""Step sizes: Euler's method at its limits, stiffness of linear fields, and step attention."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms.channel.step_attention import make, step_attention, step_attention_init
from jattn.theory import step_sizes

X = jax.random.normal(jax.random.key(0), (3, 4))
WEIGHTS = jax.random.normal(jax.random.key(1), (4, 4))


def field(x):
    return jnp.tanh(x @ WEIGHTS)


def test_steps_of_one_and_zero():
    np.testing.assert_allclose(step_sizes.euler_residual(field, X), X + field(X), atol=1e-6)
    np.testing.assert_array_equal(step_sizes.euler_residual(field, X, 0.0), X)


def test_a_stretched_field_with_shorter_steps_is_the_same():
    steps = jax.random.uniform(jax.random.key(2), (5, 3, 1))
    whole = step_sizes.trajectory(field, X, steps)
    stretched = step_sizes.trajectory(lambda x: 8.0 * field(x), X, steps / 8.0)
    assert whole.shape == (6, 3, 4)
    np.testing.assert_allclose(stretched, whole, atol=1e-5)


def test_a_stiff_field_needs_short_steps():
    stiff = lambda x: -jnp.array([1.0, 1000.0]) * x
    end = lambda step, n: step_sizes.trajectory(stiff, jnp.ones(2), jnp.full(n, step))[-1]
    assert np.abs(end(0.0021, 500)).max() > 1e10
    assert np.abs(end(0.0019, 500)).max() < 0.5
    adaptive = end(min(1.0, 1 / 1000), 5000)
    np.testing.assert_allclose(adaptive, [np.exp(-5), 0.0], atol=1e-4)


def test_stiffness_of_a_linear_field():
    rotation, _ = np.linalg.qr(WEIGHTS)
    sizes = jnp.array([0.5, 1.0, 2.0, 3.0])
    matrix = -(rotation * sizes) @ rotation.T
    linear = lambda x: x @ matrix
    states = step_sizes.trajectory(linear, X, jnp.full(6, 0.2))
    index = step_sizes.stiffness_index(states, linear(states))
    assert index.shape == (6, 3)
    assert index.min() > 0.5
    assert index.max() < 3.0
    # The fast directions die first.
    assert (np.diff(index, axis=0) < 0).all()
    still = step_sizes.stiffness_index(jnp.ones((2, 4)), jnp.ones((2, 4)))
    np.testing.assert_array_equal(still, [0.0])


def test_halved_steps_halve_the_error(x64):
    x = jnp.ones(())
    errors = [
        abs(float(step_sizes.trajectory(lambda x: -x, x, jnp.full(n, 1 / n))[-1]) - np.exp(-1))
        for n in (32, 64, 128)
    ]
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 2.0, atol=0.05)


def test_step_attention():
    params = step_attention_init(jax.random.key(0), 32)
    assert {name: p.shape for name, p in params.items()} == {"down": (96, 2), "up": (2, 32)}
    x, change, before = jax.random.normal(jax.random.key(1), (3, 2, 5, 6, 32))
    found = step_attention(params, change, x, before)
    pooled = [np.asarray(a).mean((1, 2)) for a in (change, x, change - before)]
    hidden = np.maximum(np.concatenate(pooled, -1) @ params["down"], 0)
    expected = 1 / (1 + np.exp(-hidden @ np.asarray(params["up"])))
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-6)
    # The first block has seen no change yet; states without space are pooled as they are.
    np.testing.assert_array_equal(
        step_attention(params, change, x), step_attention(params, change, x, change)
    )
    assert step_attention(params, x[:, 0, 0], x[:, 0, 0]).shape == (2, 32)
    slope = jax.grad(lambda p: step_attention(p, change, x, before).sum())(params)
    assert all(np.any(np.asarray(g)) for g in slope.values())


@pytest.mark.parametrize("causal", [False, True])
def test_the_mixer_takes_steps_along_a_field(causal):
    mixer = make(dim=4, heads=1, causal=causal, hidden=6, reduction=2, steps=2)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 5, 4))
    move = lambda x: jax.nn.relu(x @ params["value"]) @ params["output"]
    start = x.reshape(10, 4) if causal else x
    first = move(start)
    middle = start + step_attention(params, first, start) * first
    second = move(middle)
    end = middle + step_attention(params, second, middle, first) * second
    np.testing.assert_allclose(mixer.apply(params, x), (end - start).reshape(x.shape), atol=1e-6)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        make(dim=4, heads=1, steps=0)


def test_bad_input_is_named(plain_checks):
    params = step_attention_init(jax.random.key(0), 4, reduction=2)
    with pytest.raises(ValueError, match=re.escape("x: expected shape [b=3, c=4], got [2, 4]")):
        step_attention(params, X, X[:2])
    with pytest.raises(ValueError, match="change: expected shape"):
        step_attention(params, X[:, 1:], X[:, 1:])
    with pytest.raises(ValueError, match="reduction: expected at least 1, got 0"):
        step_attention_init(jax.random.key(0), 4, reduction=0)
