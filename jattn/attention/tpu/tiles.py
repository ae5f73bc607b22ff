"""What the TPU kernels do with a tile of scores: keys as rows, queries as columns."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention.masks import Mask
from jattn.attention.planes import pad_plane
from jattn.attention.tiling import summarise
from jattn.attention.tpu.plan import Floats, Plan, Rest, Tile
from jattn.attention.tpu.planes import column
from jattn.attention.tpu.walk import TileWalk


def transposed(x: Array, length: int) -> Array:
    """`[b, t, h, d]` to `[b, h, d, length]`."""
    return jnp.pad(jnp.moveaxis(x, 1, 3), ((0, 0), (0, 0), (0, 0), (0, length - x.shape[1])))


def upright(x: Array, length: int) -> Array:
    """`[b, t, h, d]` to `[b, h, length, d]`."""
    return jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))


def _bad(wide: Array) -> Array:
    return ~(jnp.abs(wide) < jnp.inf)


def poison(values: Array, axis: int) -> Array:
    """0, or NaN where a value is bad, `[keys, 1]`; `axis` is that of the value's dimensions.

    Added to scores before they are masked, it makes queries that attend to the value NaN.
    """
    bad = jnp.where(_bad(values.astype(jnp.float32)), jnp.nan, 0.0)
    return bad.sum(1, keepdims=True) if axis else column(bad.sum(0, keepdims=True))


def finite_or_one(x: Array) -> Array:
    """For what only meets weights of zero if it is bad; 0 * NaN would be NaN.

    Not zero instead: libtpu 0.0.51 folds that choice into the product that follows, and fails.
    """
    wide = x.astype(jnp.float32)
    return jnp.where(_bad(wide), 1.0, wide).astype(x.dtype)


def masking(plan: Plan, rest: Rest, tile: Tile) -> tuple[Mask | None, Any]:
    mask = jax.tree.unflatten(plan.mask, rest.mask)
    return mask, summarise(mask, plan.t, plan.s, tile.block_q, tile.block_k)


def all_planes(plan: Plan, x: Floats, rest: Rest, t: int, s: int) -> list[Array]:
    """All arrays that vary over the plane of scores, padded: floats, integers, the mask's."""
    return [pad_plane(p, t, s) for p in (*x.planes, *rest.numbers, *rest.mask)]


def product(plan: Plan, left: Array, right: Array, axes: tuple[int, int]) -> Array:
    exact = jax.lax.Precision.HIGHEST if plan.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        left, right, (((axes[0],), (axes[1],)), ((), ())),
        precision=exact, preferred_element_type=jnp.float32,
    )  # fmt: skip


def finite_row(row: Array) -> Array:
    return jnp.where(row == -jnp.inf, 0, row)


def tile_weights(
    plan: Plan, tile: Tile, full: slice | None, corner, rest: Sequence[Array], row: Array,
    score: Array, *floats: Array,
) -> Array:  # fmt: skip
    """Weights of a part of a tile `[keys, queries]`, from its scores."""
    score, allowed = modify(plan, tile, full, corner, rest, score, *floats)
    if plan.running_max:
        return plan.function(score - row)
    weight = plan.function(score)
    return weight if allowed is None else jnp.where(allowed, weight, 0)


def modify(plan: Plan, tile: Tile, full: slice | None, corner, rest, score, *floats):
    """Bias, modification, shift and mask; also which scores are allowed (None for all).

    `full` are the queries known to meet all keys; None where all do, and nothing is masked.
    """
    q_start, k_start = corner
    k_index = k_start + jax.lax.broadcasted_iota(jnp.int32, (score.shape[0], 1), 0)
    q_index = q_start + jax.lax.broadcasted_iota(jnp.int32, (1, score.shape[1]), 1)
    floats, rest = list(floats), list(rest)
    bias = floats.pop(0) if plan.has_bias else None
    shift = floats.pop(0) if plan.has_shift else None
    if bias is not None:
        score += bias
    if tile.program is not None:
        numbers = [floats.pop(0) if learn else rest.pop(0) for learn in plan.numbers]
        score = tile.program(numbers, score, q_index, k_index)
    if shift is not None:
        score -= shift
    if full is None:
        return score, None
    mask = jax.tree.unflatten(plan.mask, rest)
    if full.start < full.stop and plan.running_max:  # Only the edges are masked.
        edges = [slice(0, full.start), slice(full.stop, score.shape[1])]
        left, right = (
            jnp.where(mask.allowed(q_index[:, edge], k_index), score[:, edge], -jnp.inf)
            if edge.start < edge.stop
            else score[:, edge]
            for edge in edges
        )
        parts = [x for x in (left, score[:, full], right) if x.shape[1]]
        return jnp.concatenate(parts, 1), None
    allowed = jnp.ones(score.shape, bool) if mask is None else mask.allowed(q_index, k_index)
    if plan.s % tile.block_k:
        allowed &= jnp.broadcast_to(k_index, score.shape) < plan.s
    return jnp.where(allowed, score, -jnp.inf if plan.running_max else 0), allowed


def each_sort(walk: TileWalk, run, masked, at, body: Callable[..., None]) -> None:
    """Runs `body(masked, offset)` for the sort of tile at hand; those that cannot be are left out.

    offset is that of the tile where it is known when the program is made, else None.
    """
    if walk.any_full:
        pl.when(run & ~masked)(lambda: body(False, None))
    if walk.any_partial and walk.offsets:
        for offset in walk.offsets:
            pl.when(run & (at == offset))(functools.partial(body, True, offset))
    elif walk.any_partial:
        pl.when(run & masked)(lambda: body(True, None))


class Part(NamedTuple):
    """Some keys of a tile, the queries they can meet, and those among these that meet them all.

    The last are counted within the second; None where nothing is to be masked.
    """

    keys: slice
    queries: slice
    full: slice | None


def tile_parts(tile: Tile, walk: TileWalk, masked: bool, offset: int | None) -> list[Part]:
    parts = []
    for start in range(0, tile.block_k, tile.part):
        queries, full = walk.queries(offset, start, tile.part)
        if queries.start < queries.stop:
            within = slice(full.start - queries.start, full.stop - queries.start)
            keys = slice(start, start + tile.part)
            parts.append(Part(keys, queries, within if masked else None))
    return parts


def cut_planes(planes, refs, keys: slice, queries: slice, n_floats: int) -> tuple[list, list]:
    """Values of all planes where keys and queries meet: those with a gradient, the others."""
    tiles = [plane.read(ref, keys) for plane, ref in zip(planes, refs, strict=True)]
    tiles = [tile[:, queries] if tile.shape[1] > 1 else tile for tile in tiles]
    return tiles[:n_floats], tiles[n_floats:]


def parameters(plan: Plan, *semantics: Any):
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=plan.vmem)


def cost(walk: TileWalk, repeats: int, per_pair: int, operands: Sequence[Any]) -> pl.CostEstimate:
    """Of the pairs a mask allows, not of the tiles visited: a partial tile counts half."""
    pairs = repeats * int((walk.full + walk.partial / 2) * walk.row_block * walk.column_block)
    size = sum(x.size * x.dtype.itemsize for x in operands)
    return pl.CostEstimate(
        flops=2 * per_pair * pairs, transcendentals=pairs, bytes_accessed=int(size)
    )
