"""What the TPU kernels do with a tile of scores: keys as rows, queries as columns."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention.dropout import kept
from jattn.attention.logits_operands import pad_logits_operand
from jattn.attention.masks import Mask
from jattn.attention.tiling import summarise
from jattn.attention.tpu.plan import DifferentiableOperands, OtherOperands, Plan, Tile
from jattn.attention.tpu.schedule import TileSchedule
from jattn.pallas.tpu import as_column


def time_last(x: Array, length: int, mode: str = "constant") -> Array:
    """`[b, t, h, d]` to `[b, h, d, length]`."""
    grow = ((0, 0), (0, 0), (0, 0), (0, length - x.shape[1]))
    return jnp.pad(jnp.moveaxis(x, 1, 3), grow, mode=mode)


def heads_first(x: Array, length: int) -> Array:
    """`[b, t, h, d]` to `[b, h, length, d]`."""
    return jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))


def _bad(wide: Array) -> Array:
    return ~(jnp.abs(wide) < jnp.inf)


def nan_markers(values: Array, axis: int) -> Array:
    """0, or NaN where a value is bad, `[keys, 1]`; `axis` is that of the value's dimensions.

    Added to scores before they are masked, it makes queries that attend to the value NaN.
    """
    bad = jnp.where(_bad(values.astype(jnp.float32)), jnp.nan, 0.0)
    return bad.sum(1, keepdims=True) if axis else as_column(bad.sum(0, keepdims=True))


def finite_or_one(x: Array) -> Array:
    """For what only meets weights of zero if it is bad; 0 * NaN would be NaN.

    Not zero instead: libtpu 0.0.51 folds that choice into the product that follows, and fails.
    """
    wide = x.astype(jnp.float32)
    return jnp.where(_bad(wide), 1.0, wide).astype(x.dtype)


def masking(plan: Plan, rest: OtherOperands, tile: Tile) -> tuple[Mask | None, Any]:
    """The mask, and which of its tiles are empty, partial or full."""
    mask = jax.tree.unflatten(plan.mask, rest.mask)
    if tile.summary is not None:
        return mask, tile.summary.array()
    return mask, summarise(mask, plan.t, plan.s, tile.block_q, tile.block_k)


def all_logits_operands(
    plan: Plan, x: DifferentiableOperands, rest: OtherOperands, t: int, s: int
) -> list[Array]:
    """All operands of the logits, padded: floats, integers, the mask's.

    Words of dropout come before those of the mask.
    """
    return [
        pad_logits_operand(p, t, s)
        for p in (*x.logits_operands, *rest.score_mod_operands, *rest.words, *rest.mask)
    ]


def tile_weights(
    plan: Plan, tile: Tile, full: slice | None, corner, rest: Sequence[Array], row: Array,
    score: Array, *floats: Array,
) -> Array:  # fmt: skip
    """Weights of a part of a tile `[keys, queries]`, not divided; `row` is the largest score."""
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
    score_mod_operands = [floats.pop(0) if learn else rest.pop(0) for learn in plan.learned]
    mask = jax.tree.unflatten(plan.mask, rest[2:] if plan.dropout_rate is not None else rest)

    def allowed_at(queries: slice) -> Array:
        own = q_index[:, queries]
        shape = score.shape[0], own.shape[1]
        allowed = jnp.ones(shape, bool) if mask is None else mask.allowed(own, k_index)
        if plan.s % tile.block_k:
            allowed &= jnp.broadcast_to(k_index, shape) < plan.s
        return jnp.broadcast_to(allowed, shape)

    whole = slice(0, score.shape[1])
    edges = [whole]
    if full is None:
        edges = []
    elif full.start < full.stop and plan.running_max:  # Only the edges are masked.
        edges = [slice(0, full.start), slice(full.stop, score.shape[1])]
    edges = [edge for edge in edges if edge.start < edge.stop]
    allowed_of = [allowed_at(edge) for edge in edges]

    def hide(score: Array, hidden: float) -> Array:
        if not edges or edges[0] == whole:
            return jnp.where(allowed_of[0], score, hidden) if edges else score
        assert full is not None
        parts = [score[:, full]]
        for edge, allowed in zip(edges, allowed_of, strict=True):
            part = jnp.where(allowed, score[:, edge], hidden)
            parts.insert(0 if edge.stop <= full.start else len(parts), part)
        return jnp.concatenate(parts, 1)

    shown = None
    if not plan.running_max and plan.t % tile.block_q:
        shown = q_index < plan.t  # Weights of padded queries may be infinite.
    if bias is not None:
        if tile.program is not None or not plan.running_max:
            seen = bias != -jnp.inf
            shown = seen if shown is None else shown & seen
            bias = jnp.where(seen, bias, 0)
        score += bias
    if tile.program is not None:
        score = hide(score, 0.0)  # No gradient comes back from where a program may have none.
        # Padding gets the indices of the last that are no padding.
        score = tile.program(
            score_mod_operands,
            score,
            jnp.minimum(q_index, plan.t - 1),
            jnp.minimum(k_index, plan.s - 1),
        )
        if not plan.running_max:
            seen = score != -jnp.inf
            shown = seen if shown is None else shown & seen
    if shift is not None:
        score -= shift
    if plan.running_max:
        if shown is not None:
            score = jnp.where(shown, score, -jnp.inf)
        return hide(score, -jnp.inf), None
    allowed = allowed_of[0] if edges else None
    if shown is not None:
        shown = jnp.broadcast_to(shown, score.shape)
        allowed = shown if allowed is None else allowed & shown
    return score if allowed is None else jnp.where(allowed, score, 0), allowed


def kept_part(plan: Plan, corner, rest: Sequence[Array], shape: tuple[int, ...]) -> Array | None:
    """What dropout multiplies the weights of a part of a tile by; None without dropout."""
    if plan.dropout_rate is None:
        return None
    first = sum(not learn for learn in plan.learned)
    k_index = corner[1] + jax.lax.broadcasted_iota(jnp.int32, (shape[0], 1), 0)
    q_index = corner[0] + jax.lax.broadcasted_iota(jnp.int32, (1, shape[1]), 1)
    return kept(plan.dropout_rate, (rest[first], rest[first + 1]), q_index, k_index)


def each_sort(schedule: TileSchedule, run, masked, at, body: Callable[..., None]) -> None:
    """Runs `body(masked, offset)` for the sort of tile at hand; those that cannot be are left out.

    offset is that of the tile where it is known when the program is made, else None.
    """
    if schedule.any_full:
        pl.when(run & ~masked)(lambda: body(False, None))
    if schedule.any_partial and schedule.offsets:
        for offset in schedule.offsets:
            pl.when(run & (at == offset))(functools.partial(body, True, offset))
    elif schedule.any_partial:
        pl.when(run & masked)(lambda: body(True, None))


class Part(NamedTuple):
    """Some keys of a tile, the queries they can meet, and those among these that meet them all.

    The last are counted within the second; None where nothing is to be masked.
    """

    keys: slice
    queries: slice
    full: slice | None


def tile_parts(tile: Tile, schedule: TileSchedule, masked: bool, offset: int | None) -> list[Part]:
    """The parts of a tile in which a query can meet a key."""
    parts = []
    for start in range(0, tile.block_k, tile.part):
        queries, full = schedule.queries(offset, start, tile.part)
        if queries.start < queries.stop:
            within = slice(full.start - queries.start, full.stop - queries.start)
            keys = slice(start, start + tile.part)
            parts.append(Part(keys, queries, within if masked else None))
    return parts


def cut_logits_operands(
    logits_operands, refs, keys: slice, queries: slice, n_floats: int
) -> tuple[list, list]:
    """Their values where keys and queries meet: of those with a gradient, of the others."""
    tiles = [operand.read(ref, keys) for operand, ref in zip(logits_operands, refs, strict=True)]
    tiles = [tile[:, queries] if tile.shape[1] > 1 else tile for tile in tiles]
    return tiles[:n_floats], tiles[n_floats:]


def parameters(plan: Plan, *semantics: Any):
    """The compiler's parameters: whether each axis of the grid is parallel, and the memory."""
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=plan.vmem)


def cost(
    schedule: TileSchedule, repeats: int, per_pair: int, operands: Sequence[Any]
) -> pl.CostEstimate:
    """Of the pairs a mask allows, not of the tiles visited: a partial tile counts half."""
    pairs = repeats * int(
        (schedule.full + schedule.partial / 2) * schedule.row_block * schedule.column_block
    )
    size = sum(x.size * x.dtype.itemsize for x in operands)
    return pl.CostEstimate(
        flops=2 * per_pair * pairs, transcendentals=pairs, bytes_accessed=int(size)
    )
