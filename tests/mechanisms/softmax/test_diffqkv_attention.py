"""DiffQKV attention: heads of three kinds, small caches, few values."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.softmax import diffqkv_attention as diffqkv

B, T, M, H = 2, 6, 24, 6
X = jax.random.normal(jax.random.key(1), (B, T, M))
Q, K, V = jax.random.normal(jax.random.key(2), (3, B, T, H, 4))


def made(**options: Any):
    mixer = diffqkv.make(dim=M, heads=H, **{"causal": True, **options})
    return mixer, mixer.init(jax.random.key(0))


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def repeated(weights, heads):
    """Projections of `heads` heads repeated to H."""
    return jnp.repeat(weights.reshape(M, heads, -1), H // heads, axis=1).reshape(M, -1)


@pytest.mark.parametrize(("key_heads", "value_heads"), [(2, 3), (1, 6), (1, 1), (3, 3), (6, 6)])
def test_it_is_attention_with_repeated_heads(key_heads, value_heads):
    mixer, params = made(key_heads=key_heads, value_heads=value_heads, rotary=True)
    full = zoo.make("softmax_attention", dim=M, heads=H, causal=True, rotary=True)
    wide = params | {
        "key": repeated(params["key"], key_heads),
        "value": repeated(params["value"], value_heads),
    }
    near(mixer.apply(params, X), full.apply(wide, X))
    if key_heads == value_heads:
        grouped = zoo.make(
            "softmax_attention", dim=M, heads=H, causal=True, rotary=True, kv_heads=key_heads
        )
        near(mixer.apply(params, X), grouped.apply(params, X))


def test_key_heads_have_no_order():
    """Exchanged with the queries that read them, the values of these, and the output's rows."""
    mixer, params = made(key_heads=2, value_heads=2)
    swap = lambda w, heads: w.reshape(M, heads, -1)[:, ::-1].reshape(M, -1)
    halves = lambda w: jnp.roll(w.reshape(M, H, -1), H // 2, axis=1).reshape(M, -1)
    turned = {
        "query": halves(params["query"]),
        "key": swap(params["key"], 2),
        "value": swap(params["value"], 2),
        "output": halves(params["output"].T).T,
    }
    near(mixer.apply(turned, X), mixer.apply(params, X))


@pytest.mark.parametrize("compress", [False, True])
def test_size_of_the_cache(compress):
    mixer = diffqkv.make(dim=64, heads=16, causal=True, compress_keys=compress)
    assert mixer.init_state is not None
    params = mixer.init(jax.random.key(0))
    state = mixer.init_state(params, B, T)
    expected = diffqkv.cache_size(2, 8, 2 if compress else 4, 4)
    assert state.key.size + state.value.size == B * T * expected
    grouped = diffqkv.cache_size(16, 16, 64, 64)
    assert diffqkv.cache_size(4, 16, 64, 64) == grouped * (1 - 0.375)


def test_compressed_keys_are_led_back():
    mixer, params = made(compress_keys=True, key_heads=2, rotary=True)
    plain, _ = made(key_heads=2, rotary=True)
    narrow = params["key"].reshape(M, 2, 2)
    key = jnp.einsum("mgc,gcd->mgd", narrow, params["key_up"]).reshape(M, -1)
    same = {name: params[name] for name in ("query", "value", "output")} | {"key": key}
    near(mixer.apply(params, X), plain.apply(same, X), 1e-5)


def test_augmented_queries():
    mixer, params = made(query_hidden=36, activation="none")
    assert (params["query"].shape, params["query_up"].shape) == ((M, 36), (36, M))
    plain, _ = made()
    same = {name: params[name] for name in ("key", "value", "output")}
    near(
        mixer.apply(params, X),
        plain.apply(same | {"query": params["query"] @ params["query_up"]}, X),
    )
    bent = diffqkv.augmented_query(X, params["query"], params["query_up"])
    hidden = np.asarray(X @ params["query"])
    near(bent, hidden / (1 + np.exp(-hidden)) @ np.asarray(params["query_up"]), 1e-5)


def test_few_values():
    key, value, mask = K[:, :, :2], V[:, :, :3], jattn.masks.causal()
    exact = diffqkv.diffqkv_attention(Q, key, value, mask=mask)
    near(diffqkv.diffqkv_attention(Q, key, value, top_values=T + 3, mask=mask), exact)
    _, weights = jattn.attend(Q, key, value, mask=mask, return_weights=True)
    for k in (1, 3):
        found = diffqkv.diffqkv_attention(Q, key, value, top_values=k, mask=mask)
        cut = np.sort(weights, -1)[..., -k : -k + 1 or None][..., :1]
        kept = np.where(weights >= cut, weights, 0)
        near(found, np.einsum("bhts,bshe->bthe", kept, jnp.repeat(value, 2, axis=2)))
        left = np.swapaxes(1 - kept.sum(-1), 1, 2)[..., None]
        assert (np.abs(found - exact) <= left * np.abs(value).max() + 1e-6).all()
    # Hidden values may be anything.
    bad = value.at[:, -1].set(jnp.nan)
    found = diffqkv.diffqkv_attention(Q, key, bad, top_values=5, mask=mask)
    assert np.isfinite(found[:, :-1]).all()


def test_every_option_streams():
    mixer, params = made(
        key_heads=2, value_heads=3, compress_keys=True, query_hidden=10, top_values=3, rotary=True
    )
    assert mixer.init_state is not None
    assert mixer.step is not None
    state, step = mixer.init_state(params, B, T), jax.jit(mixer.step)
    whole = mixer.apply(params, X)
    for t in range(T):
        y, state = step(params, X[:, t], state)
        near(y, whole[:, t], 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_heads": 4}, "key_heads: expected a divisor of heads=6, got 4"),
        ({"value_heads": 0}, "value_heads: expected a divisor of heads=6, got 0"),
        ({"heads": 8, "compress_keys": True}, "compress_keys: needs an even dim / heads, got 24"),
        ({"query_hidden": 0}, "query_hidden: expected at least 1, got 0"),
        ({"top_values": 0}, "top_values: expected at least 1, got 0"),
        ({"activation": "x"}, "activation: expected one of 'silu', 'none', got 'x'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        diffqkv.make(**({"dim": M, "heads": H} | options))
