"""Differential and grouped differential attention: sums, limits, layouts of heads."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import gated
from jattn.mechanisms.softmax import differential_attention as diff
from jattn.mechanisms.softmax import grouped_differential_attention as grouped

B, T, M, H = 2, 6, 24, 4
X = jax.random.normal(jax.random.key(1), (B, T, M))
CAUSAL = jattn.masks.causal()


def normal(seed: int, *shape: int):
    return jax.random.normal(jax.random.key(seed), shape)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def repeated(x, times):
    return jnp.repeat(x, times, axis=2)


def test_combined_weights():
    """Rows sum to 1 - lambda, entries lie in [-lambda, 1]; values of ones and units show them."""
    q, k, lam = normal(1, B, T, 2 * H, 3), normal(2, B, T, 2 * H, 3), 0.4
    units = jnp.broadcast_to(jnp.eye(T)[:, None], (B, T, H, T))
    weights = diff.differential_attention(q, k, units, jnp.float32(lam), mask=CAUSAL)
    near(weights.sum(-1), 1 - lam)
    assert weights.min() >= -lam - 1e-6
    assert weights.max() <= 1
    assert weights.min() < 0
    near(np.triu(np.swapaxes(weights, 1, 2), 1), 0.0)
    v = normal(3, B, T, H, 5)
    out = diff.differential_attention(q, k, v, jnp.float32(lam), mask=CAUSAL)
    near(out, jnp.einsum("bths,bshe->bthe", weights, v))
    # A lambda of each token and head.
    own = jax.random.uniform(jax.random.key(4), (B, T, H))
    by_token = diff.differential_attention(q, k, v, own, mask=CAUSAL)
    signal, noise = (jattn.attend(q[:, :, c::2], k[:, :, c::2], v, mask=CAUSAL) for c in (0, 1))
    near(by_token, signal - own[..., None] * noise)


def test_lambda():
    assert diff.lambda_at(0) == pytest.approx(0.2)
    assert diff.lambda_at(2) == pytest.approx(0.8 - 0.6 * np.exp(-0.6))
    zero = jnp.zeros(4)
    assert float(diff.diff_lambda(zero, zero, zero, zero, 0.35)) == np.float32(0.35)
    mixer = diff.make(dim=M, heads=H, depth=2)
    drawn = [mixer.init(jax.random.key(seed))[name] for seed in range(40) for name in diff.VECTORS]
    assert np.std(drawn) == pytest.approx(0.1, rel=0.1)


def test_without_noise_it_is_softmax_attention_normalised():
    q, k, v = normal(1, B, T, 2 * H, 3), normal(2, B, T, 4, 3), normal(3, B, T, 2, 6)
    out = diff.sub_norm(diff.differential_attention(q, k, v, jnp.float32(0.0)), None, 0.0)
    plain = jattn.attend(q[:, :, ::2], k[:, :, ::2], v)
    near(out, plain / np.sqrt((plain**2).mean(-1, keepdims=True) + 1e-5), 1e-5)


def test_equal_maps_are_softmax_attention_normalised():
    q, k, v = normal(1, B, T, H, 3), normal(2, B, T, H, 3), normal(3, B, T, H, 6)
    plain = jattn.attend(q, k, v)
    for lam in (0.4, 1.7):
        out = diff.differential_attention(repeated(q, 2), repeated(k, 2), v, jnp.float32(lam))
        near(out, (1 - lam) * plain)
        near(
            diff.sub_norm(out, None, 0.2), np.sign(1 - lam) * diff.sub_norm(plain, None, 0.2), 1e-3
        )
        size = np.sqrt((np.asarray(diff.sub_norm(out, jnp.ones(6), 0.2)) ** 2).mean(-1))
        near(size, 0.8, 1e-3)


def test_pairings_of_keys():
    """With two heads a value, the authors' maps of a head share a key; ours never do."""
    q, k, v = normal(1, B, T, 2 * H, 3), normal(2, B, T, H, 3), normal(3, B, T, H // 2, 6)
    lam = jnp.float32(0.3)

    def by_hand(keys):
        out = []
        for n in range(H):
            heads = [
                jattn.attend(q[:, :, m : m + 1], k[:, :, [keys[m]]], v[:, :, [n // 2]])
                for m in (2 * n, 2 * n + 1)
            ]
            out.append(heads[0] - lam * heads[1])
        return jnp.concatenate(out, 2)

    near(diff.differential_attention(q, k, v, lam), by_hand([0, 1, 0, 1, 2, 3, 2, 3]))
    authors = diff.differential_attention(q, k, v, lam, pairing="authors")
    near(authors, by_hand([0, 0, 1, 1, 2, 2, 3, 3]))
    full = diff.differential_attention(q, repeated(k, 2), repeated(v, 2), lam)
    near(
        diff.differential_attention(q, repeated(k, 2), repeated(v, 2), lam, pairing="authors"), full
    )


def test_one_signal_a_noise_is_differential_attention():
    mixer = grouped.make(dim=M, heads=H, causal=True, ratio=1, depth=1, rotary=False)
    plain = diff.make(dim=M, heads=H, causal=True, depth=1)
    params = mixer.init(jax.random.key(0))
    near(mixer.apply(params, X), plain.apply(params, X), 1e-5)


def test_repeated_noise_is_differential_attention_with_tied_noise():
    q, k, v = normal(1, B, T, 8, 3), normal(2, B, T, 4, 3), normal(3, B, T, 2, 6)
    lam = jnp.float32(0.3)
    out = grouped.grouped_differential_attention(q, k, v, lam, ratio=3)
    groups = q.reshape(B, T, 2, 4, 3)
    tied = jnp.stack([groups[..., :3, :], repeated(groups, 1)[..., [3, 3, 3], :]], -2)
    tied_query = tied.reshape(B, T, 12, 3)
    near(out, diff.differential_attention(tied_query, k, v, lam))
    shared = grouped.grouped_differential_attention(q, k[:, :, ::2], v, lam, ratio=3, share_kv=True)
    same = k.at[:, :, 1::2].set(k[:, :, ::2])
    near(shared, grouped.grouped_differential_attention(q, same, v, lam, ratio=3))


@pytest.mark.parametrize("mode", ["scalar", "token"])
def test_growth_changes_nothing(mode):
    options: Any = dict(dim=M, causal=True, lambda_mode=mode, kv_heads=1, rotary=False)
    small = grouped.make(heads=4, ratio=2, **options)
    params = small.init(jax.random.key(0))
    large = grouped.make(heads=12, ratio=6, **options)
    grown = grouped.grow(params, heads=4, ratio=2, copies=3)
    assert grown["query"].shape == (M, 14 * 3)
    near(large.apply(grown, X), small.apply(params, X), 1e-5)


@pytest.mark.parametrize("copies", [2, 5])
def test_grown_models_need_not_divide_the_dimension(copies):
    """Sizes 2 heads copies = 16 and 40 of dimension 24; the small model in NumPy is the value."""
    options: Any = dict(dim=M, causal=True, kv_heads=1, head_dim=3)
    params = grouped.make(heads=4, ratio=2, **options).init(jax.random.key(0))
    arrays = {name: np.asarray(array, np.float64) for name, array in params.items()}
    heads = lambda name, size: (np.asarray(X) @ arrays[name]).reshape(B, T, -1, size)
    query, key, value = heads("query", 3), heads("key", 3), heads("value", 6)[:, :, 0]

    def attended(q, k):
        shares = np.exp(np.einsum("btd,bsd->bts", q, k) / 3**0.5) * np.tril(np.ones((T, T)))
        return shares / shares.sum(-1, keepdims=True) @ value

    l_q1, l_k1, l_q2, l_k2 = (arrays[name] for name in diff.VECTORS)
    lam = np.exp(l_q1 @ l_k1) - np.exp(l_q2 @ l_k2) + 0.2
    out = []
    for signal, noise in ((0, 2), (1, 2), (3, 5), (4, 5)):
        o = attended(query[:, :, signal], key[:, :, 0])
        o -= lam * attended(query[:, :, noise], key[:, :, 1])
        out.append(0.8 * o / np.sqrt((o**2).mean(-1, keepdims=True) + 1e-5))
    expected = np.concatenate(out, -1) @ arrays["output"]

    large = grouped.make(heads=4 * copies, ratio=2 * copies, **options)
    grown = grouped.grow(params, heads=4, ratio=2, copies=copies)
    shapes = lambda params: jax.tree.map(jnp.shape, params)
    assert shapes(grown) == shapes(large.init(jax.random.key(1)))
    near(large.apply(grown, X), expected, 1e-4)
    assert large.init_state is not None
    assert large.step is not None
    state, step = large.init_state(grown, B, T), jax.jit(large.step)
    for t in range(3):
        y, state = step(grown, X[:, t], state)
        near(y, expected[:, t], 1e-4)


def test_lambda_of_each_token_is_the_sigmoid_of_its_logit():
    """Of each signal head: equal maps of signal and noise leave 1 - lambda of softmax attention."""
    mixer = grouped.make(
        dim=M, heads=2, ratio=1, lambda_mode="token", share_kv=True, sub_norm=False
    )
    params = mixer.init(jax.random.key(0)) | {"output": jnp.eye(M)}
    size = M // 4
    signal = params["query"].reshape(M, 2, 2, size)
    params["query"] = signal.at[:, :, 1].set(signal[:, :, 0]).reshape(M, -1)
    lam = 1 / (1 + np.exp(-np.asarray(X @ params["lambda"])))
    q, k = (
        x.reshape(B, T, 2, size) for x in (X @ signal[:, :, 0].reshape(M, -1), X @ params["key"])
    )
    plain = jattn.attend(q, k, (X @ params["value"]).reshape(B, T, 2, M // 2))
    near(mixer.apply(params, X).reshape(B, T, 2, -1), (1 - lam[..., None]) * plain, 1e-5)


def test_the_later_form_streams():
    """Lambda by token, shared keys, a gate in place of the norm."""
    inner = grouped.make(
        dim=M, heads=2, causal=True, lambda_mode="token", share_kv=True, sub_norm=False, rotary=True
    )
    mixer = gated(inner, dim=M, heads=2)
    params = mixer.init(jax.random.key(0))
    assert set(params) == {"query", "key", "value", "output", "lambda", "output_gate"}
    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step = mixer.init_state(params, B, T), jax.jit(mixer.step)
    assert (state.key.shape, state.value.shape) == ((B, T, 1, 6), (B, T, 1, M // 2))
    for t in range(T):
        y, state = step(params, X[:, t], state)
    near(y, mixer.apply(params, X)[:, -1], 1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("differential", {"heads": 8}, "heads: two maps a head need dim / (2 heads) whole, got 24"),
        ("differential", {"depth": -1}, "depth: expected at least 0, got -1"),
        ("differential", {"pairing": "x"}, "pairing: expected one of 'within_head', 'authors'"),
        ("differential", {"rotary": True}, "rotary: needs an even dim / (2 heads), got 3"),
        ("grouped_differential", {"head_dim": 0}, "head_dim: expected at least 1, got 0"),
        (
            "grouped_differential",
            {"heads": 5, "head_dim": 3, "rotary": True},
            "rotary: needs an even dim / (2 heads) or head_dim, got 3",
        ),
        ("grouped_differential", {"ratio": 3}, "ratio: expected a divisor of heads=4, got 3"),
        (
            "grouped_differential",
            {"kv_heads": 2},
            "kv_heads: expected a divisor of the 1 noise heads, got 2",
        ),
        ("grouped_differential", {"lambda_mode": "x"}, "lambda_mode: expected one of 'scalar', "),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.make(f"{name}_attention", **({"dim": M, "heads": H} | options))


def test_bad_heads_are_named(plain_checks):
    q, lam = jnp.ones((B, T, 6, 4)), jnp.float32(0.1)
    with pytest.raises(ValueError, match="key: expected two key heads a value head"):
        diff.differential_attention(q, q[:, :, :4], q[:, :, :2], lam)
    with pytest.raises(ValueError, match="query: expected groups of 3"):
        grouped.grouped_differential_attention(q, q, q, lam, ratio=3)
    with pytest.raises(ValueError, match="ratio: expected a divisor of heads=4, got 3"):
        grouped.grow({}, heads=4, ratio=3, copies=2)
    with pytest.raises(ValueError, match="copies: expected at least 1, got 0"):
        grouped.grow({}, heads=4, ratio=2, copies=0)
    with pytest.raises(ValueError, match="noise_query: expected heads that divide query's 6"):
        diff.differential(q, q[:, :, :4], q, q, q, lam)
