"""The oscillator: against another solver, on its limit cycle, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jattn.tasks.van_der_pol import SCALE, sample_starts, van_der_pol_flow


def test_against_another_solver():
    starts = np.array([[2.0, 0.0], [-1.2, 9.0], [2.4, -12.0]], np.float32)
    found = jax.jit(lambda starts: van_der_pol_flow(starts, 10.0, 1.5))(starts)
    for start, end in zip(starts, found, strict=True):
        field = lambda _, s: [s[1], 10.0 * (1 - s[0] ** 2) * s[1] - s[0]]
        expected = solve_ivp(field, (0, 1.5), start, method="LSODA", rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(end, expected.y[:, -1], rtol=2e-3, atol=2e-4)


def test_starts_fill_the_box():
    starts = jax.vmap(sample_starts)(jax.random.split(jax.random.key(0), 2_000))
    np.testing.assert_allclose(np.abs(starts).max(0), 1.25 * SCALE, rtol=0.01)
    np.testing.assert_allclose(starts.mean(0) / SCALE, 0.0, atol=0.07)


def test_bad_input_is_named(plain_checks):
    with pytest.raises(ValueError, match="time: expected"):
        van_der_pol_flow(jnp.ones(2), 1.0, -1.0)
    with pytest.raises(ValueError, match="state: expected"):
        van_der_pol_flow(jnp.ones((3, 3)), 1.0, 1.0)
