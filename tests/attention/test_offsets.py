"""Queries that are a later stretch: masks and modifications by position know it, traced or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.attention import decode, scores

T, S, H = 70, 150, 2
OFFSETS = np.array([S - T, 13])


def arrays():
    rng = np.random.default_rng(0)
    shapes = ((2, T, H, 8), (2, S, H, 8), (2, S, H, 4))
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def expected(offsets, change):
    """Softmax in float64 with `change(head, distance)` added, causal at the offsets."""
    q, k, v = (np.asarray(x, np.float64) for x in arrays())
    apart = np.arange(S) - np.arange(T)[:, None] - np.asarray(offsets).reshape(-1, 1, 1)
    score = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8)
    score += np.stack([change(head, apart) for head in range(H)], 1)
    score = np.where(apart[:, None] <= 0, score, -np.inf)
    weight = np.exp(score - score.max(-1, keepdims=True))
    return np.einsum("bhts,bshe->bthe", weight / weight.sum(-1, keepdims=True), v)


def no_change(head, apart):
    return 0.0 * apart


def test_offsets_of_any_kind(implementation):
    query, key, value = arrays()

    @jax.jit
    def run(offsets):
        options = {"implementation": implementation}
        return (
            attend(query, key, value, mask=masks.causal(offsets), **options),
            attend(query, key, value, mask=masks.causal(offsets[0]), **options),
            attend(query, key, value, mask=masks.causal(align="end"), **options),
            attend(
                query, key, value, mask=masks.causal(offsets) & masks.sliding_window(9, 0, offsets),
                score_mod=scores.alibi(H, offset=offsets), **options,
            ),
        )  # fmt: skip

    each, one, end, window = run(jnp.asarray(OFFSETS))
    np.testing.assert_allclose(each, expected(OFFSETS, no_change), atol=2e-6)
    np.testing.assert_allclose(one, expected(OFFSETS[:1], no_change), atol=2e-6)
    np.testing.assert_allclose(end, expected(OFFSETS[:1], no_change), atol=2e-6)
    slopes = [0.0625, 0.00390625]

    def near(head, apart):
        return np.where(apart > -9, -slopes[head] * np.abs(apart), -np.inf)

    np.testing.assert_allclose(window, expected(OFFSETS, near), atol=2e-6)
    # Known at once, for each batch entry.
    known = attend(query, key, value, mask=masks.causal(OFFSETS), implementation=implementation)
    np.testing.assert_allclose(known, each, atol=2e-6)


def gradual(seed=0):
    return -np.abs(np.random.default_rng(seed).standard_normal((2, S, H)))


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
@pytest.mark.parametrize("name", ["relative_bias", "t5_buckets", "decay", "chain", "own offset"])
def test_modifications_take_the_offset_of_the_mask(name, implementation):
    query, key, value = arrays()
    rng = np.random.default_rng(1)
    table, buckets = rng.standard_normal((H, 9)), rng.standard_normal((8, H))
    sums = np.cumsum(gradual(), 1)
    mask = masks.causal(OFFSETS)

    def relative(head, apart):
        return table[head, np.clip(apart, -4, 4) + 4]

    def bucketed(head, apart):
        # 8 buckets: distances 0 to 3, then [4, 8), [8, 16), [16, 32), and beyond.
        distance = np.maximum(-apart, 0)
        bucket = np.where(
            distance < 4, distance, 4 + np.searchsorted([8, 16, 32], distance, "right")
        )
        return buckets[bucket, head]

    def decayed(head, apart):
        at = np.arange(T)[:, None] + OFFSETS[:, None, None]
        entry = np.arange(2)[:, None, None]
        return sums[entry, np.minimum(at, S - 1), head] - sums[entry, np.arange(S), head]

    learned = jnp.asarray(table, jnp.float32)
    t5 = scores.t5_buckets(jnp.asarray(buckets, jnp.float32), bidirectional=False, max_distance=64)
    mod, want = {
        "relative_bias": (scores.relative_bias(learned), relative),
        "t5_buckets": (t5, bucketed),
        "decay": (scores.decay(jnp.asarray(gradual(), jnp.float32)), decayed),
        "chain": (
            scores.chain(scores.relative_bias(learned), scores.alibi(H)),
            lambda head, apart: relative(head, apart) - [0.0625, 0.00390625][head] * np.abs(apart),
        ),
        "own offset": (
            scores.relative_bias(learned, offset=2),
            lambda head, apart: relative(head, apart + OFFSETS[:, None, None] - 2),
        ),
    }[name]
    out = attend(query, key, value, mask=mask, score_mod=mod, implementation=implementation)
    np.testing.assert_allclose(out, expected(OFFSETS, want), atol=3e-6)
    if name == "own offset":
        return
    # A step of decoding: the last query of each sequence against the keys up to its own.
    last = decode(query[:, -1], key, value, jnp.asarray(OFFSETS + T), score_mod=mod)
    np.testing.assert_allclose(last, out[:, -1], atol=3e-6)


def test_parts_of_a_mask_with_different_offsets_leave_no_position(plain_checks):
    query, key, value = arrays()
    mask = masks.causal(3) & masks.sliding_window(5)
    with pytest.raises(ValueError, match=r"mask: its parts have different offsets, .* own offset="):
        attend(query, key, value, mask=mask, score_mod=scores.alibi(H))
    own = scores.alibi(H, offset=3)
    assert attend(query, key, value, mask=mask, score_mod=own).shape == (2, T, H, 4)


def test_decays_are_exact_after_resets_and_after_much_is_forgotten():
    """Against sums of each stretch alone, in float64."""
    steps = gradual()
    steps[0, 40, 0], steps[0, 90, 0], steps[1, 40, 1] = -np.inf, -1e9, -1e9
    mod = scores.decay(jnp.asarray(steps, jnp.float32))
    index = jnp.arange(S)
    zero = jnp.int32(0)
    one = lambda q, k: mod(jnp.float32(0), zero, zero, q, k)
    take = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    got = np.asarray(take(index, index))
    assert not np.isnan(got).any()
    for i, j in ((120, 95), (89, 41), (39, 2), (149, 140), (91, 90)):
        want = np.asarray(steps, np.float32)[0, j + 1 : i + 1, 0].astype(np.float64).sum()
        np.testing.assert_allclose(got[i, j], want, rtol=2e-6, atol=1e-5)
    assert (got[40:, :40] == -np.inf).all()
    assert (got[90:, 40:90] < -9e8).all()

    def loss(steps):
        x = arrays()[1]
        out = attend(x, x, x, mask=masks.causal(), score_mod=scores.decay(steps))
        return (out**2).sum()

    gradient = jax.grad(loss)(jnp.asarray(steps, jnp.float32))
    assert np.isfinite(np.asarray(gradient)).all()
    assert gradient[0, 40, 0] == 0
