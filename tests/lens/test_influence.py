"""Influence: of a mixer with known weights, and what bad shapes meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.lens.influence import influence


def test_a_fixed_mixing_matrix_is_found():
    weights = jax.random.uniform(jax.random.key(0), (5, 7), minval=-1)
    channels = jax.random.normal(jax.random.key(1), (3, 4))
    found = influence(lambda x: jnp.tanh(weights @ x @ channels * 1e-4), jnp.ones((7, 3)))
    expected = jnp.abs(weights) * jnp.linalg.norm(channels) * 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_one_sequence_at_a_time(plain_checks):
    with pytest.raises(ValueError, match="x: expected 2 axes"):
        influence(lambda x: x, jnp.ones((1, 3, 2)))
