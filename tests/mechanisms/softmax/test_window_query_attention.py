"""L-query attention: window means against a loop, the paper's layer, two lengths mixed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms.combinators import mix
from jattn.mechanisms.layers.norms import layer_norm
from jattn.mechanisms.softmax import window_query_attention as window

B, T, M = 2, 7, 4


def draw():
    with jax.enable_x64(False):
        return jax.random.normal(jax.random.key(0), (B, T, M))


X = draw()
REAL = np.array([[False, False, True, True, True, True, True], [True] * 4 + [False] + [True] * 2])
mean = jax.jit(window.window_mean, static_argnums=1)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("length", [1, 3, T, 99])
def test_window_mean_against_a_loop(length):
    x = np.asarray(X)
    expected = np.zeros_like(x)
    for row, t in np.ndindex(B, T):
        inside = [i for i in range(max(t - length + 1, 0), t + 1) if REAL[row, i]]
        expected[row, t] = x[row, inside].mean(0) if inside else 0
    near(mean(X, length, REAL), expected)
    # What is no token may hold anything.
    near(mean(jnp.where(REAL[..., None], X, jnp.nan), length, REAL), expected)


def test_limits_of_the_window():
    near(mean(X, 1), X)
    constant = jnp.broadcast_to(X[:, :1], X.shape)
    for length in (1, 2, 5):
        near(mean(constant, length), constant)
    near(mean(X, T + 3), jnp.cumsum(X, 1) / jnp.arange(1, T + 1)[:, None])


@functools.partial(jax.jit, static_argnums=2)
def layer_by_hand(params, x, length):
    """The paper's layer with one head, one token at a time."""
    norm = lambda v, i: layer_norm(v, params["scale"][i], params["shift"][i])
    key, value = x @ params["key"], x @ params["value"] + params["value_bias"]
    rows = []
    for t in range(x.shape[1]):
        near_by = x[:, max(t - length + 1, 0) : t + 1].mean(1)
        u = layer_norm(near_by, params["query_scale"], params["query_shift"])
        scores = jnp.einsum("bm,bsm->bs", u @ params["query"], key[:, : t + 1]) / M**0.5
        z = norm(jnp.einsum("bs,bsm->bm", jax.nn.softmax(scores), value[:, : t + 1]) + u, 0)
        inner = jax.nn.relu(z @ params["up"] + params["up_bias"])
        rows.append(norm(z + inner @ params["down"] + params["down_bias"], 1))
    return jnp.stack(rows, 1)


@functools.cache
def layer_and_params(length):
    with jax.enable_x64(False):
        layer = window.make_layer(dim=M, heads=1, query_window=length, hidden=6)
        start = layer.init(jax.random.key(length))
        leaves, tree = jax.tree.flatten(start)
        noise = jax.random.split(jax.random.key(9), len(leaves))
        moved = [
            a + 0.2 * jax.random.normal(k, a.shape) for a, k in zip(leaves, noise, strict=True)
        ]
        return layer, tree.unflatten(moved)


@pytest.mark.parametrize("length", [1, 3])
def test_the_layer_against_the_paper(length):
    layer, params = layer_and_params(length)
    y = jax.jit(layer.apply)(params, X)
    near(y, layer_by_hand(params, X, length), 1e-5)
    assert layer.init_state is not None
    assert layer.step is not None
    start, one = layer.init_state(params, B, T), layer.step

    @jax.jit
    def decode(params, x):
        def step(state, token):
            y, state = one(params, token, state)
            return state, y

        return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)

    near(decode(params, X), y, 1e-5)


def test_biases_of_queries_and_keys_are_nothing_new():
    """The layer with all three biases of the paper, in NumPy: ours is that with other shifts."""
    layer, params = layer_and_params(1)
    now = {name: np.asarray(array, np.float64) for name, array in params.items()}
    x, of_query, of_key = np.asarray(X, np.float64), np.arange(1.0, 5.0) / 5, np.ones(M)

    def norm(v, scale, shift):
        spread = np.sqrt(v.var(-1, keepdims=True) + 1e-6)
        return (v - v.mean(-1, keepdims=True)) / spread * scale + shift

    u = norm(x, now["query_scale"], now["query_shift"])
    query, key = u @ now["query"] + of_query, x @ now["key"] + of_key
    value = x @ now["value"] + now["value_bias"]
    scores = np.einsum("btm,bsm->bts", query, key) / M**0.5
    shares = np.exp(scores) * np.tril(np.ones((T, T)))
    z = shares / shares.sum(-1, keepdims=True) @ value + u
    z = norm(z, now["scale"][0], now["shift"][0])
    inner = np.maximum(z @ now["up"] + now["up_bias"], 0) @ now["down"] + now["down_bias"]
    expected = norm(z + inner, now["scale"][1], now["shift"][1])

    moved = np.linalg.solve(now["query"].T, of_query)
    shifted = {"query_shift": now["query_shift"] + moved, "value_bias": now["value_bias"] - moved}
    near(jax.jit(layer.apply)(params | shifted, X), expected, 1e-4)
    assert np.abs(layer.apply(params, X) - expected).max() > 0.01


def test_padding_in_front_changes_nothing():
    layer, params = layer_and_params(3)
    apply = jax.jit(layer.apply)
    longer = jnp.concatenate([jnp.full((B, 2, M), 5.0), X], axis=1)
    mask = jnp.broadcast_to(jnp.arange(T + 2) >= 2, (B, T + 2))
    near(apply(params, longer, mask=mask)[:, 2:], apply(params, X), 1e-5)


def test_two_layers_are_mixed():
    (short, of_short), (long, of_long) = layer_and_params(1), layer_and_params(3)
    params = {"short": of_short, "long": of_long}
    a, b = jax.jit(short.apply)(of_short, X), jax.jit(long.apply)(of_long, X)
    mixed = jax.jit(lambda alpha: mix(short, long, alpha=alpha).apply(params, X))
    for alpha in (1.0, 0.0, 0.3):
        near(mixed(alpha), alpha * a + (1 - alpha) * b)
    assert np.abs(a - b).max() > 0.1
    half = mix(short, long)
    assert jax.tree.structure(half.init(jax.random.key(0))) == jax.tree.structure(params)
    assert half.init_state is not None
    assert half.step is not None
    state, step = half.init_state(params, B, T), jax.jit(half.step)
    for t in range(4):
        y, state = step(params, X[:, t], state)
        near(y, (a + b)[:, t] / 2, 1e-5)


def test_bad_input_is_named(plain_checks):
    for call, message in (
        (lambda: mean(X, 0), "length: expected at least 1, got 0"),
        (lambda: mean(X, 2, REAL[:, 1:]), "mask: expected shape [one_or_b=2, t=7], got [2, 6]"),
        (
            lambda: window.make(dim=4, heads=2, query_window=0),
            "query_window: expected at least 1, got 0",
        ),
        (
            lambda: window.make(dim=4, heads=2, causal=False),
            "causal: window_query_attention has only a causal form",
        ),
        (lambda: window.make_layer(dim=4, heads=3), "heads: expected a divisor of dim=4, got 3"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
