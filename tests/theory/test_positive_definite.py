"""Blocked Cholesky solutions: the solution, any block size, and matrices that have none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.theory.positive_definite import solve_positive_definite


@pytest.mark.parametrize(("count", "block"), [(1, 4), (12, 4), (13, 4), (30, 64)])
def test_it_solves_the_system_for_any_block_size(x64, count, block):
    generator = np.random.default_rng(count)
    half = generator.normal(size=(count, count + 3))
    matrix, right = half @ half.T + 0.1 * np.eye(count), generator.normal(size=(count, 2))
    solve = jax.jit(lambda a, y: solve_positive_definite(a, y, block=block))
    found = solve(jnp.asarray(matrix), jnp.asarray(right))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-9)


def test_an_indefinite_matrix_gives_nan():
    matrix = jnp.diag(jnp.array([1.0, 1.0, -1.0, 1.0, 1.0]))
    found = solve_positive_definite(matrix, jnp.ones((5, 1)), block=2)
    assert not bool(jnp.all(jnp.isfinite(found)))


def test_gradients_are_those_of_a_dense_solution(x64):
    half = np.random.default_rng(0).normal(size=(6, 9))
    matrix, right = jnp.asarray(half @ half.T), jnp.ones((6, 1))
    blocked = lambda a: jnp.sum(solve_positive_definite((a + a.T) / 2, right, block=4) ** 2)
    dense = lambda a: jnp.sum(jnp.linalg.solve((a + a.T) / 2, right) ** 2)
    np.testing.assert_allclose(jax.jacfwd(blocked)(matrix), jax.grad(dense)(matrix), rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused(plain_checks):
    with pytest.raises(ValueError, match="right"):
        solve_positive_definite(jnp.eye(3), jnp.ones((2, 1)))
