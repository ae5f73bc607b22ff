"""Modular arithmetic: answers undo each other, and orders keep what has no answer behind."""

import jax
import numpy as np
import pytest

from jattn.tasks.modular_arithmetic import OPERATIONS, answers, shuffled, tokens

P = 7


def test_operations_undo_each_other():
    a, b = np.divmod(np.arange(P**2), P)
    found = {o: np.asarray(answers(o, P)) for o in OPERATIONS}
    np.testing.assert_array_equal((found["subtract"] + b) % P, a)
    np.testing.assert_array_equal(found["add"], (a + b) % P)
    np.testing.assert_array_equal(found["multiply"], a * b % P)
    whole = b > 0
    np.testing.assert_array_equal((found["divide"] * b % P)[whole], a[whole])
    assert (found["divide"][~whole] == -1).all()
    drawn = np.asarray(answers("random", P, seed=1))
    assert len(np.unique(drawn)) == P
    assert (drawn != np.asarray(answers("random", P, seed=2))).any()


def test_orders_are_permutations_with_undefined_answers_last():
    table = answers("divide", P)
    orders = jax.vmap(lambda key: shuffled(key, table))(jax.random.split(jax.random.key(0), 5))
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(P**2), (5, 1)))
    assert (np.asarray(table)[np.asarray(orders)[:, -P:]] == -1).all()
    assert (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(tokens(orders[0], P)[:, 0] * P + tokens(orders[0], P)[:, 1],
                                  orders[0])  # fmt: skip
    assert (tokens(orders, P)[..., 2] == P).all()


def test_bad_sizes_are_refused(plain_checks):
    with pytest.raises(ValueError, match="modulus: expected a prime, for it divides, got 9"):
        answers("divide", 9)
    with pytest.raises(ValueError, match="operation"):
        answers("power", 7)  # type: ignore
    assert answers("multiply", 9).shape == (81,)
