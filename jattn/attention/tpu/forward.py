"""The forward kernel: a block of queries meets blocks of keys (arXiv 1805.02867)."""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention.logits_operands import pad_logits_operand
from jattn.attention.nonfinite import finite_row
from jattn.attention.tpu.logits_operands import LogitsOperand
from jattn.attention.tpu.plan import DifferentiableOperands, OtherOperands, Plan
from jattn.attention.tpu.schedule import schedule_rows
from jattn.attention.tpu.tiles import (
    all_logits_operands,
    cost,
    cut_logits_operands,
    each_sort,
    finite_or_one,
    heads_first,
    kept_part,
    masking,
    modify,
    nan_markers,
    parameters,
    tile_parts,
    time_last,
)
from jattn.pallas.tpu import product

LOG2_E = math.log2(math.e)  # exp2 is what the chip has.


def forward(
    plan: Plan, x: DifferentiableOperands, rest: OtherOperands
) -> tuple[Array, Array, Array]:
    """Output; the largest score of each query, 0 where there is none; the sum of its weights."""
    (b, _, h, d), e, groups = x.query.shape, x.value.shape[3], x.key.shape[2]
    tile = plan.forward
    block_q, block_k, _part = tile[:3]
    t, s = (-(-n // block) * block for n, block in ((plan.t, block_q), (plan.s, block_k)))
    mask, summary = masking(plan, rest, tile)
    schedule, tables = schedule_rows(mask, summary, (block_q, block_k), plan.s)
    plain = plan.running_max and plan.function is jnp.exp and tile.program is None
    plain = plain and not (plan.has_bias or plan.has_shift)
    # Where nothing comes between scale and exponential, scores are scaled to base 2 at once.
    unit = LOG2_E if plain else 1.0

    def exponential(x):
        if plain:
            return jnp.exp2(x)
        return jnp.exp2(x * LOG2_E) if plan.function is jnp.exp else plan.function(x)

    def tile_index(b, h, i, m, *tables):
        return b, h, i, schedule.tile_at(i, m, tables)[0]

    logits_operands = [
        LogitsOperand(p, tile_index, block_q, block_k)
        for p in all_logits_operands(plan, x, rest, t, s)
    ]
    sinks = []
    if x.sink is not None:
        sinks.append(
            LogitsOperand(pad_logits_operand(x.sink[..., None], t, 1), tile_index, block_q, block_k)
        )

    def kernel(*refs):
        refs = list(refs)
        tables = [refs.pop(0) for _ in range(n_tables)]
        key, query, value = (refs.pop(0) for _ in range(3))
        logits_refs = [refs.pop(0) for _ in logits_operands]
        sink_refs = [refs.pop(0) for _ in sinks]
        out, row_of, sum_of, largest, total, mixed = refs
        i, m = pl.program_id(2), pl.program_id(3)
        j, run, masked, offset = schedule.tile_at(i, m, tables)

        @pl.when(m == 0)
        def _():
            first = jnp.full(largest.shape, -jnp.inf if plan.running_max else 0, jnp.float32)
            weight = jnp.zeros(total.shape, jnp.float32)
            if sinks:  # One more logit, met first, without a value.
                sink = jnp.broadcast_to(sinks[0].read(sink_refs[0], slice(None)), total.shape)
                first = sink * unit if plan.running_max else first
                weight = plan.function(sink - finite_row(first) / unit)
            largest[...], total[...] = first, weight
            mixed[...] = jnp.zeros(mixed.shape, jnp.float32)

        def body(masked, offset):
            parts = tile_parts(tile, schedule, masked, offset)
            # All products first: the matrix unit is then ahead of the vector unit.
            raw = [
                product(key[0, 0, at], query[0, 0, :, seen], (1, 0), plan.dtype)
                for at, seen, _ in parts
            ]
            for (at, seen, full), score in zip(parts, raw, strict=True):
                values = value[0, 0, :, at]
                score = score * (plan.scale * unit)
                if masked and plan.has_mask:
                    score += nan_markers(values, 0)
                    values = finite_or_one(values)
                floats, others = cut_logits_operands(
                    logits_operands, logits_refs, at, seen, len(x.logits_operands)
                )
                corner = (i * block_q + seen.start, j * block_k + at.start)
                score, allowed = modify(plan, tile, full, corner, others, score, *floats)
                if plan.running_max:
                    row = largest[:, seen]
                    new = jnp.maximum(row, score.max(0, keepdims=True))
                    finite = finite_row(new)
                    weight = exponential(score - finite)
                    shrink = exponential(row - finite)
                    largest[:, seen] = new
                    total[:, seen] = total[:, seen] * shrink + weight.sum(0, keepdims=True)
                    factor = kept_part(plan, corner, others, weight.shape)
                    weight = weight if factor is None else weight * factor
                    mixed[:, seen] = mixed[:, seen] * shrink + product(
                        values, weight, (1, 0), plan.dtype
                    )
                else:
                    weight = plan.function(score)
                    weight = weight if allowed is None else jnp.where(allowed, weight, 0)
                    total[:, seen] += weight.sum(0, keepdims=True)
                    factor = kept_part(plan, corner, others, weight.shape)
                    weight = weight if factor is None else weight * factor
                    mixed[:, seen] += product(values, weight, (1, 0), plan.dtype)

        each_sort(schedule, run, masked, offset, body)

        @pl.when(m == schedule.steps - 1)
        def _():
            sums = total[...]
            safe = jnp.where(sums == 0, 1, sums)
            row_of[0, 0], sum_of[0, 0] = finite_row(largest[...]) / unit, sums
            out[0, 0] = (mixed[...] / safe if plan.divide else mixed[...]).astype(out.dtype)

    n_tables, share = len(tables), h // groups

    def at_query(b, h, i, *_):
        return b, h, 0, i

    def at_key(b, h, *grid):
        return b, h // share, tile_index(b, h, *grid)[3], 0

    query, key, value = (y.astype(plan.dtype) for y in (x.query, x.key, x.value))
    operands = [heads_first(key, s), time_last(query, t), time_last(value, s)]
    outputs = [
        jax.ShapeDtypeStruct((b, h, e, t), x.query.dtype),
        *[jax.ShapeDtypeStruct((b, h, 1, t), jnp.float32)] * 2,
    ]
    extra = [p.operand() for p in (*logits_operands, *sinks)]
    out, row, sums = pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=n_tables,
            grid=(b, h, schedule.rows, schedule.steps),
            in_specs=[
                pl.BlockSpec((1, 1, block_k, d), at_key),
                pl.BlockSpec((1, 1, d, block_q), at_query),
                pl.BlockSpec((1, 1, e, block_k), lambda *g: (*at_key(*g)[:2], 0, at_key(*g)[2])),
                *(p.spec() for p in (*logits_operands, *sinks)),
            ],
            out_specs=[
                pl.BlockSpec((1, 1, e, block_q), at_query),
                *[pl.BlockSpec((1, 1, 1, block_q), at_query)] * 2,
            ],
            scratch_shapes=[
                pltpu.VMEM((1, block_q), jnp.float32),
                pltpu.VMEM((1, block_q), jnp.float32),
                pltpu.VMEM((e, block_q), jnp.float32),
            ],
        ),
        compiler_params=parameters(plan, "parallel", "parallel", "parallel", "arbitrary"),
        cost_estimate=cost(schedule, b * h, d + e, [*operands, *extra, *outputs]),
        interpret=plan.interpret,
        name="attend_forward",
    )(*map(jnp.asarray, tables), *operands, *extra)
    row, sums = (jnp.swapaxes(y[:, :, 0, : plan.t], 1, 2) for y in (row, sums))
    return jnp.moveaxis(out[..., : plan.t], 3, 1), row, sums
