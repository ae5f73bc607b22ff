"""Windows on grids: who sees whom, counted tiles, attention, halos, and the gate of lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn import attend, masks
from jattn.attention.neighborhoods import tile_order
from jattn.mechanisms.channel import efficient_local_attention as ela
from jattn.mechanisms.sparse.halo_attention import halo_attention
from jattn.mechanisms.sparse.neighborhood_attention import neighborhood_attention, tile_counts

rng = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)


def dense(*given, **options):
    mask = masks.neighborhood(*given, **options)
    size = int(np.prod(given[0]))
    return np.asarray(mask.dense(size, size))[0, 0]


def test_every_query_sees_a_whole_window():
    seen = dense((5, 6), (3, 4))
    assert (seen.sum(1) == 12).all()
    # The corner sees the corner, not a window that is cut.
    assert set(np.flatnonzero(seen[0])) == {6 * y + x for y in range(3) for x in range(4)}


def test_limits_of_windows():
    assert dense((4, 3), (4, 3)).all()
    causal = np.tril(np.ones((6, 6), bool))
    np.testing.assert_array_equal(dense((6,), 6, causal=True), causal)
    blocks = np.arange(6) // 3
    np.testing.assert_array_equal(dense((6,), 3, stride=3), blocks[:, None] == blocks)


def test_axes_multiply_and_dilation_is_a_grid_of_its_own():
    both = dense((4, 5), (2, 3), stride=(2, 1), causal=(False, True))
    along = dense((4,), 2, stride=2), dense((5,), 3, causal=True)
    np.testing.assert_array_equal(both, np.kron(*along))
    dilated = dense((8,), 3, dilation=2)
    for group in (0, 1):
        np.testing.assert_array_equal(dilated[group::2, group::2], dense((4,), 3))
    assert not dilated[::2, 1::2].any()


def test_a_stride_shares_windows_and_moves_them():
    seen = dense((12,), 5, stride=3)
    for start in range(0, 12, 3):
        assert (seen[start : start + 3] == seen[start]).all()
    np.testing.assert_array_equal(seen[6, 5:], seen[3, 2:-3])


@pytest.mark.parametrize("options", [{}, {"tile": (2, 3)}, {"stride": (2, 1), "tile": (2, 3)}])
def test_summaries_of_tiles_are_cautious(options):
    mask = masks.neighborhood((4, 6), (2, 3), **options)
    values = np.asarray(mask.dense(24, 24))[0, 0].reshape(4, 6, 4, 6)
    for transposed in (False, True):
        found = (mask.T if transposed else mask).tiles(24, 24, 6, 6)
        tiles = values.swapaxes(0, 2).swapaxes(1, 3) if transposed else values
        some, every = tiles.any((1, 3)), tiles.all((1, 3))
        assert (found[some] > 0).all()
        assert (found[~every] < 2).all()
        if "tile" in options:  # boxes: exact
            np.testing.assert_array_equal(found > 0, some)


def test_boxes_hold_the_same_pairs():
    order = tile_order((4, 6), (2, 3))
    boxed = dense((4, 6), 2, tile=(2, 3))
    np.testing.assert_array_equal(boxed, dense((4, 6), 2)[order][:, order])


def test_counts_of_tiles():
    for causal in (False, True):
        numbers = tile_counts((12,), (5,), (2,), (causal,), (3,), (4,))
        seen = dense((12,), 5, stride=2, causal=causal)
        tiles = seen.reshape(4, 3, 3, 4)
        assert numbers.visited_tiles == tiles.any((1, 3)).sum()
        assert numbers.full_tiles == tiles.all((1, 3)).sum()
        assert numbers.density == pytest.approx(seen.mean())
        assert numbers.speedup_max <= numbers.speedup_mean <= numbers.flop_speedup + 1e-9


@pytest.mark.parametrize("tile", [None, (2, 3)])
def test_attention_is_that_of_its_mask_with_keys_beside_the_grid(tile):
    query, key, value = normal(2, 24, 4, 8), normal(2, 24, 2, 8), normal(2, 24, 2, 8)
    extra = normal(2, 3, 2, 8), normal(2, 3, 2, 8)
    seen = np.concatenate([dense((4, 6), (2, 3)), np.ones((24, 3), bool)], axis=1)

    def ours(query, extra):
        return neighborhood_attention(
            query, key, value, shape=(4, 6), window=(2, 3), tile=tile, extra=extra
        )

    def joint(query, extra):
        both = [jnp.concatenate(pair, axis=1) for pair in zip((key, value), extra, strict=True)]
        return attend(query, *both, mask=jnp.asarray(seen), implementation="reference")

    np.testing.assert_allclose(ours(query, extra), joint(query, extra), atol=1e-5)
    found, expected = (
        jax.grad(lambda *x, f=f: (f(*x) ** 2).sum(), (0, 1))(query, extra) for f in (ours, joint)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 7}, r"window: expected window \* dilation <= 4"),
        ({"window": 2, "stride": 3}, "stride: expected at most window=2, got 3"),
        ({"window": (2, 2, 2)}, "window: expected one for each axis"),
        ({"window": 2, "tile": (3, 3)}, "tile: expected one that divides"),
    ],
)
def test_bad_windows_are_named(plain_checks, given, message):
    with pytest.raises(ValueError, match=message):
        masks.neighborhood((4, 6), **given)


TABLE = [normal(2 * 4 - 1, 3) for _ in range(2)]


def test_halo_limits():
    image = normal(1, 4, 4, 2, 3)
    nothing = [jnp.zeros((2 * n - 1, 3)) for n in (2, 2)]
    # Without a halo: windows of their own.
    out = halo_attention(image, image, image, *nothing, block=2, halo=0)
    window = image[:, :2, :2].reshape(1, 4, 2, 3)
    expected = attend(window, window, window).reshape(1, 2, 2, 2, 3)
    np.testing.assert_allclose(out[:, :2, :2], expected, atol=1e-6)
    # Blocks of one cell with a halo of one: the cells around, cut at the border.
    table = [jnp.zeros((5, 3))] * 2
    out = halo_attention(image, image, image, *table, block=1, halo=1)
    corner = image[:, :2, :2].reshape(1, 4, 2, 3)
    expected = attend(image[:, 0, :1], corner, corner)
    np.testing.assert_allclose(out[:, 0, :1], expected, atol=1e-6)


def test_halo_moves_with_its_blocks_and_zeros_take_their_part():
    image = normal(1, 8, 8, 1, 3)
    run = lambda x, **more: halo_attention(x, x, x, *TABLE, block=2, halo=1, **more)
    moved = run(jnp.roll(image, 2, axis=1))[:, 4:6]
    np.testing.assert_allclose(moved, run(image)[:, 2:4], atol=1e-5)
    ones = jnp.ones_like(image)
    total = halo_attention(image, image, ones, *TABLE, block=2, halo=1)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    with_zeros = halo_attention(image, image, ones, *TABLE, block=2, halo=1, outside="zeros")
    assert (with_zeros[:, 0] < 1).all()
    np.testing.assert_allclose(with_zeros[:, 2:6, 2:6], 1, atol=1e-5)


def test_lines_that_stand_out():
    gate = ela.make(dim=4, width=3, groups=2, norm_groups=2)
    params = gate.init(jax.random.key(0))
    image = normal(2, 5, 3, 4)
    factors = jax.jit(gate.factors)
    found = factors(params, image)
    assert found.shape == image.shape
    assert ((found > 0) & (found < 1)).all()
    # Both axes share their weights.
    turned = factors(params, image.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(turned, found, atol=1e-5)
    # A factor of each row times one of each column.
    for channel in range(4):
        assert np.linalg.matrix_rank(np.asarray(found[0, ..., channel]), tol=1e-4) == 1
    np.testing.assert_allclose(factors(params, 3 * image), found, atol=1e-3)
    flat = params | {"scale": jnp.zeros(4), "shift": jnp.full(4, 0.3)}
    np.testing.assert_allclose(gate.apply(flat, image), image * jax.nn.sigmoid(0.3) ** 2, atol=1e-6)
