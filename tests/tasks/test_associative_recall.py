"""Multi-query associative recall: where tokens stand, what they are, how gaps spread."""

import jax
import numpy as np
import pytest

from jattn.tasks.associative_recall import associative_recall

VOCABULARY, LENGTH, PAIRS = 20, 24, 5


def test_layout():
    sample = jax.jit(jax.vmap(associative_recall(VOCABULARY, LENGTH, PAIRS)))
    tokens, queries, answers = map(np.asarray, sample(jax.random.split(jax.random.key(0), 400)))
    keys = tokens[:, 0 : 2 * PAIRS : 2]
    assert (tokens[:, 1 : 2 * PAIRS : 2] == answers).all()
    assert (np.take_along_axis(tokens, queries, 1) == keys).all()
    assert all(len(set(row)) == PAIRS for drawn in (keys, answers, queries) for row in drawn)
    assert set(keys.flat) == set(range(1, 10))
    assert set(answers.flat) == set(range(10, 20))
    assert (queries % 2 == 0).all()
    assert (queries.min(), queries.max()) == (2 * PAIRS, LENGTH - 2)
    assert (np.sort(tokens, axis=1)[:, : LENGTH - 3 * PAIRS] == 0).all()
    # All queries are of the same law, and early places are the likelier ones.
    first, last = (queries == 2 * PAIRS).mean(), (queries == LENGTH - 2).mean()
    assert first > 1.2 * last > 0


def test_the_first_gap_follows_the_power_law():
    sample = jax.jit(jax.vmap(associative_recall(VOCABULARY, LENGTH, 1, power=0.5)))
    queries = np.asarray(sample(jax.random.split(jax.random.key(1), 20_000)).queries)[:, 0]
    expected = np.arange(1, 12) ** -0.5
    share = np.bincount((queries - 2) // 2, minlength=11) / len(queries)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.012)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((20, 19, 4), "length: expected an even number of at least 4 x 4 pairs, got 19"),
        ((20, 12, 4), "length: expected an even number"),
        ((8, 40, 4), "vocabulary: expected at least 10, got 8"),
    ],
)
def test_bad_sizes_are_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        associative_recall(*arguments)
