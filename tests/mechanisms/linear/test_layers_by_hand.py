"""Whole layers of recurrent mechanisms against loops in float64, from projections to output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.layers.gates import horizons, output_gate
from jattn.mechanisms.linear.retention import log_gamma

B, T, M, H = 2, 5, 8, 2
SIZE = M // H


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def silu(z):
    return z / (1 + np.exp(-z))


def unit(z):
    return z / np.sqrt((z**2).sum(-1, keepdims=True) + 1e-6)


def rotated(z, t):
    """Channels i and i + d/2 of each head, turned by t / 10000^(2 i / d)."""
    half = SIZE // 2
    angle = t / 10000.0 ** (np.arange(half) / half)
    first, second = z[:, :half], z[:, half:]
    turned = first * np.cos(angle) - second * np.sin(angle)
    return np.concatenate([turned, first * np.sin(angle) + second * np.cos(angle)], -1)


def delta_rule(params, x, t, memory):
    query, key, value = (silu(x @ params[n]).reshape(H, SIZE) for n in ("query", "key", "value"))
    query, key = unit(query), unit(key)
    beta = sigmoid(x @ params["beta"])[:, None]
    told = np.einsum("hde,hd->he", memory, key)
    memory = memory + np.einsum("hd,he->hde", key, beta * (value - told))
    return np.einsum("hde,hd->he", memory, query), memory


def gated_delta_rule(params, x, t, memory):
    step = np.log1p(np.exp(x @ params["decay"] + params["decay_bias"]))
    kept = np.exp(-np.exp(params["decay_log_rate"]) * step)
    return delta_rule(params, x, t, kept[:, None, None] * memory)


def gated_linear_attention(params, x, t, memory):
    query, key, value = ((x @ params[n]).reshape(H, SIZE) for n in ("query", "key", "value"))
    gate = sigmoid(x @ params["decay_down"] @ params["decay_up"] + params["decay_bias"])
    memory = (gate ** (1 / 16)).reshape(H, SIZE, 1) * memory
    memory = memory + np.einsum("hd,he->hde", key, value)
    return np.einsum("hde,hd->he", memory, query) / SIZE**0.5, memory


def retention(params, x, t, memory):
    query, key, value = ((x @ params[n]).reshape(H, SIZE) for n in ("query", "key", "value"))
    query, key = rotated(query, t), rotated(key, t)
    gamma = 1 - 2.0 ** -np.array([5.0, 9.0])  # of two heads; its logarithm is kept in float32
    gamma = np.exp(np.log(gamma).astype(np.float32).astype(np.float64))
    memory = gamma[:, None, None] * memory
    memory = memory + np.einsum("hd,he->hde", key, value)
    return np.einsum("hde,hd->he", memory, query) / SIZE**0.5, memory


def titans_memory(params, x, t, memory):
    """`M = (1 - a) M + S`, `S = eta S - theta grad |k M - v|^2`, the gradient at the last M."""
    weights, surprise = memory
    query, key, value = (silu(x @ params[n]).reshape(H, SIZE) for n in ("query", "key", "value"))
    query, key = unit(query), unit(key)
    theta, forget, momentum = sigmoid(x @ params["rates"] + params["rates_bias"]).reshape(
        3, H, 1, 1
    )
    error = np.einsum("hde,hd->he", weights, key) - value
    slope = 2 * np.einsum("hd,he->hde", key, error)
    surprise = momentum * surprise - 0.5 * theta * slope
    weights = (1 - forget) * weights + surprise
    return np.einsum("hde,hd->he", weights, query), (weights, surprise)


LAYERS = {
    "delta_rule": delta_rule,
    "gated_delta_rule": gated_delta_rule,
    "gated_linear_attention": gated_linear_attention,
    "retention": retention,
    "titans_memory": titans_memory,
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(x64, name):
    options = {"depth": 1, "refresh": 1} if name == "titans_memory" else {}
    mixer = zoo.make(name, dim=M, heads=H, causal=True, **options)
    # Larger than at first, so that no factor is near its limit.
    params = jax.tree.map(lambda p: 3.0 * p, mixer.init(jax.random.key(0)))
    x = np.asarray(jax.random.normal(jax.random.key(1), (B, T, M)), np.float64)
    found = jax.jit(mixer.apply)(jax.tree.map(jnp.float64, params), jnp.asarray(x))
    arrays = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    for row in range(B):
        memory = np.zeros((H, SIZE, SIZE))
        if name == "titans_memory":
            memory = (arrays["memory"]["weights"][0], memory)
        for t in range(T):
            out, memory = LAYERS[name](arrays, x[row, t], t, memory)
            out = out / np.sqrt((out**2).mean(-1, keepdims=True) + 1e-6)
            out = out.reshape(M)
            if "gate" in arrays:
                out = out * 2 * sigmoid(x[row, t] @ arrays["gate"])
            expected = out @ arrays["output"]
            np.testing.assert_allclose(found[row, t], expected, atol=1e-9)


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_some_head_keeps_the_whole_sequence_whatever_their_number(heads):
    """What tokens of zeros leave of a memory after 32 tokens: for one head nearly all."""
    dim = 4 * heads
    params = {
        name: zoo.make(name, dim=dim, heads=heads, causal=True).init(jax.random.key(0))
        for name in ("gated_delta_rule", "gated_linear_attention")
    }
    own = params["gated_delta_rule"]
    step = jax.nn.softplus(own["decay_bias"]) * jnp.exp(own["decay_log_rate"])
    channels = jax.nn.log_sigmoid(params["gated_linear_attention"]["decay_bias"]) / 16
    np.testing.assert_allclose(step, 1 / horizons(heads), rtol=1e-5)
    np.testing.assert_allclose(channels.reshape(heads, -1), -np.stack([step] * 4, 1), rtol=1e-5)
    for log_kept in (-step, log_gamma(heads)):
        assert np.exp(32 * log_kept.max()) > 0.93


def test_output_gates_begin_open():
    x = jax.random.normal(jax.random.key(1), (2, 50, 64))
    for name in ("retention", "gated_delta_rule", "gated_linear_attention", "yaad"):
        params = zoo.make(name, dim=64, heads=1, causal=True).init(jax.random.key(0))
        gate = output_gate(x, params["gate"])
        assert abs(gate.mean() - 1) < 0.05
        assert gate.min() > 0.1
