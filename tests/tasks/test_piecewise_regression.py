"""Laws that change with region or time are linear where they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks.piecewise_regression import piecewise_regression, switching_stream

KEY = jax.random.key(0)


def misfit(x, y):
    """Largest residual of the best linear law."""
    return np.abs(y - x @ np.linalg.lstsq(x, y)[0]).max()


def test_one_segment_is_linear_and_more_are_not():
    sample = jax.jit(piecewise_regression(4, 40, 8, most_segments=3))
    one, three = (jax.tree.map(np.asarray, sample(KEY, count)) for count in (1, 3))
    assert misfit(one.key, one.clean) < 1e-5
    assert misfit(three.key, three.clean) > 0.3
    np.testing.assert_array_equal(one.key, three.key)
    for x in (one.key, one.query):
        np.testing.assert_allclose((x**2).sum(-1), 1, atol=1e-5)
    assert 0.04 < (one.value - one.clean).std() < 0.06
    # Queries obey the law of the keys.
    both = np.concatenate([one.key, one.query]), np.concatenate([one.clean, one.target])
    assert misfit(*both) < 1e-5


def test_a_stream_is_linear_between_switches():
    sample = jax.jit(switching_stream(4, 10, 3, noise=0.0))
    near, far = (jax.tree.map(np.asarray, sample(KEY, spread)) for spread in (0.1, 3.0))
    np.testing.assert_array_equal(far.value, far.clean)
    assert misfit(far.key, far.clean) > 0.3
    for start in (0, 10, 20):
        part = slice(start, start + 10)
        assert misfit(far.key[part], far.clean[part]) < 1e-5
        centre = near.key[part].mean(0)
        assert (near.key[part] @ centre > 0.95).all()
    np.testing.assert_allclose((far.key**2).sum(-1), 1, atol=1e-5)


def test_bad_sizes_are_named(plain_checks):
    with pytest.raises(ValueError, match="segments: expected at least 1, got 0"):
        switching_stream(4, 10, 0)
    with pytest.raises(ValueError, match="queries: expected at least 1, got 0"):
        piecewise_regression(2, 1, 0, most_segments=1)
    with pytest.raises(ValueError, match="noise: expected at least 0, got -1"):
        switching_stream(2, 1, 1, noise=-1)
    assert jnp.isfinite(switching_stream(2, 1, 1)(KEY, 0.0).value).all()
