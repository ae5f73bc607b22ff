"""Bigram-backcopy: triggers repeat, the rest follows its table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks.backcopy import backcopy, bigrams

V, TRIGGERS = 7, 2


def test_triggers_repeat_and_the_rest_follows_the_table():
    table = bigrams(jax.random.key(0), V, TRIGGERS)
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-6)
    draw = jax.jit(jax.vmap(backcopy(table, TRIGGERS, 40)))
    tokens, copied = (np.asarray(x) for x in draw(jax.random.split(jax.random.key(1), 500)))
    trigger = (tokens >= 1) & (tokens <= TRIGGERS)
    np.testing.assert_array_equal(copied[:, 1:], trigger[:, :-1])
    np.testing.assert_array_equal(tokens[:, 2:][copied[:, 2:]], tokens[:, :-2][copied[:, 2:]])
    assert (tokens[:, 0] == 0).all()
    assert (tokens[:, 1:] != 0).all()
    counts = np.zeros((V, V))
    free = ~copied[:, 1:]
    np.add.at(counts, (tokens[:, :-1][free], tokens[:, 1:][free]), 1)
    found = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [0, *range(TRIGGERS + 1, V)]
    np.testing.assert_allclose(found[rows], jnp.asarray(table)[np.array(rows)], atol=0.06)


def test_bad_sizes():
    key = jax.random.key(0)
    for call, message in (
        (lambda: bigrams(key, 4, 2), "vocabulary: expected at least 5, got 4"),
        (lambda: bigrams(key, 9, 0), "triggers: expected at least 1, got 0"),
        (lambda: bigrams(key, 9, 2, trigger_rate=1.0), "trigger_rate: expected between 0 and 1"),
        (lambda: backcopy(jnp.eye(5), 1, 2), "length: expected at least 3 tokens, got 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
