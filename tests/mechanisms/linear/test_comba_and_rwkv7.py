"""Comba, RWKV-7 and the gated delta rule with more values than queries: definitions and limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.mechanisms import zoo
from jattn.mechanisms.layers.norms import unit_norm
from jattn.mechanisms.linear.comba import comba
from jattn.mechanisms.linear.delta_rule import delta_rule
from jattn.mechanisms.linear.gated_delta_rule import gated_delta_rule
from jattn.mechanisms.linear.rwkv7 import rwkv7
from jattn.recurrence import recur, recur_low_rank

B, T, H, D = 2, 6, 2, 3


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.fixture
def arrays(x64):
    keys = jax.random.split(jax.random.key(0), 3)
    qkv = jax.random.normal(keys[0], (3, B, T, H, D), jnp.float64)
    channels = jax.random.uniform(keys[1], (3, B, T, H, D), jnp.float64)
    return tuple(qkv), tuple(channels)


def test_comba_is_its_loop(arrays):
    (query, key, value), (rates, _, _) = arrays
    beta, decay = rates[..., 0], -rates[..., 1]
    feedback, correction = np.array([0.3, 0.8]), np.array([0.1, -0.4])
    out = comba(query, key, value, beta, decay, jnp.asarray(feedback), jnp.asarray(correction))
    query, key = np.asarray(unit_norm(query)), np.asarray(unit_norm(key))
    for b in range(B):
        for h in range(H):
            state = np.zeros((D, D))
            for t in range(T):
                k = key[b, t, h]
                error = value[b, t, h] - feedback[h] * state.T @ k  # of what has not decayed
                state = np.exp(decay[b, t, h]) * state
                state = state + beta[b, t, h] * np.outer(k, error)
                close(out[b, t, h], state.T @ (query[b, t, h] - correction[h] * k))


def test_comba_is_the_delta_rules_at_their_feedback(arrays):
    (query, key, value), (rates, _, _) = arrays
    beta = rates[..., 0]
    kept, none = jnp.array([0.3, 0.9]), jnp.zeros(H)
    decay = jnp.broadcast_to(jnp.log(kept), (B, T, H))
    found = comba(query, key, value, beta, decay, kept, none)
    close(found, gated_delta_rule(query, key, value, beta, decay))
    found = comba(query, key, value, beta, jnp.zeros((B, T, H)), jnp.ones(H), none)
    close(found, delta_rule(query, key, value, beta))


def test_comba_stays_finite_where_a_token_forgets_all(arrays):
    """Decays whose inverse overflows, and -inf, where a document begins."""
    (query, key, value), (rates, _, _) = arrays
    feedback, correction = jnp.array([0.3, 0.8]), jnp.array([0.1, -0.4])
    run = lambda q, k, v, beta, decay: comba(q, k, v, beta, decay, feedback, correction)

    def of(at):
        decay = jnp.where(jnp.arange(T)[None, :, None] == 3, at, -rates[..., 1])
        loss = lambda key, decay: (run(query, key, value, rates[..., 0], decay) ** 2).sum()
        return jax.grad(loss, (0, 1))(key, decay), run(query, key, value, rates[..., 0], decay)

    rest = run(*(x[:, 3:] for x in (query, key, value, rates[..., 0], -rates[..., 1])))
    for at in (-1_000.0, -jnp.inf):
        (gradient, _), out = jax.jit(of)(at)
        close(out[:, 3:], rest)
        assert bool(jnp.isfinite(gradient).all())


def test_rwkv7_is_its_loop(arrays):
    (query, key, value), (decay, removal, rate) = arrays
    decay = -decay
    run = jax.jit(rwkv7, static_argnames="return_state")
    out, last = run(query, key, value, decay, removal, rate, return_state=True)
    removed = np.asarray(unit_norm(removal))
    state = np.zeros((B, H, D, D))
    for t in range(T):
        there = np.einsum("bhd,bhde->bhe", removed[:, t], state)
        state = np.exp(decay[:, t])[..., None] * state
        state = state - (rate * removed)[:, t, :, :, None] * there[:, :, None]
        state = state + key[:, t, :, :, None] * value[:, t, :, None]
        close(out[:, t], np.einsum("bhd,bhde->bhe", query[:, t], state))
    close(last, state)


def test_rwkv7_that_forgets_nothing_and_removes_all_is_the_delta_rule(arrays):
    (query, key, value), _ = arrays
    key, zero = unit_norm(key), jnp.zeros_like(key)
    found = rwkv7(unit_norm(query), key, value, zero, key, zero + 1)
    # Unit norms are guarded by 1e-6 under the root, and here there are two.
    expected = delta_rule(query, key, value, jnp.ones((B, T, H)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_document_that_begins_erases_nothing_of_the_one_before(arrays):
    """A decay of -inf, where the read key cannot be divided by what is kept."""
    (query, key, value), (decay, removal, rate) = arrays
    reset = jnp.where(jnp.arange(T)[None, :, None, None] == 3, -jnp.inf, -decay)
    run = lambda *a: recur_low_rank(*a[:3], decay=a[3], read_key=a[4], erase_key=a[5] * a[4])
    whole = jax.jit(run)(query, key, value, reset, removal, rate)
    rest = run(*(x[:, 3:] for x in (query, key, value, -decay, removal, rate)))
    close(whole[:, 3:], rest)
    gradient = jax.grad(lambda x: (run(query, key, value, reset, x, rate) ** 2).sum())(removal)
    assert bool(jnp.isfinite(gradient).all())


def test_several_values_for_a_query_and_its_key():
    sizes: dict[str, Any] = dict(dim=8, heads=2, causal=True)
    mixer = zoo.make("gated_delta_rule", **sizes, value_heads=4)
    params = mixer.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    # Values of two heads a query: the same as four heads with each query and key twice.
    twice = lambda w: jnp.repeat(w.reshape(8, 2, 4), 2, 1).reshape(8, 16)
    query, key = (
        unit_norm(jax.nn.silu(x @ twice(params[n])).reshape(B, T, 4, 4)) for n in ("query", "key")
    )
    value = jax.nn.silu(x @ params["value"]).reshape(B, T, 4, 4)
    step = jax.nn.softplus(x @ params["decay"] + params["decay_bias"])
    beta = jax.nn.sigmoid(x @ params["beta"])
    out = recur(query, key, value, decay=-step, beta=beta)
    out = out * jax.lax.rsqrt((out**2).mean(-1, keepdims=True) + 1e-6)
    out = out.reshape(B, T, 16) * 2 * jax.nn.sigmoid(x @ params["gate"])
    found = jax.jit(mixer.apply)(params, x)
    np.testing.assert_allclose(found, out @ params["output"], atol=2e-5)
    assert mixer.init_state is not None
    assert mixer.init_state(params, B, T).memory.shape == (B, 4, 4, 4)
    with pytest.raises(ValueError, match="value_heads: expected a multiple of heads=2, got 3"):
        zoo.make("gated_delta_rule", **sizes, value_heads=3)
