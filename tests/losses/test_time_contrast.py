"""Contrast over time: what it is by hand, and that it does not care for what stays the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.losses.time_contrast import time_contrast


def test_by_hand():
    first, near, far, other = (jnp.array([[x, 0.0]]) for x in (0.0, 1.0, 2.0, 4.0))
    wanted = -np.log(np.exp(-1) / (np.exp(-1) + np.exp(-2) + np.exp(-4)))
    np.testing.assert_allclose(time_contrast(first, near, far, other), wanted, rtol=1e-5)
    same = time_contrast(first, first, first, first)
    np.testing.assert_allclose(same, np.log(3), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_gradients():
    latents = jax.random.normal(jax.random.key(0), (4, 5, 3), jnp.float64)
    run = lambda z: time_contrast(*z).sum()
    direction = jax.random.normal(jax.random.key(1), latents.shape, jnp.float64)
    slope = (jax.grad(run)(latents) * direction).sum()
    h = 1e-6
    measured = (run(latents + h * direction) - run(latents - h * direction)) / (2 * h)
    np.testing.assert_allclose(slope, measured, rtol=1e-7)
    assert jnp.isfinite(jax.grad(run)(jnp.zeros((4, 2, 3)))).all()


def test_what_stays_the_same_in_a_clip_helps_against_other_clips_only():
    still = jnp.ones((1, 4))  # the same in all frames of a clip
    apart = time_contrast(still, still, still, -9 * still)
    np.testing.assert_allclose(apart, np.log(2), atol=1e-4)


@pytest.mark.usefixtures("plain_checks")
def test_shapes_that_do_not_fit():
    one = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="other: expected shape"):
        time_contrast(one, one, one, one[:1])
