"""BM25: what scores depend on, and what they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import bm25


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 12, (9, 8))
    return jnp.asarray(np.where(np.arange(8) < rng.integers(3, 9, (9, 1)), rows, -1))


def test_scores(documents):
    queries = jnp.array([[0, 1, -1], [0, 0, 1], [12, 99, -1]])
    index = bm25.build_index(documents, 12)
    found = bm25.score(index, queries)
    assert (found >= 0).all()
    shared = ((documents == 0) | (documents == 1)).any(1)
    np.testing.assert_array_equal(found[0] > 0, shared)
    assert (found[2] == 0).all()
    # A word that is twice in the query counts twice.
    only = bm25.score(index, jnp.array([[0, -1, -1]]))[0]
    np.testing.assert_allclose(found[1] - found[0], only, atol=1e-6)
    order = jnp.array([4, 2, 0, 8, 1, 3, 7, 6, 5])
    moved = bm25.score(bm25.build_index(documents[order], 12), queries)
    np.testing.assert_allclose(moved, found[:, order], atol=1e-6)


def test_retrieval_in_jit(documents):
    queries = jnp.array([[3, 5], [12, 12]])

    @jax.jit
    def search(documents, queries):
        return bm25.retrieve(bm25.build_index(documents, 12), queries, 4)

    found = search(documents, queries)
    scores = bm25.score(bm25.build_index(documents, 12), queries)
    np.testing.assert_array_equal(found[0], np.argsort(-np.asarray(scores[0]), kind="stable")[:4])
    assert found[1].tolist() == [0, 1, 2, 3]  # ties: the lower index


@pytest.mark.usefixtures("plain_checks")
def test_bad_input():
    with pytest.raises(ValueError, match="documents: expected at least one, got none"):
        bm25.build_index(jnp.zeros((0, 3), int), 5)
    with pytest.raises(ValueError, match="variant: expected one of 'lucene', 'robertson'"):
        bm25.build_index(jnp.zeros((1, 3), int), 5, variant="plus")  # type: ignore[arg-type]
