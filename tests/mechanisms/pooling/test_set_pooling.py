"""Pooling by attention of learned queries: by hand, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo

M, H, K, N = 8, 2, 3, 5
POOL = zoo.make("pma", dim=M, heads=H, outputs=K)
PARAMS = jax.tree.map(np.asarray, jax.jit(POOL.init)(jax.random.key(0)))
# Norms and biases that do something.
RNG = np.random.default_rng(1)
PARAMS |= {
    name: RNG.standard_normal(PARAMS[name].shape).astype(np.float32)
    for name in ("feed_bias", "scale", "shift")
}
APPLY = jax.jit(POOL.apply)
X = np.random.default_rng(0).standard_normal((2, N, M)).astype(np.float32)


def norm(x, scale, shift):
    return scale * (x - x.mean()) / np.sqrt(x.var() + 1e-6) + shift


def by_hand(params, x):
    """Loops over sets, seeds and heads, in float64."""
    p = {name: np.asarray(array, np.float64) for name, array in params.items()}
    y = np.zeros((len(x), K, M))
    for row, tokens in enumerate(np.asarray(x, np.float64)):
        for k, seed in enumerate(p["seeds"]):
            heads = []
            for head in range(H):
                part = slice(head * M // H, (head + 1) * M // H)
                query, key = seed @ p["query"][:, part], tokens @ p["key"][:, part]
                weights = np.exp([query @ row / np.sqrt(M / H) for row in key])
                heads.append(weights / weights.sum() @ (tokens @ p["value"][:, part]))
            h = norm(seed + np.concatenate(heads) @ p["output"], p["scale"][0], p["shift"][0])
            fed = np.maximum(h @ p["feed"] + p["feed_bias"], 0)
            y[row, k] = norm(h + fed, p["scale"][1], p["shift"][1])
    return y


def test_by_hand():
    np.testing.assert_allclose(APPLY(PARAMS, X), by_hand(PARAMS, X), atol=1e-5)


def test_a_set_has_no_order_and_no_multiplicity():
    """Tokens each twice weigh as they did."""
    y = np.asarray(APPLY(PARAMS, X))
    np.testing.assert_allclose(APPLY(PARAMS, X[:, ::-1]), y, atol=1e-5)
    np.testing.assert_allclose(APPLY(PARAMS, np.repeat(X, 2, axis=1)), y, atol=1e-5)


def test_where_queries_are_zero_attention_is_the_mean():
    """As of a set of one token, whose value is the mean of the values."""
    params = PARAMS | {"query": np.zeros((M, M), np.float32)}
    one = APPLY(PARAMS, X.mean(1, keepdims=True))
    np.testing.assert_allclose(APPLY(params, X), one, atol=1e-5)


def test_an_empty_set_leaves_the_seeds():
    y = jax.jit(POOL.apply)(PARAMS, X, mask=np.zeros((2, N), bool))
    without = PARAMS | {"output": np.zeros((M, M), np.float32)}
    np.testing.assert_allclose(y, APPLY(without, X), atol=1e-6)
    assert not np.allclose(y[:, 0], y[:, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(heads=3), "heads: expected a divisor of dim=8, got 3"),
        (dict(outputs=0), "outputs: expected at least 1, got 0"),
        (dict(outputs=1.5), "outputs: expected an integer of at least 1, got 1.5"),
    ],
)
def test_wrong_sizes_are_named(plain_checks, options, said):
    with pytest.raises(ValueError, match=said):
        zoo.make("set_pooling", dim=M, **options)


def test_gradients_reach_the_seeds():
    gradient = jax.jit(jax.grad(lambda p: (POOL.apply(p, jnp.asarray(X)) ** 2).sum()))(PARAMS)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
