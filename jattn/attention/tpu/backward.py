"""The backward kernel: a block of keys meets blocks of queries (arXiv 2307.08691)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention.masks import Mask
from jattn.attention.tpu.logits_operands import LogitsOperand
from jattn.attention.tpu.operand_gradient import operand_gradient
from jattn.attention.tpu.plan import DifferentiableOperands, OtherOperands, Plan
from jattn.attention.tpu.schedule import schedule_columns
from jattn.attention.tpu.tiles import (
    all_logits_operands,
    cost,
    cut_logits_operands,
    each_sort,
    finite_or_one,
    heads_first,
    kept_part,
    masking,
    nan_markers,
    parameters,
    tile_parts,
    tile_weights,
    time_last,
)
from jattn.pallas.tpu import as_row, product

FAR = float(np.finfo(np.float32).max)  # Any score less this has a weight of zero.
QUERY_GRADIENT_BYTES = 24 * 2**20  # Kept on the chip; longer queries go in stretches.


def backward(plan, saved, cotangents):
    """Gradients. With w = f(score) and out = sum_j w_j v_j / total, lse = log(total):

        dw_j = (dout . v_j - dout . out + dlse) / total

    The division by the total goes into dout, once a query. For softmax f(score) = exp(score -
    largest) then, and not exp(score - lse), where huge scores would lose the total.
    """
    x, rest, out, largest, total = saved
    d_out, d_lse, _ = cotangents
    d_out = d_out.astype(jnp.float32)
    # Numbers of each query: [b, h, 1, t].
    across = lambda y: jnp.swapaxes(y, 1, 2)[:, :, None]
    some = total != 0
    d_out = jnp.where(some[..., None], d_out, 0)
    row, d_total = across(largest), jnp.zeros_like(across(largest))
    if plan.divide:
        inverse = jnp.where(some, 1 / jnp.where(some, total, 1), 0)
        d_total = d_lse - (d_out * out.astype(jnp.float32)).sum(-1)
        d_total = across(jnp.where(some, d_total, 0) * inverse)
        d_out = d_out * inverse[..., None]
    if plan.has_mask:  # One that is not finite and sees keys has weights that are not.
        x = x._replace(query=jnp.where(jnp.isfinite(x.query), x.query, 0))
    d_sink = None
    if x.sink is not None:

        def weigh_sink(sink):
            return plan.function(jnp.broadcast_to(sink[:, :, None], row.shape) - row)

        d_sink = jax.vjp(weigh_sink, x.sink)[1](d_total)[0]

    block = plan.backward.block_q
    mask, summary = masking(plan, rest, plan.backward)

    def cut(first, last):
        """The same problem for a stretch of queries; only what is as long as they are is cut."""
        q = slice(first, last)
        tiles = summary[first // block : -(-last // block)]
        logits_operands = tuple(
            p[:, :, q] if p.shape[2] > 1 else p for p in (*x.logits_operands, *rest.mask)
        )
        floats = x._replace(
            query=x.query[:, q], logits_operands=logits_operands[: len(x.logits_operands)]
        )
        others = rest._replace(mask=logits_operands[len(x.logits_operands) :])
        return first, mask, tiles, floats, others, d_out[:, q], row[..., q], d_total[..., q]

    share = x.query.shape[2] // x.key.shape[2]
    per_query = share * x.query.shape[3] * (4 + 2 * x.query.dtype.itemsize)
    stretch = max(QUERY_GRADIENT_BYTES // per_query // block, 1) * block
    d_query: list[Array] = []
    d_key: Any = 0
    d_value: Any = 0
    d_logits_operands: list[Any] = [0] * len(x.logits_operands)
    for first in range(0, plan.t, stretch):
        d_q, d_k, d_v, d_p = _backward_stretch(plan, *cut(first, min(first + stretch, plan.t)))
        d_query.append(d_q)
        d_key, d_value = d_key + d_k, d_value + d_v
        for n, (own, operand) in enumerate(zip(d_p, x.logits_operands, strict=True)):
            if operand.shape[2] == 1:
                d_logits_operands[n] += own
            else:  # Each stretch knows its own rows only.
                rest_of = ((0, 0), (0, 0), (first, plan.t - first - own.shape[2]), (0, 0))
                d_logits_operands[n] += jnp.pad(own, rest_of)
    gradients = DifferentiableOperands(
        jnp.concatenate(d_query, 1), d_key, d_value, tuple(d_logits_operands), d_sink
    )  # fmt: skip
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x), None


def _backward_stretch(
    plan: Plan, first: int, mask: Mask | None, summary: Any,
    x: DifferentiableOperands, rest: OtherOperands,
    d_out: Array, largest: Array, d_total: Array,
):  # fmt: skip
    """Gradients from the queries that start at `first`: query, key, value, logits_operands."""
    (b, length, h, d), e, groups = x.query.shape, x.value.shape[3], x.key.shape[2]
    tile = plan.backward
    block_q, block_k, _part = tile[:3]
    share, n_floats = h // groups, len(x.logits_operands)
    t, s = (-(-n // block) * block for n, block in ((length, block_q), (plan.s, block_k)))
    schedule, tables = schedule_columns(mask, summary, (block_q, block_k), plan.s, first)
    single = t == block_q

    def tile_index(b, g, j, head_in_group, m, *tables):
        return b, g * share + head_in_group, schedule.tile_at(j, m, tables)[0], j

    logits_operands = [
        LogitsOperand(p, tile_index, block_q, block_k)
        for p in all_logits_operands(plan, x, rest, t, s)
    ]
    small = [n for n, p in enumerate(logits_operands[:n_floats]) if not all(p.varies)]

    def kernel(*refs):
        refs = list(refs)
        tables = [refs.pop(0) for _ in tables_in]
        key, value, query, d_out, largest, d_total = (refs.pop(0) for _ in range(6))
        logits_refs = [refs.pop(0) for _ in logits_operands]
        d_query, d_key, d_value = (refs.pop(0) for _ in range(3))
        d_logits_operands = [refs.pop(0) for _ in small]
        key_t, finite, sum_query, sum_key, sum_value = refs
        finite = finite if plan.has_mask else value.at[0, 0]
        j, head_in_group, m = (pl.program_id(axis) for axis in (2, 3, 4))
        starts, ends = (
            (head_in_group == 0) & (m == 0),
            (head_in_group == share - 1) & (m == schedule.steps - 1),
        )
        i, run, masked, offset = schedule.tile_at(j, m, tables)

        @pl.when((j == 0) & starts)
        def _():
            sum_query[...] = jnp.zeros(sum_query.shape, jnp.float32)
            for index, ref in zip(small, d_logits_operands, strict=True):
                if not logits_operands[index].varies[1]:
                    ref[...] = jnp.zeros(ref.shape, jnp.float32)

        @pl.when(starts)
        def _():
            sum_key[...] = jnp.zeros(sum_key.shape, jnp.float32)
            sum_value[...] = jnp.zeros(sum_value.shape, jnp.float32)
            key_t[...] = (finite_or_one(key[0, 0]) if plan.has_mask else key[0, 0]).T
            if plan.has_mask:
                finite[...] = finite_or_one(value[0, 0])

        @pl.when(m == 0)
        def _():
            for index, ref in zip(small, d_logits_operands, strict=True):
                if logits_operands[index].varies[1]:
                    ref[...] = jnp.zeros(ref.shape, jnp.float32)

        def body(masked, offset):
            for at, seen, full in tile_parts(tile, schedule, masked, offset):
                width = seen.stop - seen.start
                columns = seen
                if not single:
                    start = pl.multiple_of(i * block_q + seen.start, 128)
                    columns = pl.ds(start, width)
                queries, d_outs = query[0, 0, :, seen], d_out[0, 0, :, seen]
                score = product(key[0, 0, at], queries, (1, 0), plan.dtype) * plan.scale
                if masked and plan.has_mask:
                    score += nan_markers(value[0, 0, at], 1)
                floats, others = cut_logits_operands(
                    logits_operands, logits_refs, at, seen, n_floats
                )
                corner = (first + i * block_q + seen.start, j * block_k + at.start)
                weigh = functools.partial(
                    tile_weights, plan, tile, full, corner, others, largest[0, 0, :, seen]
                )
                floats = [jnp.broadcast_to(f, score.shape) for f in floats]
                weight, pull = jax.vjp(weigh, score, *floats)
                d_weight = product(finite[at], d_outs, (1, 0), plan.dtype)
                factor = kept_part(plan, corner, others, weight.shape)
                if factor is not None:
                    weight, d_weight = weight * factor, d_weight * factor
                sum_value[:, at] += product(d_outs, weight, (1, 1), plan.dtype)
                d_score, *d_floats = pull(d_weight + d_total[0, 0, :, seen])
                d_score = d_score.astype(plan.dtype)
                sum_key[:, at] += product(queries, d_score, (1, 1), plan.dtype)
                sum_query[head_in_group, :, columns] += product(
                    key_t[:, at], d_score, (1, 0), plan.dtype
                )
                for index, ref in zip(small, d_logits_operands, strict=True):
                    own = d_floats[index]
                    if logits_operands[index].varies[1]:
                        ref[0, 0, :, at] += as_row(own.sum(1, keepdims=True))
                    else:
                        stretch = columns if logits_operands[index].varies[0] else seen
                        ref[0, head_in_group, :, stretch] += own.sum(0, keepdims=True)

        each_sort(schedule, run, masked, offset, body)

        @pl.when(ends)
        def _():
            d_key[0, 0] = (sum_key[...] * plan.scale).astype(d_key.dtype)
            d_value[0, 0] = sum_value[...].astype(d_value.dtype)

        @pl.when(ends & (j == schedule.rows - 1))
        def _():
            d_query[0] = (sum_query[...] * plan.scale).astype(d_query.dtype)

    def at_key(b, g, j, *_):
        return b, g, j, 0

    def at_key_t(b, g, j, *_):
        return b, g, 0, j

    def at_query(*grid):
        b, h, i, _ = tile_index(*grid)
        return b, h, 0, i

    def whole(b, g, *_):
        return b, g, 0, 0

    def along(operand):
        """Where the gradient of a small operand is summed: its shape, and how it is cut."""
        if operand.varies[1]:
            index = lambda *g: (*tile_index(*g)[:2], 0, g[2])
            return (b, h, 1, s), pl.BlockSpec((1, 1, 1, block_k), index)
        columns = t if operand.varies[0] else block_q
        return (b, h, 1, columns), pl.BlockSpec((1, share, 1, columns), whole)

    tables_in = tuple(map(jnp.asarray, tables))
    query, key, value = (y.astype(plan.dtype) for y in (x.query, x.key, x.value))
    wide = jnp.float32 if length < plan.t else None  # Stretches are summed in float32.
    operands = [
        # Padded queries are like the last one, but with weights and gradients of zero.
        heads_first(key, s), heads_first(value, s), time_last(query, t, mode="edge"),
        time_last(d_out.astype(plan.dtype), t),
        *(
            jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, t - length)), constant_values=fill)
            for y, fill in ((largest, FAR), (d_total, 0))
        ),
        *(p.operand() for p in logits_operands),
    ]  # fmt: skip
    outputs = [
        jax.ShapeDtypeStruct((b, h, d, t), x.query.dtype),
        jax.ShapeDtypeStruct((b, groups, d, s), wide or x.key.dtype),
        jax.ShapeDtypeStruct((b, groups, e, s), wide or x.value.dtype),
        *(jax.ShapeDtypeStruct(along(logits_operands[n])[0], jnp.float32) for n in small),
    ]
    d_query, d_key, d_value, *d_small = pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(tables_in),
            grid=(b, groups, schedule.rows, share, schedule.steps),
            in_specs=[
                pl.BlockSpec((1, 1, block_k, d), at_key),
                pl.BlockSpec((1, 1, block_k, e), at_key),
                pl.BlockSpec((1, 1, d, block_q), at_query),
                pl.BlockSpec((1, 1, e, block_q), at_query),
                pl.BlockSpec((1, 1, 1, block_q), at_query),
                pl.BlockSpec((1, 1, 1, block_q), at_query),
                *(p.spec() for p in logits_operands),
            ],
            out_specs=[
                pl.BlockSpec((1, share, d, t), whole),
                pl.BlockSpec((1, 1, d, block_k), at_key_t),
                pl.BlockSpec((1, 1, e, block_k), at_key_t),
                *(along(logits_operands[n])[1] for n in small),
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
        cost_estimate=cost(schedule, b * h, 3 * d + 2 * e, [*operands, *outputs]),
        interpret=plan.interpret,
        name="attend_backward",
    )(*tables_in, *operands)
    d_logits_operands: list[Any] = [None] * n_floats
    for n, own in zip(small, d_small, strict=True):
        along_q, along_k = logits_operands[n].varies
        own = own[..., : plan.s] if along_k else jnp.swapaxes(own, 2, 3)[:, :, :length]
        own = own if along_q or along_k else own.sum(2, keepdims=True)
        d_logits_operands[n] = _sum_to(own, x.logits_operands[n].shape)
    for n in set(range(n_floats)) - set(small):
        d_logits_operands[n] = operand_gradient(plan, n, first, summary, logits_operands, operands)[
            :, :, :length
        ]
    d_query = jnp.moveaxis(d_query[..., :length], 3, 1)
    d_key, d_value = (jnp.moveaxis(y[..., : plan.s], 3, 1) for y in (d_key, d_value))
    return d_query, d_key, d_value, d_logits_operands


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(n for n, size in enumerate(shape) if size == 1)
    return x.sum(axes, keepdims=True)
