"""Softplus attention and its re-weighting: rows, limits, and what length does to them."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.softmax.reweighted_softplus_attention import reweighted_softplus_attention
from jattn.mechanisms.softmax.softplus_attention import softplus_attention

B, T, H, D = 2, 9, 2, 8
CAUSAL: Any = dict(mask=jattn.masks.causal(), visible_keys=jnp.arange(1, T + 1)[None])
UNITS = jnp.broadcast_to(jnp.eye(T)[:, None], (B, T, H, T))
Q, K, V = jax.random.normal(jax.random.key(0), (3, B, T, H, D))


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


def weights(attention, q=Q, k=K, **options):
    """`[b, h, t, s]`: what values of unit vectors become."""
    return np.swapaxes(attention(q, k, UNITS, **CAUSAL, **options), 1, 2)


def by_definition(q, k, power=None):
    """The paper's equations in float64, causal."""
    q, k = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=-1)[..., None] for x in (q, k))
    n = np.arange(1, T + 1)[:, None]
    seen = np.tril(np.ones((T, T)))
    p = np.log1p(np.exp(np.log(D) * np.log(n) * np.einsum("bthd,bshd->bhts", q, k))) * seen
    a = p / (p.sum(-1, keepdims=True) + 1e-8)
    if power is None:
        return a
    b = np.maximum(n * a - (n > 3), 0) ** power * seen
    return b / (b.sum(-1, keepdims=True) + 1e-8)


def test_against_the_definition():
    near(weights(softplus_attention), by_definition(Q, K))
    for power in (3, 15):
        near(weights(reweighted_softplus_attention, power=power), by_definition(Q, K, power), 1e-5)


def test_rows():
    plain = weights(softplus_attention)
    near(plain.sum(-1), 1.0)
    near(plain[:, :, 0, 0], 1.0)
    kept = weights(reweighted_softplus_attention, power=1)[:, :, 3:] > 0
    above = plain[:, :, 3:] * np.arange(4, T + 1)[:, None] > 1
    np.testing.assert_array_equal(kept, above)


def test_lengths_of_queries_and_keys_do_not_matter():
    stretch = jnp.exp(jax.random.normal(jax.random.key(1), (2, B, T, H, 1)))
    for attention in (softplus_attention, reweighted_softplus_attention):
        near(
            attention(Q * stretch[0], K * stretch[1], V, **CAUSAL),
            attention(Q, K, V, **CAUSAL),
            1e-5,
        )


def test_equal_keys():
    same = jnp.broadcast_to(K[:, :1], K.shape)
    n = np.arange(1, T + 1)[:, None]
    uniform = np.broadcast_to(np.tril(np.ones((T, T))) / n, (B, H, T, T))
    near(weights(softplus_attention, k=same), uniform)
    for power in (1, 3, 15):
        again = weights(reweighted_softplus_attention, k=same, power=power)
        near(again[:, :, :3], uniform[:, :, :3])
        np.testing.assert_array_equal(again[:, :, 3:], 0.0)


@pytest.mark.parametrize("n", [60, 700])
def test_equal_keys_of_long_sequences_give_exact_zeros(n):
    """At the first power, where rounding is not raised to nothing; in one piece and in blocks."""
    q, k, v = jax.random.normal(jax.random.key(4), (3, 1, n, 1, D))
    same = jnp.broadcast_to(k[:, :1], k.shape)
    seen = jnp.arange(1, n + 1)[None]
    mask = jattn.masks.causal()
    out = reweighted_softplus_attention(q, same, v, visible_keys=seen, power=1, mask=mask)
    mean = np.cumsum(np.asarray(v, np.float64), 1)[:, :3] / np.arange(1, 4)[:, None, None]
    near(out[:, :3], mean)
    np.testing.assert_array_equal(out[:, 3:], 0.0)


def test_first_power_without_offset_is_no_reweighting():
    again = weights(reweighted_softplus_attention, power=1, free_rows=T)
    near(again, weights(softplus_attention))


def test_high_powers_take_the_largest(x64):
    q, k = (jnp.asarray(x, jnp.float64) for x in (Q, K))
    again = weights(reweighted_softplus_attention, q, k, power=150, free_rows=T)
    largest = by_definition(Q, K).argmax(-1)
    gap = np.sort(by_definition(Q, K)[:, :, 1:], -1)
    clear = gap[..., -1] > 1.1 * gap[..., -2]
    assert clear.sum() > 10
    assert (again.argmax(-1) == largest)[:, :, 1:][clear].all()
    assert again.max(-1)[:, :, 1:][clear].min() > 0.999


def test_attention_does_not_thin_out_with_length():
    """One key at cosine 0.8 among n random ones: the weight on it, mean of 8 draws, no training."""
    d = 64

    @functools.partial(jax.jit, static_argnums=1)
    def weight(key, n):
        keys = jax.random.normal(key, (8, n, 1, d))
        keys /= jnp.linalg.norm(keys, axis=-1, keepdims=True)
        other = jax.random.normal(jax.random.fold_in(key, 1), (8, 1, 1, d))
        other -= (other * keys[:, :1]).sum(-1, keepdims=True) * keys[:, :1]
        other /= jnp.linalg.norm(other, axis=-1, keepdims=True)
        query = 0.8 * keys[:, :1] + 0.6 * other
        first = jnp.zeros((8, n, 1, 1)).at[:, 0].set(1.0)
        seen = jnp.full((1, 1), n)
        return (
            reweighted_softplus_attention(query, keys, first, visible_keys=seen).mean(),
            reweighted_softplus_attention(query, keys, first, visible_keys=seen, power=3).mean(),
            jattn.attend(query, keys, first, scale=8.0).mean(),
            softplus_attention(query, keys, first, visible_keys=seen).mean(),
        )

    # Computed apart, with other draws.
    expected = {
        256: (1.0, 0.74, 0.59, 0.051),
        1024: (1.0, 0.41, 0.27, 0.014),
        4096: (1.0, 0.14, 0.083, 0.0036),
        16384: (0.999, 0.038, 0.022, 0.0009),
    }
    for n, means in expected.items():
        again, *others = weight(jax.random.key(n), n)
        assert again >= 0.99
        np.testing.assert_allclose([again, *others], means, rtol=0.1)


def test_long_sequences_in_blocks():
    """The engine's other backend: the same numbers and gradients, row sums and powers included."""
    n = 600
    q, k, v, c = jax.random.normal(jax.random.key(2), (4, 1, n, 1, 4))
    seen = jnp.arange(1, n + 1)[None]

    def loss(q, k, v, length):
        mask = jattn.masks.causal()
        part = (q[:, :length], k, v)
        out = reweighted_softplus_attention(
            *part, visible_keys=seen[:, :length], power=3, mask=mask
        )
        return (out * c[:, :length]).sum()

    long = jattn.attention.explain(q, k, v, mask=jattn.masks.causal()).chosen
    short = jattn.attention.explain(q[:, :60], k, v, mask=jattn.masks.causal()).chosen
    assert (long, short) == ("blockwise", "reference")
    c = c.at[:, 60:].set(0.0)
    whole = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
    for a, b in zip(whole(q, k, v, n), whole(q, k, v, 60), strict=True):
        assert np.isfinite(a).all()
        near(a, b, 1e-5 * float(jnp.abs(b).max()))


def test_zero_queries_have_gradients():
    loss = lambda q: reweighted_softplus_attention(q, K, V, **CAUSAL).sum()
    assert np.isfinite(jax.grad(loss)(jnp.zeros_like(Q))).all()


def test_bad_powers_are_named(plain_checks):
    with pytest.raises(ValueError, match=re.escape("power: expected at least 1, got 0.5")):
        zoo.make("reweighted_softplus_attention", dim=8, heads=2, power=0.5)
    with pytest.raises(ValueError, match=re.escape("power: expected at least 1, got 0.5")):
        reweighted_softplus_attention(Q, K, V, power=0.5, **CAUSAL)


def test_powers_beyond_the_range_of_floats():
    # Scores far below zero, of which the power alone would be nothing, and far above.
    near_same = jnp.ones(D) + 0.1 * K

    @functools.partial(jax.jit, static_argnums=1)
    def loss(q, power):
        return (reweighted_softplus_attention(q, near_same, V, power=power, **CAUSAL) ** 2).sum()

    for sign in (-1, 1):
        for power in (15.0, 200.0):
            value, gradient = jax.value_and_grad(loss)(sign * near_same, power)
            assert value > 0.1
            assert np.isfinite(gradient).all()
            assert np.abs(gradient).max() > 1e-3
