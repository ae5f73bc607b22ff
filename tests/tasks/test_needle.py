"""Needles: what stands where, and that every part of a sequence is drawn anew."""

import jax
import numpy as np
import pytest

from jattn.tasks.needle import needle

V, T, PAIRS = 40, 21, 3


def test_the_answer_follows_the_key_and_noise_is_neither():
    tokens, queries, answers = jax.jit(jax.vmap(needle(V, T, PAIRS)))(
        jax.random.split(jax.random.key(0), 200)
    )
    tokens = np.asarray(tokens)
    assert (queries == T - 1).all()
    inside, asked = tokens[:, :-1], tokens[:, -1:]
    assert ((inside == asked).sum(1) == 1).all()
    place = (inside == asked).argmax(1)
    np.testing.assert_array_equal(tokens[np.arange(200), place + 1], answers[:, 0])
    kinds = [(inside >= low) & (inside < high) for low, high in ((1, 10), (10, 20), (20, 40))]
    assert [kind.sum(1).tolist() for kind in kinds] == [[n] * 200 for n in (3, 3, T - 1 - 6)]
    assert set(place) == set(range(0, T - 1, 2))  # anywhere, at even places
    assert len(set(np.asarray(answers[:, 0]))) == 10
    for row, is_key in zip(inside, kinds[0], strict=True):
        assert len(set(row[is_key])) == PAIRS


def test_errors():
    with pytest.raises(ValueError, match="length: expected at least 2 x 3 pairs"):
        needle(V, 6, 3)
    with pytest.raises(ValueError, match="vocabulary: expected at least 16, got 12"):
        needle(12, T, 3)
