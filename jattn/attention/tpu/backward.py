"""The backward kernel: a block of keys meets blocks of queries (arXiv 2307.08691)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention.masks import Mask
from jattn.attention.tpu.plan import Floats, Plan, Rest
from jattn.attention.tpu.plane_gradient import plane_gradient
from jattn.attention.tpu.planes import Plane, row
from jattn.attention.tpu.tiles import (
    all_planes,
    cost,
    cut_planes,
    each_sort,
    finite_or_one,
    finite_row,
    masking,
    parameters,
    poison,
    product,
    tile_parts,
    tile_weights,
    transposed,
    upright,
)
from jattn.attention.tpu.walk import walk_columns

QUERY_GRADIENT_BYTES = 24 * 2**20  # Kept on the chip; longer queries go in stretches.


def backward(plan, saved, cotangents):
    """Gradients. With w = f(score) and out = sum_j w_j v_j / total, lse = log(total):

        dw_j = (dout . v_j - dout . out + dlse) / total

    For softmax w / total = exp(score - lse), so the division goes into the exponent.
    """
    x, rest, out, lse = saved
    d_out, d_lse = cotangents
    d_out = d_out.astype(jnp.float32)
    # Numbers of each query: [b, h, 1, t].
    across = lambda y: jnp.swapaxes(y, 1, 2)[:, :, None]
    row_lse, d_total = across(finite_row(lse)), jnp.zeros_like(across(lse))
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
    mask, summary = masking(plan, rest, plan.backward)

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
    d_query: list[Array] = []
    d_key: Any = 0
    d_value: Any = 0
    d_planes: list[Any] = [0] * len(x.planes)
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
    gradients = Floats(
        jnp.concatenate(d_query, 1), d_key, d_value, tuple(d_planes), d_sink
    )  # fmt: skip
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x), None


def _backward_stretch(
    plan: Plan, first: int, mask: Mask | None, summary: Any, x: Floats, rest: Rest,
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

    planes = [Plane(p, place, block_q, block_k) for p in all_planes(plan, x, rest, t, s)]
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
            key_t[...] = (finite_or_one(key[0, 0]) if plan.hides else key[0, 0]).T
            if plan.hides:
                finite[...] = finite_or_one(value[0, 0])

        @pl.when(m == 0)
        def _():
            for index, ref in zip(small, d_planes, strict=True):
                if planes[index].varies[1]:
                    ref[...] = jnp.zeros(ref.shape, jnp.float32)

        def body(masked, offset):
            for at, seen, full in tile_parts(tile, walk, masked, offset):
                width = seen.stop - seen.start
                columns = seen
                if not single:
                    start = pl.multiple_of(i * block_q + seen.start, 128)
                    columns = pl.ds(start, width)
                queries, d_outs = query[0, 0, :, seen], d_out[0, 0, :, seen]
                score = product(plan, key[0, 0, at], queries, (1, 0)) * plan.scale
                if masked and plan.hides:
                    score += poison(value[0, 0, at], 1)
                floats, others = cut_planes(planes, plane_refs, at, seen, n_floats)
                corner = (first + i * block_q + seen.start, j * block_k + at.start)
                weigh = functools.partial(
                    tile_weights, plan, tile, full, corner, others, row_lse[0, 0, :, seen]
                )
                floats = [jnp.broadcast_to(f, score.shape) for f in floats]
                weight, pull = jax.vjp(weigh, score, *floats)
                sum_value[:, at] += product(plan, d_outs, weight.astype(plan.dtype), (1, 1))
                d_weight = product(plan, finite[at], d_outs, (1, 0)) + d_total[0, 0, :, seen]
                d_score, *d_floats = pull(d_weight)
                d_score = d_score.astype(plan.dtype)
                sum_key[:, at] += product(plan, queries, d_score, (1, 1))
                sum_query[member, :, columns] += product(plan, key_t[:, at], d_score, (1, 0))
                for index, ref in zip(small, d_planes, strict=True):
                    own = d_floats[index]
                    if planes[index].varies[1]:
                        ref[0, 0, :, at] += row(own.sum(1, keepdims=True))
                    else:
                        place = columns if planes[index].varies[0] else seen
                        ref[0, member, :, place] += own.sum(0, keepdims=True)

        each_sort(walk, run, masked, offset, body)

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
        upright(key, s), upright(value, s), transposed(query, t),
        transposed(d_out.astype(plan.dtype), t),
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
        compiler_params=parameters(plan, "parallel", "parallel", *["arbitrary"] * 3),
        cost_estimate=cost(walk, b * h, 3 * d + 2 * e, [*operands, *outputs]),
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
        d_planes[n] = plane_gradient(plan, n, first, summary, planes, operands)[:, :, :length]
    d_query = jnp.moveaxis(d_query[..., :length], 3, 1)
    d_key, d_value = (jnp.moveaxis(y[..., : plan.s], 3, 1) for y in (d_key, d_value))
    return d_query, d_key, d_value, d_planes


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(n for n, size in enumerate(shape) if size == 1)
    return x.sum(axes, keepdims=True)
