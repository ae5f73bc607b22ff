"""Statistics of heads and sinks, against identities that hold by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.lens import heads, sinks


@pytest.fixture(scope="module")
def maps():
    scores = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 5))
    return jax.nn.softmax(jnp.where(jnp.tri(5, dtype=bool), 2 * scores, -jnp.inf))


def test_equal_heads_are_alike_and_even(maps):
    found = heads.head_statistics(jnp.repeat(maps[:, :, :1], 4, axis=2))
    np.testing.assert_allclose(found.mean_similarity, 1, atol=1e-6)
    np.testing.assert_allclose([found.entropy_std, found.entropy_range], 0, atol=1e-6)
    np.testing.assert_allclose(found.spectral_gap, 4, atol=1e-5)  # one eigenvalue has it all
    assert float(heads.head_statistics(maps[:, :, :1]).mean_similarity) == 1


def test_statistics_do_not_depend_on_the_order_of_heads(maps):
    found, turned = heads.head_statistics(maps), heads.head_statistics(maps[:, :, ::-1])
    np.testing.assert_allclose(found, turned, atol=1e-6)
    assert 0 < float(found.mean_similarity) < 1
    # Of a causal map the first row has one key, and entropy 0.
    alone = heads.head_entropy(maps[..., :1, :])
    np.testing.assert_allclose(alone, 0, atol=1e-7)


def test_participation_counts_independent_heads(maps):
    found = heads.head_participation(maps)
    flat = np.moveaxis(np.asarray(maps), 2, 1).reshape(2, 4, -1)
    values = np.stack([np.linalg.eigvalsh(np.cov(layer)) for layer in flat])
    variation = values.std(1) / values.mean(1)
    np.testing.assert_allclose(found, ((4 / (1 + variation**2) - 1) / 3).mean(), atol=1e-5)
    same = jnp.repeat(maps[:, :, :1], 4, axis=2)  # a covariance of rank one
    np.testing.assert_allclose(heads.head_participation(same), 0, atol=1e-6)
    assert float(heads.head_participation(maps[:, :, :1])) == 0


def test_importance_of_even_attention():
    length = 6
    even = jnp.tri(length) / jnp.arange(1, length + 1)[:, None]
    harmonic = 1 / np.arange(1, length + 1)
    expected = [harmonic[j:].sum() / (length - j) for j in range(length)]
    np.testing.assert_allclose(sinks.importance(even), expected, atol=1e-6)


def test_sink_metric_counts_heads(plain_checks):
    first = jnp.zeros((2, 1, 2, 4, 4)).at[..., 0].set(1.0)
    mixed = first.at[:, :, 1].set(jnp.eye(4))  # alpha of the second head: 1 / (t - j)
    np.testing.assert_allclose(sinks.sink_metric(mixed, 0.3), [0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(sinks.sink_metric(mixed, 0.4), [0.5, 0.0, 0.5, 0.5])
    with pytest.raises(ValueError, match="weights: expected 5 axes"):
        sinks.sink_metric(mixed[0])
    with pytest.raises(ValueError, match="weights: expected shape"):
        sinks.importance(jnp.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="weights: expected 5 axes"):
        heads.head_statistics(mixed[0])
