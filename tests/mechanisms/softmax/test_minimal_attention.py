"""Attention with merged matrices: what is the same, what is symmetric, how many parameters."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.softmax import minimal_attention as minimal

B, T, M = 2, 5, 8
X = jax.random.normal(jax.random.key(1), (B, T, M))


def made(heads: int = 1, **options: Any):
    mixer = minimal.make(dim=M, heads=heads, **options)
    return mixer, mixer.init(jax.random.key(0))


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def test_separate_and_collapsed_are_softmax_attention():
    mixer, params = made(qk="separate", causal=True)
    plain = zoo.make("softmax_attention", dim=M, heads=1, causal=True)
    y = mixer.apply(params, X)
    near(y, plain.apply(params, X))
    one, _ = made(qk="collapsed", causal=True)
    merged = {name: params[name] for name in ("value", "output")}
    merged["query"] = params["query"] @ params["key"].T
    near(one.apply(merged, X), y)


@pytest.mark.parametrize(("qk", "heads"), [("shared", 2), ("cholesky", 1)])
def test_similarity_is_symmetric_and_positive(qk, heads):
    _, params = made(heads, qk=qk)
    query, key = minimal.query_key(params, X, X, heads=heads, qk=qk)
    scores = np.einsum("bthd,bshd->bhts", query, key)
    near(scores, np.swapaxes(scores, 2, 3))
    assert np.linalg.eigvalsh(scores).min() > -1e-5
    own = np.diagonal(scores, axis1=2, axis2=3)
    assert (own >= 0).all()
    assert (own[..., None] * own[..., None, :] >= scores**2 - 1e-5).all()
    if qk == "cholesky":
        lower = minimal.lower_triangular(params["query"], M)
        near(scores[:, 0], X @ (lower @ lower.T) @ jnp.swapaxes(X, 1, 2), 1e-5)


@pytest.mark.parametrize("qk", ["collapsed", "cholesky"])
def test_without_values_tokens_stay_in_their_hull(qk):
    mixer, params = made(qk=qk, vo="none", causal=True)
    y = mixer.apply(params, X)
    for t in range(T):
        past = X[:, : t + 1]
        assert (y[:, t] <= past.max(1) + 1e-6).all()
        assert (y[:, t] >= past.min(1) - 1e-6).all()
    same = jnp.broadcast_to(X[:, :1], X.shape)
    near(mixer.apply(params, same), same)
    assert mixer.init_state is not None
    assert mixer.step is not None
    state = mixer.init_state(params, B, T)
    assert state.value.shape == (B, T, 1, M)
    step = jax.jit(mixer.step)
    for t in range(T):
        out, state = step(params, X[:, t], state)
        near(out, y[:, t])


def test_values_of_a_stack_are_one_matrix():
    """A_3 A_2 A_1 x (V_1 O_1 V_2 O_2 V_3 O_3), the A as they are in the stack."""
    mixer, bare = made(qk="collapsed")[0], made(qk="collapsed", vo="none")[0]
    layers = jax.vmap(mixer.init)(jax.random.split(jax.random.key(2), 3))
    z, mixed, product = X, X, jnp.eye(M)
    for layer in range(3):
        params = jax.tree.map(lambda p, layer=layer: p[layer], layers)
        query, key = minimal.query_key(params, z, z, heads=1, qk="collapsed")
        scores = jnp.einsum("bthd,bshd->bts", query, key) / np.sqrt(M)
        weights = jax.nn.softmax(scores, axis=-1)
        near(bare.apply({"query": params["query"]}, z), weights @ z)
        mixed, product = weights @ mixed, product @ params["value"] @ params["output"]
        z = mixer.apply(params, z)
    near(z, mixed @ product, 1e-5)


def test_numbers_of_parameters():
    count = lambda **options: sum(p.size for p in jax.tree.leaves(made(**options)[1]))
    square = M * M
    assert count(qk="separate") == 4 * square
    assert count(heads=4, qk="shared") == count(qk="collapsed") == 3 * square
    assert count(qk="cholesky") == 2 * square + M * (M + 1) // 2
    assert count(qk="separate", vo="none") == 2 * square
    assert count(qk="collapsed", vo="none") == square
    assert count(qk="cholesky", vo="none") == M * (M + 1) // 2


def test_bad_options_are_named(plain_checks):
    for heads, options, message in (
        (1, {"qk": "x"}, "qk: expected one of 'separate', 'shared', 'collapsed', 'cholesky'"),
        (1, {"vo": "x"}, "vo: expected one of 'separate', 'none', got 'x'"),
        (2, {"qk": "cholesky"}, "heads: expected 1 with qk='cholesky', got 2"),
        (2, {"vo": "none"}, "heads: expected 1 with vo='none', got 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            made(heads, **options)
