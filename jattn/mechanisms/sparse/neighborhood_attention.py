"""Neighbourhood attention: each cell of a grid attends to a window round it.

Papers: Faster Neighborhood Attention, arXiv 2403.04690; Generalized Neighborhood Attention,
arXiv 2504.16922.

    o_i = sum_{j in W(i)} softmax_j(q_i . k_j / sqrt(d)) v_j

with a window W(i) along every axis of the grid, shifted at borders so that each query sees equally
many keys, with strides (queries that share a window), dilation and causal axes: see
`jattn.masks.neighborhood`. Keys beside the grid, text or registers, are seen by all: their part is
merged in exactly.

Distinctive: locality of convolutions with the weights of attention; windows that fit the tiles of
a kernel cost what they hold, `tile_counts` says how near others come.

Limits: a window as long as each axis is softmax attention, a stride as long as the window cuts the
grid into windows, stride 1 is neighbourhood attention.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jattn.attention import attend, masks, merge
from jattn.attention.neighborhoods import Axis, tile_order
from jattn.checks import check_count, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts

Sizes = int | Sequence[int]


def neighborhood_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    *,
    shape: Sequence[int],
    window: Sizes,
    stride: Sizes = 1,
    dilation: Sizes = 1,
    causal: bool | Sequence[bool] = False,
    scale: float | None = None,
    tile: Sequence[int] | None = None,
    extra: tuple[Float[Array, "b n g d"], Float[Array, "b n g e"]] | None = None,
    return_lse: bool = False,
) -> Float[Array, "b t h e"] | tuple[Float[Array, "b t h e"], Float[Array, "b t h"]]:
    """Attention of the cells of a grid to the cells round them.

    Args:
        query, key, value: of the cells, row by row; g divides h.
        shape: of the grid; t is the product.
        window, stride, dilation, causal: for all axes, or one for each; see
            `jattn.masks.neighborhood`.
        scale: of the scores; default `d**-0.5`.
        tile: shape of boxes into which tokens are sorted meanwhile, so that a kernel's tile is a
            box; None: as they are. The result is the same.
        extra: keys and values beside the grid that all see.
        return_lse: also return log-sum-exps.

    Returns:
        `[b, t, h, e]` in the query's dtype, and if asked for `[b, t, h]`.

    Raises:
        ValueError: tokens that are not those of the grid, or a window that does not fit.

    Reference:
        arXiv 2504.16922, arXiv 2403.04690.

    Example:
        >>> x = jnp.ones((1, 12, 2, 4))
        >>> neighborhood_attention(x, x, x, shape=(3, 4), window=3).shape
        (1, 12, 2, 4)
    """
    check_shape("query", query, "b t h d", {"t": math.prod(shape)})
    mask = masks.neighborhood(
        shape, window, stride=stride, dilation=dilation, causal=causal, tile=tile
    )
    order = None if tile is None else tile_order(shape, tile)
    if order is not None:
        query, key, value = (x[:, order] for x in (query, key, value))
    out, lse = attend(query, key, value, mask=mask, scale=scale, return_lse=True)
    if extra is not None:
        beside = attend(query, *extra, scale=scale, return_lse=True)
        out, lse = merge((out, lse), beside)
    if order is not None:
        back = np.argsort(order)
        out, lse = out[:, back], lse[:, back]
    return (out, lse) if return_lse else out


class TileCounts(NamedTuple):
    """How many tiles a kernel meets whose tiles are boxes of the grid.

    Attributes:
        density: share of all keys that a query sees, on average.
        flop_speedup: 1 / density, what a perfect kernel gains on dense attention.
        visited_tiles, full_tiles, partial_tiles, dense_tiles: those with a pair to compute; those
            of them that need no mask; the others; and all there are.
        speedup_mean: dense_tiles / visited_tiles.
        speedup_max: the bound where all blocks of queries wait for the slowest.
        max_visits_per_q_tile: tiles of keys that the slowest visits.
    """

    density: float
    flop_speedup: float
    visited_tiles: int
    full_tiles: int
    partial_tiles: int
    dense_tiles: int
    speedup_mean: float
    speedup_max: float
    max_visits_per_q_tile: int


def tile_counts(
    shape: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    causal: Sequence[bool],
    q_tile: Sequence[int],
    k_tile: Sequence[int],
    dilation: Sequence[int] | None = None,
) -> TileCounts:
    """Counts the tiles that a window visits: products of what it visits along each axis.

    Args:
        shape: of the grid.
        window, stride, causal, dilation: along each axis; dilation is 1 by default.
        q_tile, k_tile: shapes of a kernel's tiles of queries and keys.

    Raises:
        ValueError: numbers that do not fit the grid, or not one for each axis.

    Reference:
        arXiv 2504.16922.

    Example:
        >>> counts = tile_counts((256, 256), (80, 80), (16, 16), (False,) * 2, (16, 16), (16, 8))
        >>> counts.partial_tiles, round(counts.speedup_max, 2)
        (0, 10.24)
    """
    dilation = (1,) * len(shape) if dilation is None else dilation
    masks.neighborhood(shape, window, stride=stride, dilation=dilation, causal=causal)
    visited = full = dense = slowest = tiles = 1
    density = 1.0
    numbers = (shape, window, stride, dilation, causal, q_tile, k_tile)
    if len({len(given) for given in numbers}) != 1:
        raise ValueError(f"tile: expected one for each axis of {tuple(shape)}")
    for length, w, st, dl, late, q_size, k_size in zip(*numbers, strict=True):
        check_count("tile", min(q_size, k_size))
        axis = Axis(length, w, st, dl, bool(late))
        some, every, keys = axis.tiles(q_size, k_size)
        visited, full = visited * int(some.sum()), full * int(every.sum())
        slowest = slowest * int(some.sum(1).max())
        tiles, dense = tiles * some.shape[1], dense * some.size
        density *= keys / length
    return TileCounts(
        density, 1 / density, visited, full, visited - full, dense, dense / visited,
        tiles / slowest, slowest,
    )  # fmt: skip


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    window: int = 5,
) -> Mixer:
    """Neighbourhood attention of a sequence between projections.

    Each token sees `window` tokens round it, as many at the ends; a shorter sequence sees itself
    whole. Causal windows are those of `softmax_attention(window=...)`; of a grid with more axes,
    `softmax_attention` with `jattn.masks.neighborhood` as its mask is the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: False; there is no other form.
        kv_heads: key-value heads g, a divisor of h; default h.
        window: tokens that each sees.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=8, heads=2, window=3)
        >>> params = mixer.init(jax.random.key(0))
        >>> mixer.apply(params, np.ones((1, 5, 8), np.float32)).shape
        (1, 5, 8)
    """
    if causal:
        raise ValueError(
            "causal: neighborhood_attention has no causal form; use softmax_attention(window=...)"
        )
    check_count("window", window)
    groups = heads if kv_heads is None else kv_heads
    check_heads(dim, heads, groups)

    def init(key):
        return qkvo_init(key, dim, heads, kv_heads=groups)

    def apply(parts, params, given):
        x, real = given.x, given.real
        query, key, value = split_qkv(parts.project(params, x, x), heads, groups)
        if real is None:
            mask = masks.neighborhood((x.shape[1],), min(window, x.shape[1]))
        else:
            mask = _of_first(real.sum(1), window, x.shape[1])
        return parts.output(params, merge_heads(attend(query, key, value, mask=mask)), x)

    return framed_parts(
        "neighborhood_attention", Parts(project_qkv, None, project_output), dim=dim, init=init,
        apply=apply, takes="row", causal=False,
    )  # fmt: skip


def _of_first(lengths: Int[Array, " b"], window: int, t: int) -> masks.Mask:
    """The windows of sequences of these lengths, whose tokens come first among t."""
    lengths = lengths[:, None]
    size = jnp.minimum(window, lengths)
    before = jnp.minimum(window // 2, size // 2)
    low = jnp.clip(jnp.arange(t) - before, 0, lengths - size)
    return masks.key_range(low, low + size - 1)


MECHANISM = Mechanism(
    name="neighborhood_attention",
    title="Neighborhood attention",
    arxiv="2504.16922",
    family="sparse",
    equation="o_i = sum_{j in W(i)} softmax_j(q_i . k_j / sqrt(d)) v_j",
    core=neighborhood_attention,
    make=make,
    cost="quadratic",
    bidirectional=True,
    documents="never",
)
