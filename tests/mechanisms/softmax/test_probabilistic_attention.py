"""Probabilistic attention and its splitter: the dense form, limits of p, segments that overlap."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jattn
from jattn.mechanisms import zoo
from jattn.mechanisms.softmax import probabilistic_attention as probabilistic
from jattn.mechanisms.softmax import segment_splitter as splitter

B, T, H, D = 2, 6, 2, 3


def draw():
    with jax.enable_x64(False):
        query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, H, D))
        existence = jax.random.uniform(jax.random.key(1), (B, T), minval=0.05)
    return query, key, value, existence


Q, K, V, P = draw()
attention = jax.jit(probabilistic.probabilistic_attention)


def near(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("keys", [T, 4])
def test_against_the_dense_form_with_gradients(keys):
    key, value, of_keys = K[:, :keys, :1], V[:, :keys], P[:, :keys] ** 2

    def dense(q, k, v, p_q, p_k):
        scores = jnp.einsum("bthd,bsgd->bhts", q, k) / D**0.5
        later = jnp.arange(keys) > jnp.arange(T)[:, None]
        odds = jnp.log(p_k)[:, None] - jnp.log(p_q)[..., None]
        scores = scores + jnp.where(later, odds, 0)[:, None]
        return jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(scores, axis=-1), v)

    args = (Q, key, value, P, of_keys)
    cotangent = jnp.cos(jnp.arange(Q.size)).reshape(Q.shape)
    found, expected = (
        jax.jit(lambda *a, f=f: (f(*a), jax.vjp(f, *a)[1](cotangent)))(*args)
        for f in (probabilistic.probabilistic_attention, dense)
    )
    jax.tree.map(lambda a, b: near(a, b, 2e-5), found, expected)


def test_only_ratios_count_and_certainty_is_a_mask():
    hard = jnp.array([[1.0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])
    there = (hard > 0)[:, None, None]
    window = jattn.masks.sliding_window(2, 1)

    @jax.jit
    def run():
        plain, masked = jattn.attend(Q, K, V), jattn.attend(Q, K, V, mask=window & there)
        both = probabilistic.probabilistic_attention(Q, K, V, hard, hard, mask=window)
        return plain, jattn.attend(Q, K, V, mask=there), masked, both

    plain, padded, masked, both = run()
    constant = jnp.full((B, T), 0.3)
    near(attention(Q, K, V, constant, constant), plain)
    near(attention(Q, K, V, P, P), attention(Q, K, V, P / 7, P / 7), 1e-5)
    exists = hard[..., None, None] > 0
    near(attention(Q, K, V, hard, hard), jnp.where(exists, padded, 0))
    near(both, jnp.where(exists, masked, 0))


def test_a_key_that_fades_is_masked_for_those_before_it_only():
    k = 3
    one = jnp.ones((B, T))
    plain = attention(Q, K, V, one, one)
    hidden = jattn.attend(Q, K, V, mask=jnp.arange(T) != k)
    gaps = []
    for p in (1e-2, 1e-4, 1e-6):
        found = attention(Q, K, V, one, one.at[:, k].set(p))
        gaps.append(np.abs(found - hidden)[:, :k].max())
        near(found[:, k:], plain[:, k:])
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2] / 2

    def total(p_k, q):
        return attention(Q, K, V, P, p_k)[:, q].sum()

    slope = jax.jit(jax.vmap(jax.grad(total), (None, 0)))(P, jnp.arange(T))  # [query, b, key]
    touched = np.abs(slope).max(1)
    assert (touched[np.tril_indices(T)] == 0).all()
    assert (touched[np.triu_indices(T, 1)] > 0).all()


def test_gradients_are_finite_for_small_and_zero_p():
    p = jnp.array([[1.0, 1e-2, 1e-4, 1e-6, 0.0, 0.0]])
    p = jnp.broadcast_to(p, (B, T))
    loss = lambda *a: jnp.sin(probabilistic.probabilistic_attention(*a)).sum()
    slopes = jax.jit(jax.grad(loss, (0, 1, 2, 3, 4)))(Q, K, V, p, p)
    assert all(np.isfinite(g).all() for g in slopes)
    assert not slopes[2][:, 4:].any()
    assert not slopes[4][:, 4:].any()


def test_endless_sequences_can_be_cut_off():
    """With p_k = r^k an attention over more keys differs by the mass that was left out, ~ r^n."""
    r, long = 0.5, 48
    query, key, value = jax.random.normal(jax.random.key(2), (3, 1, long, 1, D))
    p = r ** jnp.arange(long, dtype=jnp.float32)[None]
    run = jax.jit(lambda n: attention(query, key, value, p, jnp.where(jnp.arange(long) < n, p, 0)))
    whole = run(long)[:, 0]
    for n in (4, 8, 12, 16):
        assert np.abs(run(n)[:, 0] - whole).max() < 60 * r**n
    assert np.abs(run(4)[:, 0] - whole).max() > 100 * np.abs(run(16)[:, 0] - whole).max()


def test_certain_beginnings_cut_exactly():
    bos = jnp.array([[1.0, 0, 1, 0, 0, 1], [0.0, 0, 0, 0, 1, 0]])

    @jax.jit
    def run(bos):
        starts = splitter.segment_starts(bos, max_length=T)
        segments = splitter.cut(bos, starts, length=T, count=3)
        rows = jnp.arange(B)[:, None, None]
        pick = lambda x: x[rows, segments.index].reshape(B * 3, T, *x.shape[2:])
        p = segments.existence.reshape(B * 3, T)
        inside = attention(pick(Q), pick(K), pick(V), p, p).reshape(B, 3, T, H * D)
        whole = splitter.stitch(segments, inside, T).reshape(Q.shape)
        expected = jattn.attend(Q, K, V, mask=jattn.masks.segments(jnp.cumsum(starts, 1)))
        return segments, splitter.existence_shares(segments, T), whole, expected

    segments, shares, whole, expected = run(bos)
    np.testing.assert_array_equal(segments.existence.sum(-1), [[2, 3, 1], [4, 2, 0]])
    np.testing.assert_array_equal(shares, segments.existence)
    near(whole, expected)


def test_segments_overlap_and_share():
    bos = np.asarray(0.6 * P)

    @jax.jit
    def run(bos):
        starts = splitter.segment_starts(bos, max_length=2)
        segments = splitter.cut(bos, starts, length=4, count=4)
        same = jnp.broadcast_to(jnp.arange(3.0), (B, 4, 4, 3))
        shares = splitter.existence_shares(segments, T)
        return *segments, shares, splitter.stitch(segments, same, T)

    indices, existence, shares, stitched = map(np.asarray, run(bos))
    total = np.zeros((B, T + 1))
    for row, n, place in np.ndindex(shares.shape):
        index, first = indices[row, n, place], indices[row, n, 0]
        total[row, index] += shares[row, n, place]
        p = np.prod(1 - bos[row, first + 1 : index + 1]) if index < T else 0
        assert existence[row, n, place] == pytest.approx(p, abs=1e-6)
    near(total[:, :T], 1, 1e-6)
    near(stitched, np.broadcast_to(np.arange(3.0), (B, T, 3)), 1e-5)


def test_starts_are_drawn_and_none_is_far_from_the_next():
    bos = jnp.full((64, 60), 0.2)
    starts = splitter.segment_starts(bos, max_length=7, key=jax.random.key(0))
    assert starts[:, 0].all()
    gaps = [np.diff(np.flatnonzero(row)) for row in starts]
    assert max(gap.max() for gap in gaps) == 7
    # A gap is a geometric number, or 7: (1 - 0.8^7) / 0.2 tokens in the mean.
    near(np.concatenate(gaps).mean(), (1 - 0.8**7) / 0.2, 0.25)
    assert splitter.segment_starts(bos, max_length=7).sum() == 64 * 9


def test_bos_learns_through_the_segments(x64):
    """The gradient of what is computed from cut segments, against differences."""
    q, k, v = (x.astype(jnp.float64) for x in (Q, K, V))
    logits = jnp.log(P.astype(jnp.float64))
    starts = jnp.zeros((B, T), bool).at[:, jnp.array([0, 2])].set(True)

    @jax.jit
    def value(logits):
        bos = splitter.beginning_probabilities(logits)
        segments = splitter.cut(bos, starts, length=4, count=2)
        rows = jnp.arange(B)[:, None, None]
        pick = lambda x: x[rows, segments.index].reshape(B * 2, 4, H, D)
        p = segments.existence.reshape(B * 2, 4)
        out = attention(pick(q), pick(k), pick(v), p, p)
        return jnp.sin(splitter.stitch(segments, out.reshape(B, 2, 4, -1), T)).sum()

    direction = jnp.cos(jnp.arange(B * T, dtype=jnp.float64)).reshape(B, T)
    slope = (jax.grad(value)(logits) * direction).sum()
    measured = (value(logits + 1e-5 * direction) - value(logits - 1e-5 * direction)) / 2e-5
    assert float(slope) == pytest.approx(float(measured), rel=1e-6)


def test_options_of_the_mixer():
    x = jax.random.normal(jax.random.key(3), (B, T, 8))
    make = lambda **options: zoo.make("probabilistic_attention", dim=8, heads=H, **options)
    plain, other = make(), make(exclusive=True, rotary=True, kv_heads=1, max_segment_length=12)
    params = other.init(jax.random.key(0))
    near(jax.nn.sigmoid(params["splitter_bias"]), 1 / 6)
    output = jnp.eye(8)  # the heads themselves
    inside = jax.jit(other.apply)(params | {"output": output}, x).reshape(B, T, H, 4)
    near((inside * (x @ params["value"])[:, :, None]).sum(-1), 0, 1e-5)
    # Segments that never end: softmax attention, up to what bos >= 1e-4 leaves.
    params, apply = plain.init(jax.random.key(0)), jax.jit(plain.apply)
    softmax = zoo.make("softmax_attention", dim=8, heads=H).apply(params, x)
    gap = lambda bias: np.abs(apply(params | {"splitter_bias": bias}, x) - softmax).max()
    assert gap(jnp.full(1, -40.0)) < 1e-3
    assert gap(jnp.zeros(1)) > 1e-2


def test_bad_input_is_named(plain_checks):
    for call, message in (
        (lambda: attention(Q, K, V, P, P[:, 1:]), "key_existence: expected shape [b=2, s=6]"),
        (lambda: splitter.initial_bias(2), "max_length: expected at least 3, got 2"),
        (
            lambda: probabilistic.make(dim=8, heads=2, max_segment_length=2),
            "max_segment_length: expected at least 3, got 2",
        ),
        (lambda: probabilistic.make(dim=6, heads=2, rotary=True), "rotary: needs an even dim"),
        (lambda: splitter.segment_starts(P, max_length=0), "max_length: expected at least 1"),
        (lambda: splitter.cut(P, P > 0, length=2, count=0), "count: expected at least 1, got 0"),
        (lambda: splitter.cut(P, P[1:] > 0, length=2, count=1), "starts: expected shape"),
        (
            lambda: zoo.make("probabilistic_attention", dim=8, heads=2, causal=True),
            "causal: probabilistic_attention has no causal form",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
