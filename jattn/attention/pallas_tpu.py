"""Attention on TPU: one Pallas kernel forward, one backward, for all that can be streamed.

Both hold tiles of scores with keys as rows and queries as columns. What belongs to a query (running
maximum, sum, log-sum-exp) is then a row `[1, block_q]`, an eighth of a register for each 128
queries, and its reductions run down the rows, which costs a vector unit little. Queries and outputs
lie as `[d, t]`, so a head of 64 or 80 dimensions fills its registers.

Forward, a block of queries meets blocks of keys with a running maximum (arXiv 1805.02867). Backward
is one kernel too: a block of keys meets blocks of queries, each tile of weights is computed once
more from the saved log-sum-exp (arXiv 2307.08691), and the gradient of all queries of the head's
group stays on the chip meanwhile. Tiles a mask leaves empty cost nothing, full ones are not masked.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.attention import score_programs
from jattn.attention.blocks import Blocks
from jattn.attention.case import Case
from jattn.attention.kernel_planes import Plane, column, row
from jattn.attention.masks import FULL, PARTIAL, Mask
from jattn.attention.planes import pad_plane
from jattn.attention.tile_walk import TileWalk, walk_columns, walk_rows
from jattn.attention.tiling import summarise

VMEM_LIMIT = 100 * 2**20
QUERY_GRADIENT_BYTES = 24 * 2**20  # Kept on the chip in the backward pass; longer is cut.


LOG2_E = math.log2(math.e)  # exp2 is what the chip has.


class _Tile(NamedTuple):
    """How one pass cuts the plane of scores, and the score program for a part of a tile."""

    block_q: int
    block_k: int
    part: int  # of a block of keys
    program: Callable[..., Array] | None


class _Plan(NamedTuple):
    """What is fixed when the program is traced; hashable."""

    t: int
    s: int
    forward: _Tile
    backward: _Tile
    function: Callable[[Array], Array]
    divide: bool
    running_max: bool
    scale: float
    has_bias: bool
    has_shift: bool
    numbers: tuple[bool, ...]  # for each number of the program, whether it is differentiable
    mask: Any  # the tree structure of the mask
    hides: bool  # whether there is a mask
    dtype: DTypeLike  # of operands of matrix products
    interpret: Any


class _Floats(NamedTuple):
    """What has a gradient: arrays as `attend` got them, planes with four axes."""

    query: Array
    key: Array
    value: Array
    planes: tuple[Array, ...]  # bias, shift, differentiable numbers of the score program
    sink: Array | None


class _Rest(NamedTuple):
    """What has none: the mask's arrays, and integers of the score program."""

    mask: tuple[Array, ...]
    numbers: tuple[Array, ...]


def refusal(case: Case) -> str | None:
    """Why these kernels cannot serve, or None."""
    if case.return_weights:
        return "it never holds the weights (return_weights)"
    if case.dtype == jnp.float64:
        return "a TPU has no float64"
    if case.score_mod is not None:
        try:
            b, _, h, _ = case.query.shape
            jax.eval_shape(
                lambda: score_programs.split(case.score_mod, b, h, (8, 128), jnp.float32).numbers
            )
        except NotImplementedError as error:
            return str(error)
    return None


def pallas_tpu(case: Case, blocks: Blocks, interpret: bool = False):
    """Output `[b, t, h, e]` and lse `[b, t, h]`, as the reference defines them.

    Args:
        case: what `attend` was asked.
        blocks: sizes of tiles.
        interpret: run on another machine, slowly.
    """
    b, t, h, _ = case.query.shape
    s = case.key.shape[1]
    dtype = jnp.result_type(case.query, case.key, case.value)
    dtype = jnp.dtype(jnp.bfloat16 if dtype == jnp.bfloat16 else jnp.float32)
    query, key, value = case.query, case.key, case.value
    scale = case.scale
    if isinstance(scale, jax.Array) or scale <= 0:
        query, scale, dtype = query.astype(jnp.float32) * scale, 1.0, jnp.dtype(jnp.float32)
    groups = math.lcm(key.shape[2], value.shape[2])
    key, value = (jnp.repeat(x, groups // x.shape[2], axis=2) for x in (key, value))

    forward = _fit(t, s, blocks.query, blocks.key, blocks.key_part)
    backward = _fit(t, s, blocks.backward_query, blocks.backward_key, blocks.backward_key_part)
    numbers: tuple[Array, ...] = ()
    if case.score_mod is not None:
        split = functools.partial(score_programs.split, case.score_mod, b, h, dtype=jnp.float32)
        numbers, program = split((forward.part, forward.block_q))
        forward = forward._replace(program=program)
        program = split((backward.part, backward.block_q)).apply
        backward = backward._replace(program=program)
    learned = tuple(jnp.issubdtype(x.dtype, jnp.floating) for x in numbers)
    leaves, structure = jax.tree.flatten(case.mask)
    bias, shift = case.bias, case.normalizer.shift
    plan = _Plan(
        t, s, forward, backward,
        case.normalizer.function, case.normalizer.divide, case.normalizer.running_max,
        float(scale), bias is not None, shift is not None, learned,
        structure, case.mask is not None, dtype,
        pltpu.InterpretParams() if interpret else False,
    )  # fmt: skip
    planes = [x for x in (bias, shift) if x is not None]
    planes += [x for x, learn in zip(numbers, learned, strict=True) if learn]
    floats = _Floats(query, key, value, tuple(planes), case.sink)
    other = tuple(x for x, learn in zip(numbers, learned, strict=True) if not learn)
    out, lse = _run(plan, floats, _Rest(tuple(map(jnp.asarray, leaves)), other))
    return out.astype(case.query.dtype), lse


def _fit(t: int, s: int, block_q: int, block_k: int, part: int) -> _Tile:
    """Blocks no longer than the sequences, in multiples of a register's 128 lanes."""

    def fit(length, block):
        return min(block, -(-length // 128) * 128)

    block_q, block_k = fit(t, block_q), fit(s, block_k)
    return _Tile(block_q, block_k, math.gcd(block_k, part), None)


def _transposed(x: Array, length: int) -> Array:
    """`[b, t, h, d]` to `[b, h, d, length]`."""
    return jnp.pad(jnp.moveaxis(x, 1, 3), ((0, 0), (0, 0), (0, 0), (0, length - x.shape[1])))


def _upright(x: Array, length: int) -> Array:
    """`[b, t, h, d]` to `[b, h, length, d]`."""
    return jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))


def _bad(wide: Array) -> Array:
    return ~(jnp.abs(wide) < jnp.inf)


def _poison(values: Array, axis: int) -> Array:
    """0, or NaN where a value is bad, `[keys, 1]`; `axis` is that of the value's dimensions.

    Added to scores before they are masked, it makes queries that attend to the value NaN.
    """
    bad = jnp.where(_bad(values.astype(jnp.float32)), jnp.nan, 0.0)
    return bad.sum(1, keepdims=True) if axis else column(bad.sum(0, keepdims=True))


def _finite_or_one(x: Array) -> Array:
    """For what only meets weights of zero if it is bad; 0 * NaN would be NaN.

    Not zero instead: libtpu 0.0.51 folds that choice into the product that follows, and fails.
    """
    wide = x.astype(jnp.float32)
    return jnp.where(_bad(wide), 1.0, wide).astype(x.dtype)


def _masking(plan: _Plan, rest: _Rest, tile: _Tile) -> tuple[Mask | None, Any]:
    mask = jax.tree.unflatten(plan.mask, rest.mask)
    return mask, summarise(mask, plan.t, plan.s, tile.block_q, tile.block_k)


def _planes(plan: _Plan, x: _Floats, rest: _Rest, t: int, s: int) -> list[Array]:
    """All arrays that vary over the plane of scores, padded: floats, integers, the mask's."""
    return [pad_plane(p, t, s) for p in (*x.planes, *rest.numbers, *rest.mask)]


def _product(plan: _Plan, left: Array, right: Array, axes: tuple[int, int]) -> Array:
    exact = jax.lax.Precision.HIGHEST if plan.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        left, right, (((axes[0],), (axes[1],)), ((), ())),
        precision=exact, preferred_element_type=jnp.float32,
    )  # fmt: skip


def _finite(row: Array) -> Array:
    return jnp.where(row == -jnp.inf, 0, row)


def _weigh(
    plan: _Plan, tile: _Tile, full: slice | None, corner, rest: Sequence[Array], row: Array,
    score: Array, *floats: Array,
) -> Array:  # fmt: skip
    """Weights of a part of a tile `[keys, queries]`, from its scores."""
    score, allowed = _modify(plan, tile, full, corner, rest, score, *floats)
    if plan.running_max:
        return plan.function(score - row)
    weight = plan.function(score)
    return weight if allowed is None else jnp.where(allowed, weight, 0)


def _modify(plan: _Plan, tile: _Tile, full: slice | None, corner, rest, score, *floats):
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
    allowed = None if mask is None else mask.allowed(q_index, k_index)
    if plan.s % tile.block_k:
        real = jnp.broadcast_to(k_index, score.shape) < plan.s
        allowed = real if allowed is None else allowed & real
    return jnp.where(allowed, score, -jnp.inf if plan.running_max else 0), allowed


def _each_sort(walk: TileWalk, run, masked, at, body: Callable[..., None]) -> None:
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


class _Part(NamedTuple):
    """Some keys of a tile, the queries they can meet, and those among these that meet them all.

    The last are counted within the second; None where nothing is to be masked.
    """

    keys: slice
    queries: slice
    full: slice | None


def _parts(tile: _Tile, walk: TileWalk, masked: bool, offset: int | None) -> list[_Part]:
    parts = []
    for start in range(0, tile.block_k, tile.part):
        queries, full = walk.queries(offset, start, tile.part)
        if tile.program is not None:  # Made for whole tiles.
            queries, full = slice(0, tile.block_q), slice(0, 0)
        if queries.start < queries.stop:
            within = slice(full.start - queries.start, full.stop - queries.start)
            keys = slice(start, start + tile.part)
            parts.append(_Part(keys, queries, within if masked else None))
    return parts


def _cut(planes, refs, keys: slice, queries: slice, n_floats: int) -> tuple[list, list]:
    """Values of all planes where keys and queries meet: those with a gradient, the others."""
    tiles = [plane.read(ref, keys) for plane, ref in zip(planes, refs, strict=True)]
    tiles = [tile[:, queries] if tile.shape[1] > 1 else tile for tile in tiles]
    return tiles[:n_floats], tiles[n_floats:]


def _parameters(*semantics: str):
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=VMEM_LIMIT)


def _cost(walk: TileWalk, repeats: int, per_pair: int, operands: Sequence[Any]) -> pl.CostEstimate:
    """Of the pairs a mask allows, not of the tiles visited: a partial tile counts half."""
    pairs = repeats * int((walk.full + walk.partial / 2) * walk.row_block * walk.column_block)
    size = sum(x.size * x.dtype.itemsize for x in operands)
    return pl.CostEstimate(
        flops=2 * per_pair * pairs, transcendentals=pairs, bytes_accessed=int(size)
    )


def _forward(plan: _Plan, x: _Floats, rest: _Rest) -> tuple[Array, Array]:
    (b, _, h, d), e, groups = x.query.shape, x.value.shape[3], x.key.shape[2]
    tile = plan.forward
    block_q, block_k, _part = tile[:3]
    t, s = (-(-n // block) * block for n, block in ((plan.t, block_q), (plan.s, block_k)))
    mask, summary = _masking(plan, rest, tile)
    walk, tables = walk_rows(mask, summary, (block_q, block_k), plan.s)
    plain = plan.running_max and plan.function is jnp.exp and tile.program is None
    plain = plain and not (plan.has_bias or plan.has_shift)
    # Where nothing comes between scale and exponential, the maximum is taken before scaling.
    unit = plan.scale if plain else 1.0

    def exponential(x):
        return jnp.exp2(x * (unit * LOG2_E)) if plan.function is jnp.exp else plan.function(x)

    def place(b, h, i, m, *tables):
        return b, h, i, walk.place(i, m, tables)[0]

    planes = [Plane(p, place, block_q, block_k) for p in _planes(plan, x, rest, t, s)]
    sinks = []
    if x.sink is not None:
        sinks.append(Plane(pad_plane(x.sink[..., None], t, 1), place, block_q, block_k))

    def kernel(*refs):
        refs = list(refs)
        tables = [refs.pop(0) for _ in range(n_tables)]
        key, query, value = (refs.pop(0) for _ in range(3))
        plane_refs = [refs.pop(0) for _ in planes]
        sink_refs = [refs.pop(0) for _ in sinks]
        out, lse, largest, total, mixed = refs
        i, m = pl.program_id(2), pl.program_id(3)
        j, run, masked, offset = walk.place(i, m, tables)

        @pl.when(m == 0)
        def _():
            first = jnp.full(largest.shape, -jnp.inf if plan.running_max else 0, jnp.float32)
            weight = jnp.zeros(total.shape, jnp.float32)
            if sinks:  # One more logit, met first, without a value.
                sink = jnp.broadcast_to(sinks[0].read(sink_refs[0], slice(None)), total.shape)
                first = sink / unit if plan.running_max else first
                weight = plan.function(sink - _finite(first) * unit)
            largest[...], total[...] = first, weight
            mixed[...] = jnp.zeros(mixed.shape, jnp.float32)

        def body(masked, offset):
            parts = _parts(tile, walk, masked, offset)
            # All products first: the matrix unit is then ahead of the vector unit.
            raw = [
                _product(plan, key[0, 0, at], query[0, 0, :, seen], (1, 0)) for at, seen, _ in parts
            ]
            for (at, seen, full), score in zip(parts, raw, strict=True):
                values = value[0, 0, :, at]
                score = score if plain else score * plan.scale
                if masked and plan.hides:
                    score += _poison(values, 0)
                    values = _finite_or_one(values)
                floats, others = _cut(planes, plane_refs, at, seen, len(x.planes))
                corner = (i * block_q + seen.start, j * block_k + at.start)
                score, allowed = _modify(plan, tile, full, corner, others, score, *floats)
                if plan.running_max:
                    row = largest[:, seen]
                    new = jnp.maximum(row, score.max(0, keepdims=True))
                    finite = _finite(new) if masked else new
                    weight = exponential(score - finite)
                    shrink = exponential(row - finite)
                    largest[:, seen] = new
                    total[:, seen] = total[:, seen] * shrink + weight.sum(0, keepdims=True)
                    mixed[:, seen] = mixed[:, seen] * shrink + _product(
                        plan, values, weight.astype(plan.dtype), (1, 0)
                    )
                else:
                    weight = plan.function(score)
                    weight = weight if allowed is None else jnp.where(allowed, weight, 0)
                    total[:, seen] += weight.sum(0, keepdims=True)
                    mixed[:, seen] += _product(plan, values, weight.astype(plan.dtype), (1, 0))

        _each_sort(walk, run, masked, offset, body)

        @pl.when(m == walk.steps - 1)
        def _():
            sums = total[...]
            safe = jnp.where(sums == 0, 1, sums)
            row = _finite(largest[...]) * unit + jnp.log(safe)
            lse[0, 0] = jnp.where(sums == 0, -jnp.inf, row)
            out[0, 0] = (mixed[...] / safe if plan.divide else mixed[...]).astype(out.dtype)

    n_tables, share = len(tables), h // groups

    def at_query(b, h, i, *_):
        return b, h, 0, i

    def at_key(b, h, *grid):
        return b, h // share, place(b, h, *grid)[3], 0

    query, key, value = (y.astype(plan.dtype) for y in (x.query, x.key, x.value))
    operands = [_upright(key, s), _transposed(query, t), _transposed(value, s)]
    outputs = [
        jax.ShapeDtypeStruct((b, h, e, t), x.query.dtype),
        jax.ShapeDtypeStruct((b, h, 1, t), jnp.float32),
    ]
    extra = [p.operand() for p in (*planes, *sinks)]
    out, lse = pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=n_tables,
            grid=(b, h, walk.rows, walk.steps),
            in_specs=[
                pl.BlockSpec((1, 1, block_k, d), at_key),
                pl.BlockSpec((1, 1, d, block_q), at_query),
                pl.BlockSpec((1, 1, e, block_k), lambda *g: (*at_key(*g)[:2], 0, at_key(*g)[2])),
                *(p.spec() for p in (*planes, *sinks)),
            ],
            out_specs=[
                pl.BlockSpec((1, 1, e, block_q), at_query),
                pl.BlockSpec((1, 1, 1, block_q), at_query),
            ],
            scratch_shapes=[
                pltpu.VMEM((1, block_q), jnp.float32),
                pltpu.VMEM((1, block_q), jnp.float32),
                pltpu.VMEM((e, block_q), jnp.float32),
            ],
        ),
        compiler_params=_parameters("parallel", "parallel", "parallel", "arbitrary"),
        cost_estimate=_cost(walk, b * h, d + e, [*operands, *extra, *outputs]),
        interpret=plan.interpret,
        name="attend_forward",
    )(*map(jnp.asarray, tables), *operands, *extra)
    return jnp.moveaxis(out[..., : plan.t], 3, 1), jnp.swapaxes(lse[:, :, 0, : plan.t], 1, 2)


def _forward_saving(plan, x, rest):
    out, lse = _forward(plan, x, rest)
    return (out, lse), (x, rest, out, lse)


def _backward(plan, saved, cotangents):
    """Gradients. With w = f(score) and out = sum_j w_j v_j / total, lse = log(total):

        dw_j = (dout . v_j - dout . out + dlse) / total

    For softmax w / total = exp(score - lse), so the division goes into the exponent.
    """
    x, rest, out, lse = saved
    d_out, d_lse = cotangents
    d_out = d_out.astype(jnp.float32)
    # Numbers of each query: [b, h, 1, t].
    across = lambda y: jnp.swapaxes(y, 1, 2)[:, :, None]
    row_lse, d_total = across(_finite(lse)), jnp.zeros_like(across(lse))
    if plan.divide:
        d_total = across(d_lse - (d_out * out.astype(jnp.float32)).sum(-1))
        d_total = jnp.where(across(lse) == -jnp.inf, 0, d_total)
        if not plan.running_max:
            inverse = jnp.where(across(lse) == -jnp.inf, 0, jnp.exp(-row_lse))
            d_out, d_total = d_out * jnp.moveaxis(inverse, 3, 1), d_total * inverse
    d_sink = None
    if x.sink is not None:

        def weigh_sink(sink):
            return plan.function(jnp.broadcast_to(sink[:, :, None], row_lse.shape) - taken_off)

        taken_off = row_lse if plan.running_max else jnp.zeros_like(row_lse)
        d_sink = jax.vjp(weigh_sink, x.sink)[1](d_total)[0]

    block = plan.backward.block_q
    mask, summary = _masking(plan, rest, plan.backward)

    def cut(first, last):
        """The same problem for a stretch of queries; only what is as long as they are is cut."""
        q = slice(first, last)
        tiles = summary[first // block : -(-last // block)]
        planes = tuple(p[:, :, q] if p.shape[2] > 1 else p for p in (*x.planes, *rest.mask))
        floats = x._replace(query=x.query[:, q], planes=planes[: len(x.planes)])
        others = rest._replace(mask=planes[len(x.planes) :])
        return first, mask, tiles, floats, others, d_out[:, q], row_lse[..., q], d_total[..., q]

    share = x.query.shape[2] // x.key.shape[2]
    per_query = share * x.query.shape[3] * (4 + 2 * x.query.dtype.itemsize)
    stretch = max(QUERY_GRADIENT_BYTES // per_query // block, 1) * block
    d_query, d_key, d_value, d_planes = [], 0, 0, [0] * len(x.planes)
    for first in range(0, plan.t, stretch):
        d_q, d_k, d_v, d_p = _backward_stretch(plan, *cut(first, min(first + stretch, plan.t)))
        d_query.append(d_q)
        d_key, d_value = d_key + d_k, d_value + d_v
        for n, (own, plane) in enumerate(zip(d_p, x.planes, strict=True)):
            if plane.shape[2] == 1:
                d_planes[n] += own
            else:  # Each stretch knows its own rows only.
                rest_of = ((0, 0), (0, 0), (first, plan.t - first - own.shape[2]), (0, 0))
                d_planes[n] += jnp.pad(own, rest_of)
    gradients = _Floats(
        jnp.concatenate(d_query, 1), d_key, d_value, tuple(d_planes), d_sink
    )  # fmt: skip
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x), None


def _backward_stretch(
    plan: _Plan, first: int, mask: Mask | None, summary: Any, x: _Floats, rest: _Rest,
    d_out: Array, row_lse: Array, d_total: Array,
):  # fmt: skip
    """Gradients from the queries that start at `first`: query, key, value, planes."""
    (b, length, h, d), e, groups = x.query.shape, x.value.shape[3], x.key.shape[2]
    tile = plan.backward
    block_q, block_k, _part = tile[:3]
    share, n_floats = h // groups, len(x.planes)
    t, s = (-(-n // block) * block for n, block in ((length, block_q), (plan.s, block_k)))
    walk, tables = walk_columns(mask, summary, (block_q, block_k), plan.s, first)
    single = t == block_q

    def place(b, g, j, member, m, *tables):
        return b, g * share + member, walk.place(j, m, tables)[0], j

    planes = [Plane(p, place, block_q, block_k) for p in _planes(plan, x, rest, t, s)]
    small = [n for n, p in enumerate(planes[:n_floats]) if not all(p.varies)]

    def kernel(*refs):
        refs = list(refs)
        tables = [refs.pop(0) for _ in tables_in]
        key, value, query, d_out, row_lse, d_total = (refs.pop(0) for _ in range(6))
        plane_refs = [refs.pop(0) for _ in planes]
        d_query, d_key, d_value = (refs.pop(0) for _ in range(3))
        d_planes = [refs.pop(0) for _ in small]
        key_t, finite, sum_query, sum_key, sum_value = refs
        finite = finite if plan.hides else value.at[0, 0]
        j, member, m = (pl.program_id(axis) for axis in (2, 3, 4))
        starts, ends = (member == 0) & (m == 0), (member == share - 1) & (m == walk.steps - 1)
        i, run, masked, offset = walk.place(j, m, tables)

        @pl.when((j == 0) & starts)
        def _():
            sum_query[...] = jnp.zeros(sum_query.shape, jnp.float32)
            for index, ref in zip(small, d_planes, strict=True):
                if not planes[index].varies[1]:
                    ref[...] = jnp.zeros(ref.shape, jnp.float32)

        @pl.when(starts)
        def _():
            sum_key[...] = jnp.zeros(sum_key.shape, jnp.float32)
            sum_value[...] = jnp.zeros(sum_value.shape, jnp.float32)
            key_t[...] = (_finite_or_one(key[0, 0]) if plan.hides else key[0, 0]).T
            if plan.hides:
                finite[...] = _finite_or_one(value[0, 0])

        @pl.when(m == 0)
        def _():
            for index, ref in zip(small, d_planes, strict=True):
                if planes[index].varies[1]:
                    ref[...] = jnp.zeros(ref.shape, jnp.float32)

        def body(masked, offset):
            for at, seen, full in _parts(tile, walk, masked, offset):
                width = seen.stop - seen.start
                columns = seen
                if not single:
                    start = pl.multiple_of(i * block_q + seen.start, 128)
                    columns = pl.ds(start, width)
                queries, d_outs = query[0, 0, :, seen], d_out[0, 0, :, seen]
                score = _product(plan, key[0, 0, at], queries, (1, 0)) * plan.scale
                if masked and plan.hides:
                    score += _poison(value[0, 0, at], 1)
                floats, others = _cut(planes, plane_refs, at, seen, n_floats)
                corner = (first + i * block_q + seen.start, j * block_k + at.start)
                weigh = functools.partial(
                    _weigh, plan, tile, full, corner, others, row_lse[0, 0, :, seen]
                )
                floats = [jnp.broadcast_to(f, score.shape) for f in floats]
                weight, pull = jax.vjp(weigh, score, *floats)
                sum_value[:, at] += _product(plan, d_outs, weight.astype(plan.dtype), (1, 1))
                d_weight = _product(plan, finite[at], d_outs, (1, 0)) + d_total[0, 0, :, seen]
                d_score, *d_floats = pull(d_weight)
                d_score = d_score.astype(plan.dtype)
                sum_key[:, at] += _product(plan, queries, d_score, (1, 1))
                sum_query[member, :, columns] += _product(plan, key_t[:, at], d_score, (1, 0))
                for index, ref in zip(small, d_planes, strict=True):
                    own = d_floats[index]
                    if planes[index].varies[1]:
                        ref[0, 0, :, at] += row(own.sum(1, keepdims=True))
                    else:
                        place = columns if planes[index].varies[0] else seen
                        ref[0, member, :, place] += own.sum(0, keepdims=True)

        _each_sort(walk, run, masked, offset, body)

        @pl.when(ends)
        def _():
            d_key[0, 0] = (sum_key[...] * plan.scale).astype(d_key.dtype)
            d_value[0, 0] = sum_value[...].astype(d_value.dtype)

        @pl.when(ends & (j == walk.rows - 1))
        def _():
            d_query[0] = (sum_query[...] * plan.scale).astype(d_query.dtype)

    def at_key(b, g, j, *_):
        return b, g, j, 0

    def at_key_t(b, g, j, *_):
        return b, g, 0, j

    def at_query(*grid):
        b, h, i, _ = place(*grid)
        return b, h, 0, i

    def whole(b, g, *_):
        return b, g, 0, 0

    def along(plane):
        """Where the gradient of a small plane is summed: its shape, and how it is cut."""
        if plane.varies[1]:
            index = lambda *g: (*place(*g)[:2], 0, g[2])
            return (b, h, 1, s), pl.BlockSpec((1, 1, 1, block_k), index)
        columns = t if plane.varies[0] else block_q
        return (b, h, 1, columns), pl.BlockSpec((1, share, 1, columns), whole)

    tables_in = tuple(map(jnp.asarray, tables))
    query, key, value = (y.astype(plan.dtype) for y in (x.query, x.key, x.value))
    wide = jnp.float32 if length < plan.t else None  # Stretches are summed in float32.
    operands = [
        _upright(key, s), _upright(value, s), _transposed(query, t),
        _transposed(d_out.astype(plan.dtype), t),
        *(jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, t - length))) for y in (row_lse, d_total)),
        *(p.operand() for p in planes),
    ]  # fmt: skip
    outputs = [
        jax.ShapeDtypeStruct((b, h, d, t), x.query.dtype),
        jax.ShapeDtypeStruct((b, groups, d, s), wide or x.key.dtype),
        jax.ShapeDtypeStruct((b, groups, e, s), wide or x.value.dtype),
        *(jax.ShapeDtypeStruct(along(planes[n])[0], jnp.float32) for n in small),
    ]
    d_query, d_key, d_value, *d_small = pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(tables_in),
            grid=(b, groups, walk.rows, share, walk.steps),
            in_specs=[
                pl.BlockSpec((1, 1, block_k, d), at_key),
                pl.BlockSpec((1, 1, block_k, e), at_key),
                pl.BlockSpec((1, 1, d, block_q), at_query),
                pl.BlockSpec((1, 1, e, block_q), at_query),
                pl.BlockSpec((1, 1, 1, block_q), at_query),
                pl.BlockSpec((1, 1, 1, block_q), at_query),
                *(p.spec() for p in planes),
            ],
            out_specs=[
                pl.BlockSpec((1, share, d, t), whole),
                pl.BlockSpec((1, 1, d, block_k), at_key_t),
                pl.BlockSpec((1, 1, e, block_k), at_key_t),
                *(along(planes[n])[1] for n in small),
            ],
            scratch_shapes=[
                pltpu.VMEM((d, block_k), plan.dtype),
                pltpu.VMEM((block_k, e), plan.dtype),
                pltpu.VMEM((share, d, t), jnp.float32),
                pltpu.VMEM((d, block_k), jnp.float32),
                pltpu.VMEM((e, block_k), jnp.float32),
            ],
        ),
        compiler_params=_parameters("parallel", "parallel", *["arbitrary"] * 3),
        cost_estimate=_cost(walk, b * h, 3 * d + 2 * e, [*operands, *outputs]),
        interpret=plan.interpret,
        name="attend_backward",
    )(*tables_in, *operands)
    d_planes: list[Any] = [None] * n_floats
    for n, own in zip(small, d_small, strict=True):
        along_q, along_k = planes[n].varies
        own = own[..., : plan.s] if along_k else jnp.swapaxes(own, 2, 3)[:, :, :length]
        own = own if along_q or along_k else own.sum(2, keepdims=True)
        d_planes[n] = _sum_to(own, x.planes[n].shape)
    for n in set(range(n_floats)) - set(small):
        d_planes[n] = _full_gradient(plan, n, first, summary, planes, operands)[:, :, :length]
    d_query = jnp.moveaxis(d_query[..., :length], 3, 1)
    d_key, d_value = (jnp.moveaxis(y[..., : plan.s], 3, 1) for y in (d_key, d_value))
    return d_query, d_key, d_value, d_planes


def _full_gradient(plan: _Plan, wanted: int, first: int, summary: Any, planes, operands) -> Array:
    """The gradient of a plane that varies along queries and keys, e.g. of a full bias.

    A program of its own, with batch entries and heads innermost: they are summed on the chip where
    the plane does not vary, and the whole program is dropped where nobody asks for the gradient.
    """
    b, groups, s, d = operands[0].shape
    e, (h, t) = operands[1].shape[3], (operands[2].shape[1], operands[2].shape[3])
    tile = plan.backward
    block_q, block_k, part = tile[:3]
    n_floats = plan.has_bias + plan.has_shift + sum(plan.numbers)
    size_b, size_h = planes[wanted].array.shape[:2]
    inner_h = 1 if size_h > 1 else h
    inner = inner_h * (1 if size_b > 1 else b)

    def place(own_b, own_h, i, j, n, *_):
        return (
            own_b if size_b > 1 else n // inner_h,
            own_h if size_h > 1 else n % inner_h,
            i,
            j,
        )

    cut = [p._replace(place=place) for p in planes]

    def kernel(kinds, key, value, query, d_out, row_lse, d_total, *refs):
        *plane_refs, out, finite = refs
        i, j, n = (pl.program_id(axis) for axis in (2, 3, 4))

        @pl.when(n == 0)
        def _():
            out[...] = jnp.zeros(out.shape, jnp.float32)

        finite[...] = _finite_or_one(value[0, 0]) if plan.hides else value[0, 0]

        def body(masked):
            for start in range(0, block_k, part):
                at = slice(start, start + part)
                tiles = [p.read(ref, at) for p, ref in zip(cut, plane_refs, strict=True)]
                score = _product(plan, key[0, 0, at], query[0, 0], (1, 0)) * plan.scale
                if masked and plan.hides:
                    score += _poison(value[0, 0, at], 1)
                corner = (first + i * block_q, j * block_k + start)
                weigh = functools.partial(
                    _weigh, plan, tile, slice(0, 0) if masked else None, corner, tiles[n_floats:],
                    row_lse[0, 0],
                )  # fmt: skip
                floats = [jnp.broadcast_to(f, score.shape) for f in tiles[:n_floats]]
                _, pull = jax.vjp(weigh, score, *floats)
                d_weight = _product(plan, finite[at], d_out[0, 0], (1, 0)) + d_total[0, 0]
                out[0, 0, :, at] += pull(d_weight)[1 + wanted].T

        pl.when(kinds[i, j] == FULL)(lambda: body(False))
        pl.when(kinds[i, j] == PARTIAL)(lambda: body(True))

    def at_key(*grid):
        own_b, own_h, _, j = place(*grid)
        return own_b, own_h // (h // groups), j, 0

    def at_query(*grid):
        own_b, own_h, i, _ = place(*grid)
        return own_b, own_h, 0, i

    out = jax.ShapeDtypeStruct((size_b, size_h, t, s), jnp.float32)
    row = pl.BlockSpec((1, 1, 1, block_q), at_query)
    gradient = pl.pallas_call(
        kernel,
        out_shape=out,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(size_b, size_h, t // block_q, s // block_k, inner),
            in_specs=[
                pl.BlockSpec((1, 1, block_k, d), at_key),
                pl.BlockSpec((1, 1, block_k, e), at_key),
                pl.BlockSpec((1, 1, d, block_q), at_query),
                pl.BlockSpec((1, 1, e, block_q), at_query),
                row,
                row,
                *(p.spec() for p in cut),
            ],
            out_specs=pl.BlockSpec(
                (1, 1, block_q, block_k), lambda own_b, own_h, i, j, *_: (own_b, own_h, i, j)
            ),
            scratch_shapes=[pltpu.VMEM((block_k, e), plan.dtype)],
        ),
        compiler_params=_parameters(*["parallel"] * 4, "arbitrary"),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * h * t * s * (d + e),
            transcendentals=b * h * t * s,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*operands, out)),
        ),
        interpret=plan.interpret,
        name="attend_full_gradient",
    )(jnp.asarray(summary, jnp.int32), *operands)
    return gradient[..., : plan.s]


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(n for n, size in enumerate(shape) if size == 1)
    return x.sum(axes, keepdims=True)


_core = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, _backward)
_run = jax.jit(_core, static_argnums=0)
