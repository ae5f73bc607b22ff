"""Gated attention: what gates at their limits give, and who sees what in the five places."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.combinators import gate, gated
from jattn.mechanisms.softmax import gated_attention

B, T, M, H = 2, 6, 16, 4
X = jax.random.normal(jax.random.key(1), (B, T, M))
PLAIN = ("query", "key", "value", "output")


def made(**options: Any):
    mixer = gated_attention.make(dim=M, heads=H, **{"causal": True, **options})
    return mixer, mixer.init(jax.random.key(0))


def gate_name(params):
    return next(iter(set(params) - {*PLAIN, "query_norm", "key_norm"}))


def plain(params, **options):
    mixer = zoo.make("softmax_attention", dim=M, heads=H, **{"causal": True, **options})
    return mixer.apply({name: params[name] for name in PLAIN}, X)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize(("granularity", "shared"), [("element", False), ("head", True)])
@pytest.mark.parametrize("position", gated_attention.POSITIONS)
def test_gates_of_zero_logits(position, granularity, shared):
    """They halve softmax attention behind the scores, and quarter the scores' half before them."""
    options: Any = dict(position=position, granularity=granularity, shared=shared, kv_heads=2)
    mixer, params = made(**options)
    name = gate_name(params)
    heads = {"G1": H, "G2": 2, "G3": 2, "G4": H, "G5": 1}[position]
    size = M if position == "G5" else M // H
    columns = (1 if shared else heads) * (size if granularity == "element" else 1)
    assert params[name].shape == (M, columns)
    params[name] = jnp.zeros_like(params[name])
    if position in ("G3", "G4"):
        side = {"G3": "key", "G4": "query"}[position]
        near(mixer.apply(params, X), plain(params | {side: params[side] / 2}, kv_heads=2))
    else:
        near(mixer.apply(params, X), plain(params, kv_heads=2) / 2)
        wide, _ = made(**options, activation="ns_sigmoid")
        near(wide.apply(params, X), 0.75 * plain(params, kv_heads=2))
    added, _ = made(**options, activation="identity", mode="add")
    near(added.apply(params, X), plain(params, kv_heads=2))


def test_what_opens_a_gate():
    z, y = np.linspace(-3, 3, 7), np.linspace(1, 2, 7)
    sigmoid = 1 / (1 + np.exp(-z))
    opened = {
        "sigmoid": sigmoid,
        "silu": z * sigmoid,
        "identity": z,
        "ns_sigmoid": (1 + sigmoid) / 2,
    }
    for activation, value in opened.items():
        for mode, expected in {"multiply": y * value, "add": y + value}.items():
            arrays = (jnp.asarray(a, jnp.float32)[:, None] for a in (y, z))
            near(gate(*arrays, activation=activation, mode=mode)[:, 0], expected)
    near(gate(jnp.ones((7, 1)), jnp.asarray(z, jnp.float32)[:, None])[:, 0], sigmoid)


def test_open_and_closed_gates():
    # A constant channel in x makes a large logit of either sign.
    x = X.at[..., 0].set(1.0)
    for position in gated_attention.POSITIONS:
        mixer, params = made(position=position, granularity="head")
        name = gate_name(params)
        opened, closed = (
            mixer.apply(params | {name: jnp.zeros_like(params[name]).at[0].set(size)}, x)
            for size in (1e3, -1e3)
        )
        softmax = zoo.make("softmax_attention", dim=M, heads=H, causal=True)
        own = {name: params[name] for name in PLAIN}
        near(opened, softmax.apply(own, x))
        uniform = np.cumsum(x @ params["value"], 1) / np.arange(1, T + 1)[:, None]
        near(closed, uniform @ params["output"] if position in ("G3", "G4") else 0.0)


def test_the_first_row_cannot_tell_the_value_gate_from_the_output_gate():
    before, params = made(position="G2", granularity="head")
    after, _ = made(position="G1", granularity="head")
    moved = {name: params[name] for name in PLAIN} | {"output_gate": params["gate"]}
    y_before, y_after = before.apply(params, X), after.apply(moved, X)
    near(y_before[:, 0], y_after[:, 0])
    assert np.abs(y_before[:, 1:] - y_after[:, 1:]).max() > 1e-2


def test_the_output_gate_looks_at_its_own_token_only():
    mixer, params = made(granularity="head", causal=False)
    identity = params | {"output": jnp.eye(M)}

    def ratio(x):
        open_gate = identity | {"output_gate": jnp.zeros((M, H))}
        y = mixer.apply(identity, x) / (2 * mixer.apply(open_gate, x))
        return y.reshape(T, H, -1)[..., 0]

    jacobian = np.abs(jax.jit(jax.jacobian(ratio))(X[:1])[:, :, 0]).max((1, 3))
    near(jacobian * (1 - np.eye(T)), 0.0, 1e-4)
    assert np.diag(jacobian).min() > 1e-3
    # Other tokens' order is nothing to it: only queries are gated.
    turned = jnp.roll(X, 2, axis=1)
    near(mixer.apply(params, X, context=turned), mixer.apply(params, X))


def test_norms_of_queries_and_keys_cancel_gates_of_whole_heads():
    mixer, params = made(position="G3", granularity="head", qk_norm=True, rotary=True)
    assert params["query_norm"].shape == (M // H,)
    near(mixer.apply(params, X), mixer.apply(params | {"gate": 0.5 * params["gate"]}, X), 1e-4)
    q, k, v = (np.asarray(X @ params[name]).reshape(B, T, H, -1) for name in PLAIN[:3])
    q, k = (a / np.sqrt((a**2).mean(-1, keepdims=True)) for a in (q, k))
    flat, _ = made(qk_norm=True)
    scores = np.einsum("bthd,bshd->bhts", q, k) / 2
    weights = np.exp(scores) * np.tril(np.ones((T, T)))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bshd->bthd", weights, v).reshape(B, T, M)
    half = params | {"output_gate": jnp.zeros((M, M))}
    del half["gate"]
    near(flat.apply(half, X), mixed @ np.asarray(params["output"]) / 2, 1e-4)


@pytest.mark.parametrize(("name", "position"), [("retention", "G1"), ("linear_attention", "G5")])
def test_any_mixer_can_be_gated(name, position):
    inner = zoo.make(name, dim=M, heads=H, causal=True)
    mixer = gated(inner, dim=M, heads=H, position=position, shared=True)
    assert mixer.init_state is not None
    assert mixer.step is not None
    params = mixer.init(jax.random.key(0))
    own = {k: v for k, v in params.items() if k != "output_gate"}
    closed = params | {"output_gate": jnp.zeros_like(params["output_gate"])}
    near(mixer.apply(closed, X), inner.apply(own, X) / 2)
    state, step = mixer.init_state(params, B, T), jax.jit(mixer.step)
    for t in range(3):
        y, state = step(params, X[:, t], state)
    near(y, mixer.apply(params, X)[:, 2], 1e-5)


def test_bad_options_are_named(plain_checks):
    for option, message in {
        "position": "position: expected one of 'G1', 'G2', 'G3', 'G4', 'G5', got 'x'",
        "granularity": "granularity: expected one of 'element', 'head', got 'x'",
        "activation": "activation: expected one of 'sigmoid', ",
        "mode": "mode: expected one of 'multiply', 'add', got 'x'",
    }.items():
        wrong: Any = {option: "x"}
        with pytest.raises(ValueError, match=re.escape(message)):
            gated_attention.make(dim=M, heads=H, **wrong)
        if option in ("activation", "mode"):
            with pytest.raises(ValueError, match=re.escape(message)):
                gate(X[..., None], X[..., None], **wrong)
    twice = gated(gated_attention.make(dim=M, heads=H), dim=M, heads=H)
    with pytest.raises(ValueError, match="mixer: expected one without a parameter 'output_gate'"):
        twice.init(jax.random.key(0))
