"""Fast weights: without steps they are the loss, and their gradient is of first order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.training import fast_weights_loss


def loss(slow, fast):
    return jnp.sum(jnp.tanh(slow * (1 + fast["scale"]) + fast["shift"]) ** 2)


SLOW = jnp.array([0.3, -1.2, 0.7])
FAST = {"scale": jnp.zeros(3), "shift": jnp.zeros(3)}


def test_no_steps_or_no_rate_is_the_loss():
    for steps, rate in ((0, 1.0), (2, 0.0)):
        adapted = lambda slow: fast_weights_loss(loss, slow, FAST, steps=steps, rate=rate)  # noqa: B023
        np.testing.assert_allclose(adapted(SLOW), loss(SLOW, FAST))
        np.testing.assert_allclose(jax.grad(adapted)(SLOW), jax.grad(loss)(SLOW, FAST))


def test_small_steps_lower_it_and_are_not_differentiated(x64):
    slow, fast = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (SLOW, FAST))
    found = fast_weights_loss(loss, slow, fast, steps=2, rate=0.01, clip=1e9)
    assert float(found) < float(loss(slow, fast))
    moved = fast
    for _ in range(2):
        gradients = jax.grad(loss, argnums=1)(slow, moved)
        moved = jax.tree.map(lambda x, g: x - 0.01 * g, moved, gradients)
    np.testing.assert_allclose(found, loss(slow, moved), rtol=1e-12)
    adapted = lambda slow: fast_weights_loss(loss, slow, fast, steps=2, rate=0.01, clip=1e9)
    np.testing.assert_allclose(jax.grad(adapted)(slow), jax.grad(loss)(slow, moved), rtol=1e-12)


def test_each_array_is_clipped_by_itself():
    steep = lambda slow, fast: 100 * fast["a"].sum() + 0.1 * fast["b"].sum() + slow
    kept = {}

    def spy(slow, fast):
        kept.update(jax.tree.map(lambda x: x, fast))
        return steep(slow, fast)

    fast_weights_loss(spy, jnp.float32(0), {"a": jnp.zeros(4), "b": jnp.zeros(4)}, steps=1)
    np.testing.assert_allclose(kept["a"], -0.5 * np.ones(4), rtol=1e-6)
    np.testing.assert_allclose(kept["b"], -0.1 * np.ones(4), rtol=1e-6)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="steps"):
        fast_weights_loss(loss, SLOW, FAST, steps=-1)
    with pytest.raises(ValueError, match="clip"):
        fast_weights_loss(loss, SLOW, FAST, clip=0.0)
