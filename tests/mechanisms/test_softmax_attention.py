"""Softmax and sigmoid attention against plain NumPy, and what their options promise."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import masks
from jattn.mechanisms.softmax import sigmoid_attention, softmax_attention

B, T, M, H, G = 2, 7, 16, 4, 2
MAKERS = {"softmax": softmax_attention.make, "sigmoid": sigmoid_attention.make}
EVERYTHING: dict[str, dict[str, Any]] = {
    "softmax": dict(kv_heads=G, rotary=True, window=3, soft_cap=2.0, sink=True),
    "sigmoid": dict(kv_heads=1, rotary=True, bias=-1.5),
}


def tokens(seed: int, length: int = T) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (B, length, M))


def mixer_and_params(kind: str = "softmax", **options: Any):
    mixer = MAKERS[kind](dim=M, heads=H, **options)
    return mixer._replace(apply=jax.jit(mixer.apply)), jax.jit(mixer.init)(jax.random.key(0))


def oracle(params, x, context, allowed, weigh, kv_heads=H):
    """The whole mixer in float64 NumPy, a loop over heads; `weigh(scores, allowed) -> weights`."""
    p = {name: np.asarray(array, np.float64) for name, array in params.items()}
    x, context = np.asarray(x, np.float64), np.asarray(context, np.float64)
    d = M // H
    out = np.zeros((*x.shape[:2], M))
    for h in range(H):
        g = h * kv_heads // H
        q = x @ p["query"][:, h * d : (h + 1) * d]
        k = context @ p["key"][:, g * d : (g + 1) * d]
        v = context @ p["value"][:, g * d : (g + 1) * d]
        out[:, :, h * d : (h + 1) * d] = weigh(q @ k.swapaxes(1, 2) / d**0.5, allowed, h) @ v
    return out @ p["output"]


def softmax(scores, allowed, head, sink=None):
    weights = np.exp(scores) * allowed
    return weights / (weights.sum(-1, keepdims=True) + (0 if sink is None else np.exp(sink[head])))


def near(a, b, tolerance=3e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


CAUSAL = np.tril(np.ones((T, T)))
BAND = CAUSAL - np.tril(np.ones((T, T)), -3)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"kv_heads": G}, np.ones((T, T))),
        ({"causal": True, "kv_heads": 1}, CAUSAL),
        ({"causal": True, "window": 3}, BAND),
        ({"window": 3}, np.maximum(BAND, BAND.T)),
    ],
)
def test_softmax_against_numpy(options, allowed):
    mixer, params = mixer_and_params(**options)
    expected = oracle(params, tokens(1), tokens(1), allowed, softmax, options.get("kv_heads", H))
    near(mixer.apply(params, tokens(1)), expected)


def test_soft_cap_and_sink_against_numpy():
    mixer, params = mixer_and_params(soft_cap=0.5, sink=True)
    assert not np.any(params["sink"])
    sink = np.array([0.0, 1.0, -1.0, 2.0])
    params = params | {"sink": jnp.asarray(sink, jnp.float32)}
    capped = lambda s, allowed, h: softmax(0.5 * np.tanh(s / 0.5), allowed, h, sink)
    near(mixer.apply(params, tokens(1)), oracle(params, tokens(1), tokens(1), 1.0, capped))


@pytest.mark.parametrize("kind", MAKERS)
def test_cross_attention_with_padding_against_numpy(kind):
    mixer, params = mixer_and_params(kind)
    real = np.arange(5) < np.array([[5], [3]])

    def sigmoid(scores, allowed, head):
        return allowed / (1 + allowed.sum(-1, keepdims=True) * np.exp(-scores))

    weigh = softmax if kind == "softmax" else sigmoid
    expected = oracle(params, tokens(1), tokens(2, 5), real[:, None], weigh)
    near(mixer.apply(params, tokens(1), context=tokens(2, 5), mask=jnp.asarray(real)), expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_grouped_heads_are_repeated_heads(kind):
    grouped, params = mixer_and_params(kind, kv_heads=G)
    full, _ = mixer_and_params(kind)
    repeat = lambda w: jnp.repeat(w.reshape(M, G, -1), H // G, axis=1).reshape(M, M)
    repeated = params | {name: repeat(params[name]) for name in ("key", "value")}
    near(grouped.apply(params, tokens(1)), full.apply(repeated, tokens(1)), 1e-6)


@pytest.mark.parametrize("kind", MAKERS)
def test_rotary_sees_differences_of_positions_only(kind):
    mixer, params = mixer_and_params(kind, rotary=True)
    apply = lambda positions: mixer.apply(params, tokens(1), positions=positions)
    here = jnp.broadcast_to(jnp.arange(T), (B, T))
    near(apply(here), mixer.apply(params, tokens(1)), 1e-6)
    near(apply(here), apply(here + jnp.array([[11], [5]])), 2e-5)
    assert np.abs(apply(here) - apply(2 * here)).max() > 1e-3


@pytest.mark.parametrize("kind", MAKERS)
def test_steps_are_the_whole_with_every_option(kind, x64):
    mixer, params = mixer_and_params(kind, causal=True, **EVERYTHING[kind])
    if "sink" in params:
        params["sink"] = jnp.arange(4.0)
    x = tokens(1)

    @jax.jit
    def steps(params, x):
        def step(state, token):
            y, state = mixer.step(params, token, state)
            return state, y

        return jax.lax.scan(step, mixer.init_state(params, B, T), x)[1]

    longer = jnp.concatenate([x, x[:, :1]], 1)
    stepped = steps(params, jnp.moveaxis(longer, 1, 0)).swapaxes(0, 1)
    assert stepped.dtype == jnp.float64
    whole = mixer.apply(params, longer)
    near(stepped[:, :T], whole[:, :T], 1e-13)
    if "window" in EVERYTHING[kind]:  # Its cache goes round.
        near(stepped[:, T], whole[:, T], 1e-13)
    else:  # No room for one more.
        assert np.isnan(np.asarray(stepped[:, T])).all()


def test_the_cache_has_the_type_of_the_parameters():
    mixer, params = mixer_and_params(causal=True, kv_heads=1)
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    assert mixer.init_state is not None
    assert {a.dtype for a in mixer.init_state(narrow, B, 3)[:2]} == {jnp.dtype("bfloat16")}
    assert mixer.init_state(params, B, 3).key.shape == (B, 3, 1, M // H)


def test_masks_of_every_kind_agree():
    _, params = mixer_and_params()
    mixer = softmax_attention.make(dim=M, heads=H)
    values = jnp.arange(T)[:, None] >= jnp.arange(T)
    expected = mixer_and_params(causal=True)[0].apply(params, tokens(1))
    near(mixer.apply(params, tokens(1), mask=masks.causal()), expected, 1e-6)
    near(mixer.apply(params, tokens(1), mask=values[None, None]), expected, 1e-6)


def test_sigmoid_starts_as_an_average():
    """With scores of zero the weights are 1 / (1 + n), n the number of keys that are seen."""
    mixer, params = mixer_and_params("sigmoid", causal=True)
    params = params | {"query": jnp.zeros((M, M))}
    n = np.arange(1, T + 1)[:, None]
    values = np.asarray(tokens(1) @ params["value"])
    near(
        mixer.apply(params, tokens(1)),
        np.cumsum(values, 1) / (1 + n) @ np.asarray(params["output"]),
    )
    paper, _ = mixer_and_params("sigmoid", causal=True, bias=-float(np.log(T)))
    near(
        paper.apply(params, tokens(1)),
        np.cumsum(values, 1) / (1 + T) @ np.asarray(params["output"]),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads: expected a divisor of dim=16, got 3"),
        ({"kv_heads": 3}, "kv_heads: expected a divisor of heads=4, got 3"),
        ({"heads": 16, "rotary": True}, "rotary: needs an even dim / heads, got 16 / 16 = 1"),
        ({"window": 0}, "window: expected at least 1, got 0"),
        ({"soft_cap": 0.0}, "soft_cap: expected a positive number, got 0.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        softmax_attention.make(**({"dim": M, "heads": H} | options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": jnp.ones((B, 5, M + 1))}, "context: expected shape [b=2, s=5, m=16]"),
        ({"context": jnp.ones((1, 5, M))}, "context: expected shape [b=2, s=5, m=16]"),
        ({"positions": jnp.zeros((B, 3), int)}, "positions: expected shape [b=2, t=7]"),
        ({"mask": jnp.ones((B, 3), bool)}, "mask: expected shape [b=2, s=7], got [2, 3]"),
        ({"mask": jnp.ones((B, 1, T, 3), bool)}, "mask: "),
    ],
)
def test_bad_arguments_are_named(plain_checks, arguments, message):
    mixer, params = mixer_and_params()
    with pytest.raises(ValueError, match=re.escape(message)):
        mixer.apply(params, tokens(1), **arguments)


def test_rotary_refuses_a_context(plain_checks):
    mixer, params = mixer_and_params(rotary=True)
    with pytest.raises(ValueError, match="context: softmax_attention with rotary positions"):
        mixer.apply(params, tokens(1), context=tokens(2))
