"""Affine-scaled attention against its matrix of weights, and its moving average."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import gated
from jattn.mechanisms.softmax import affine_attention as affine

B, T, M, H, G = 2, 6, 16, 4, 2
X = jax.random.normal(jax.random.key(1), (B, T, M))
Q = jax.random.normal(jax.random.key(2), (B, T, H, 3))
K, V = jax.random.normal(jax.random.key(3), (2, B, T, G, 3))
ALPHA = jax.random.uniform(jax.random.key(4), (B, T, H))
AVERAGE = jnp.float32(0.3)
REAL = jnp.array([[True] * T, [True, False, True, True, False, True]])
MASKS: dict[str, Any] = {
    "none": None,
    "causal": jattn.masks.causal(),
    "window": jattn.masks.sliding_window(3),
    "padded": jattn.masks.causal() & REAL[:, None, None],
}


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def matrix(q, k, alpha, average, mask, denominator):
    """The effective weights `[b, h, t, s]`, by the definition."""
    allowed = jnp.ones((T, T), bool) if mask is None else mask.dense(T, T)
    scores = jnp.einsum("bthd,bshd->bhts", q, jnp.repeat(k, H // G, 2)) / 3**0.5
    softmax = jax.nn.softmax(scores, axis=-1, where=allowed)
    n = allowed.sum(-1, keepdims=True) if denominator == "visible" else T
    alpha = jnp.swapaxes(alpha, 1, 2)[..., None]
    return jnp.where(allowed, alpha * softmax + (average - alpha) / n, 0)


@pytest.mark.parametrize("denominator", affine.DENOMINATORS)
@pytest.mark.parametrize("name", MASKS)
def test_against_the_matrix(name, denominator):
    mask = MASKS[name]

    def by_matrix(q, k, v, alpha, average):
        weights = matrix(q, k, alpha, average, mask, denominator)
        return jnp.einsum("bhts,bshe->bthe", weights, jnp.repeat(v, H // G, 2))

    def ours(*arrays):
        return affine.affine_attention(*arrays, denominator=denominator, mask=mask)

    arrays = (Q, K, V, ALPHA, AVERAGE)
    cotangent = jax.random.normal(jax.random.key(5), Q.shape)
    found, expected = (
        jax.jit(lambda *a, f=f: (f(*a), jax.vjp(f, *a)[1](cotangent)))(*arrays)
        for f in (ours, by_matrix)
    )
    jax.tree.map(lambda a, b: near(a, b, 1e-5), found, expected)
    weights = matrix(Q, K, ALPHA, AVERAGE, mask, denominator)
    n = T if mask is None else mask.dense(T, T).sum(-1)[..., None]
    share = weights.sum(-1, keepdims=True)
    alpha = np.swapaxes(ALPHA, 1, 2)[..., None]
    expected = AVERAGE if denominator == "visible" else alpha + n / T * (AVERAGE - alpha)
    near(share, np.broadcast_to(expected, share.shape))
    ones = jnp.ones_like(V)
    summed = affine.affine_attention(Q, K, ones, ALPHA, AVERAGE, denominator=denominator, mask=mask)
    near(summed, np.swapaxes(np.broadcast_to(share, (B, H, T, 3)), 1, 2))


def test_limits():
    mask = jattn.masks.causal()
    attention = lambda alpha, average: affine.affine_attention(
        Q, K, V, jnp.full((B, T, H), alpha), jnp.float32(average), mask=mask
    )
    plain = jattn.attend(Q, K, V, mask=mask)
    near(attention(1.0, 1.0), plain)
    near(attention(0.4, 0.4), 0.4 * plain)
    mean = np.cumsum(V, 1) / np.arange(1, T + 1)[:, None, None]
    near(attention(0.0, 0.7), 0.7 * np.repeat(mean, H // G, 2))
    same = jnp.broadcast_to(V[:, :1], V.shape)
    near(
        affine.affine_attention(Q, K, same, ALPHA, AVERAGE, mask=mask),
        0.3 * np.repeat(same, H // G, 2),
    )


def test_alpha():
    weights = jax.random.normal(jax.random.key(6), (M, H))
    logits = X @ weights
    near(affine.alpha_of(X, weights), np.clip(0.1 * logits + 0.5, 0, 1))
    near(affine.alpha_of(X, weights, "sigmoid"), 1 / (1 + np.exp(-logits)))
    assert set(np.unique(affine.alpha_of(100 * X, weights)[0, 0])) <= {0.0, 1.0}
    np.testing.assert_array_equal(affine.alpha_of(X, jnp.zeros((M, H))), 0.5)


def test_the_average_moves_to_the_mean_of_alpha():
    mixer = affine.make(dim=M, heads=H)
    params = mixer.init(jax.random.key(0))
    assert float(params["average"]) == 0.0
    still = params | {"alpha": jnp.zeros((M, H))}
    for k in range(1, 6):
        still = affine.update_average(still, X)
        near(still["average"], 0.5 * (1 - 0.9**k), 1e-6)
    moved = affine.update_average(params, X, rho=0.0, real=REAL)
    near(moved["average"], affine.alpha_of(X, params["alpha"])[REAL].mean(), 1e-6)
    # The forward pass has the average of before, and no gradient reaches it.
    loss = lambda params: (mixer.apply(params, X) ** 2).sum()
    assert float(jax.grad(loss)(moved)["average"]) == 0.0


def test_parameters_of_one_are_softmax_attention():
    mixer = affine.make(dim=M, heads=H, causal=True, activation="sigmoid")
    params = mixer.init(jax.random.key(0))
    wide = params | {"alpha": jnp.zeros((M, H)), "average": jnp.float32(0.5)}
    plain = zoo.make("softmax_attention", dim=M, heads=H, causal=True)
    own = {name: params[name] for name in ("query", "key", "value", "output")}
    near(mixer.apply(wide, X), 0.5 * plain.apply(own, X))
    closed = gated(mixer, dim=M, heads=H)
    near(closed.apply(wide | {"output_gate": jnp.zeros((M, M))}, X), 0.25 * plain.apply(own, X))


def test_it_streams_with_a_window_and_the_length():
    mixer = affine.make(
        dim=M, heads=H, causal=True, kv_heads=G, window=3, rotary=True, denominator="length"
    )
    params = mixer.init(jax.random.key(0)) | {"average": jnp.float32(0.4)}
    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step = mixer.init_state(params, B, T), jax.jit(mixer.step)
    whole = mixer.apply(params, X)
    for t in range(T):
        y, state = step(params, X[:, t], state)
        near(y, whole[:, t], 1e-5)


def test_bad_options_are_named():
    for option, message in {
        "activation": "activation: expected one of 'clip', 'sigmoid', got 'x'",
        "denominator": "denominator: expected one of 'visible', 'length', got 'x'",
    }.items():
        wrong: Any = {option: "x"}
        with pytest.raises(ValueError, match=re.escape(message)):
            affine.make(dim=M, heads=H, **wrong)
