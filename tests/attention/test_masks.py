"""The mask algebra: every mask against its definition, summaries against the dense values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jattn import attend, masks

B, T, S = 2, 13, 9
I, J = np.arange(T)[:, None], np.arange(S)[None]
Q_IDS = np.array([[0] * 4 + [1] * 5 + [2] * 4, [3] * 13])
K_IDS = np.array([[0] * 4 + [1] * 5, [1, 3] * 4 + [3]])
VALUES = np.random.default_rng(0).random((B, 1, T, S)) < 0.5
LENGTHS = np.array([4, 7])
FIRST, LAST = np.sort(np.random.default_rng(1).integers(0, S, (2, B, T)), axis=0)
PLACE = np.random.default_rng(2).permuted(np.tile(np.arange(T + S), (B, 1)), axis=1)
CAUTIOUS = ("segments", "key_range", "positions")  # So may be combinations.

# name: (mask, its values by definition [#b, #h, t, s])
LEAVES = {
    "causal": (masks.causal(), (J <= I)[None, None]),
    "causal_offset": (masks.causal(S - T), (J <= I + S - T)[None, None]),
    "window": (masks.sliding_window(3), ((J <= I) & (J > I - 3))[None, None]),
    "open_before": (masks.sliding_window(None, 2), (J <= I + 2)[None, None]),
    "open_behind": (masks.sliding_window(2, None, 1), (J > I - 1)[None, None]),
    "key_range": (
        masks.key_range(FIRST, LAST),
        ((FIRST[..., None] <= J) & (LAST[..., None] >= J))[:, None],
    ),
    "positions": (
        masks.causal_positions(PLACE[:, :T], PLACE[:, T:]),
        (PLACE[:, :T, None] >= PLACE[:, None, T:])[:, None],
    ),
    "two_sided": (masks.sliding_window(2, 4, 1), ((J <= I + 5) & (J > I - 1))[None, None]),
    "prefix": (masks.prefix(5), np.broadcast_to(J < 5, (1, 1, T, S))),
    "prefixes": (
        masks.prefix(jnp.asarray(LENGTHS)),
        np.broadcast_to(LENGTHS[:, None, None, None] > J, (B, 1, T, S)),
    ),
    "segments": (
        masks.segments(jnp.asarray(Q_IDS), jnp.asarray(K_IDS)),
        (Q_IDS[:, :, None] == K_IDS[:, None])[:, None],
    ),
    "blocks": (masks.block_diagonal(4), (I // 4 == J // 4)[None, None]),
    "array": (masks.from_array(jnp.asarray(VALUES)), VALUES),
    "per_key": (masks.from_array(jnp.asarray(VALUES[:, :, :1])), VALUES[:, :, :1]),
}

tree = st.recursive(
    st.sampled_from(list(LEAVES)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("&|"), inner, inner), st.tuples(st.just("~"), inner)
    ),
    max_leaves=3,
)


def build(node, index):
    """The mask (index 0) or the values (index 1) of an expression."""
    if isinstance(node, str):
        return LEAVES[node][index]
    operator, *parts = node
    parts = [build(part, index) for part in parts]
    if operator == "~":
        return ~parts[0]
    return parts[0] & parts[1] if operator == "&" else parts[0] | parts[1]


def dense(mask):
    return np.broadcast_to(mask.pad(T, S).dense(T, S), (B, 1, T, S))


@pytest.mark.parametrize("name", LEAVES)
def test_each_mask_is_what_it_says(name):
    mask, values = LEAVES[name]
    np.testing.assert_array_equal(dense(mask), np.broadcast_to(values, (B, 1, T, S)))
    transposed = np.broadcast_to(mask.T.dense(S, T), (B, 1, S, T))
    np.testing.assert_array_equal(transposed.swapaxes(2, 3), dense(mask))


@settings(max_examples=40, deadline=None)
@given(tree, st.sampled_from([(4, 4), (5, 3), (1, 9), (16, 2)]))
def test_algebra_and_summaries(node, blocks):
    mask = build(node, 0)
    values = np.broadcast_to(build(node, 1), (B, 1, T, S))
    summary = mask.tiles(T, S, *blocks)
    assert isinstance(summary, np.ndarray)
    rows, columns = -(-T // blocks[0]), -(-S // blocks[1])
    assert summary.shape == (rows, columns)
    padded = mask.pad(rows * blocks[0], columns * blocks[1])
    for i, j in np.ndindex(rows, columns):
        place = (
            slice(i * blocks[0], (i + 1) * blocks[0]),
            slice(j * blocks[1], (j + 1) * blocks[1]),
        )
        part = values[:, :, place[0], place[1]]
        tile = padded.tile(i * blocks[0], j * blocks[1], *blocks)
        tile = np.broadcast_to(tile, (B, 1, *blocks))[:, :, : part.shape[2], : part.shape[3]]
        np.testing.assert_array_equal(tile, part)
        if summary[i, j] == masks.FULL:
            assert part.all()
        elif summary[i, j] == masks.EMPTY:
            assert not part.any()
        elif isinstance(node, str) and node not in CAUTIOUS:
            assert part.any()
            assert not part.all()


@pytest.mark.parametrize("name", LEAVES)
def test_masks_pass_through_jit_and_summarise_there_the_same(name):
    mask = LEAVES[name][0] & masks.causal(3)
    values, summary = jax.jit(lambda m: (m.dense(T, S), m.tiles(T, S, 4, 4)))(mask)
    np.testing.assert_array_equal(values, mask.dense(T, S))
    np.testing.assert_array_equal(summary, mask.tiles(T, S, 4, 4))


def test_bool_arrays_combine_with_masks():
    mask = masks.causal() & jnp.asarray(VALUES)
    np.testing.assert_array_equal(dense(mask), (J <= I) & VALUES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masks.sliding_window(0), "left: expected at least 1, got 0"),
        (lambda: masks.sliding_window(2, -1), "right: expected at least 0, got -1"),
        (lambda: masks.block_diagonal(0), "size: expected at least 1, got 0"),
    ],
)
def test_bad_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_packed_sequences_are_sequences_apart(as_array):
    ends, t = [0, 3, 3, 8], 10
    q, k, v = (jax.random.normal(jax.random.key(i), (1, t, 2, 4)) for i in range(3))

    @jax.jit
    def run(q, k, v, ends):
        return attend(q, k, v, mask=masks.packed(ends, t) & masks.causal())

    out = run(q, k, v, as_array(ends))
    for start, end in ((0, 3), (3, 8)):
        own = [x[:, start:end] for x in (q, k, v)]
        np.testing.assert_allclose(out[:, start:end], attend(*own, mask=masks.causal()), atol=1e-6)
    assert not out[:, 8:].any()
    known = masks.packed(as_array(ends), t)
    np.testing.assert_array_equal(known.dense(t, t)[0, 0].sum(1), [3, 3, 3, 5, 5, 5, 5, 5, 0, 0])


def test_numbers_of_heads_are_masks_of_heads():
    rng = np.random.default_rng(0)
    ids, first = rng.integers(0, 3, (B, 2, T)), rng.integers(0, T, (1, 2, T))
    for mask, values in (
        (masks.segments(ids), ids[..., None] == ids[:, :, None]),
        (
            masks.key_range(first, first + 3),
            (first[..., None] <= I.T) & (first[..., None] + 3 >= I.T),
        ),
        (masks.causal_positions(ids), ids[..., None] >= ids[:, :, None]),
    ):
        np.testing.assert_array_equal(mask.dense(T, T), values)
        np.testing.assert_array_equal(mask.T.dense(T, T), values.swapaxes(2, 3))
        q, k, v = (jax.random.normal(jax.random.key(i), (B, T, 2, 4)) for i in range(3))
        want = attend(q, k, v, mask=jnp.asarray(values), implementation="reference")
        for name in ("blockwise", "pallas"):
            out = attend(q, k, v, mask=mask, implementation=name)
            np.testing.assert_allclose(out, want, atol=3e-6)
    with pytest.raises(ValueError, match=r"mask \(q_ids\): expected shape"):
        attend(*[jnp.ones((B, T, 3, 4))] * 3, mask=masks.segments(ids))
