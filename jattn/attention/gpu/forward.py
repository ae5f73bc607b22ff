"""The forward kernel: a block of queries meets blocks of keys (arXiv 1805.02867, 2407.08608)."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from jattn.attention.gpu.broadcast_operands import broadcast_operand
from jattn.attention.gpu.keys import prepare_keys
from jattn.attention.gpu.plan import WARPGROUP_ROWS, DifferentiableOperands, OtherOperands, Plan
from jattn.attention.gpu.tiles import (
    compute_registers,
    copy_registers,
    masking,
    modify,
    padded,
    whole,
)
from jattn.attention.nonfinite import finite_row
from jattn.attention.tiling import schedule_tables
from jattn.pallas.gpu import PARAMETERS, broadcast_rows, feed, product, put, ring, transpose

LOG2_E = math.log2(math.e)  # exp2 is what the chip has.


def forward(
    plan: Plan, x: DifferentiableOperands, rest: OtherOperands
) -> tuple[Array, Array, Array]:
    """Output `[b, t, h, e]`; the largest score of each query, and the sum, `[b, t, h]`."""
    b, _, h, _ = x.query.shape
    d, e, share = whole(x.key.shape[3]), whole(x.value.shape[3]), h // x.key.shape[2]
    tile, program = plan.forward, plan.programs[0] if plan.programs else None
    blocks_q = -(-plan.t // tile.rows)
    t, s = blocks_q * tile.rows, -(-plan.s // tile.columns) * tile.columns
    keys, query = prepare_keys(plan, x, s), padded(x.query, t)
    tables = schedule_tables(masking(plan, rest, (tile.rows, tile.columns))[1])
    # Where nothing comes between scale and exponential, the maximum is taken before scaling.
    unit = plan.scale if program is None else 1.0
    power = unit * LOG2_E
    part = e if e <= 128 else 64  # Columns of the output in one product.

    sizes = (WARPGROUP_ROWS, tile.columns)
    cut = functools.partial(broadcast_operand, lengths=(t, s), blocks=sizes, transposed=False)
    score_mod_operands = [cut(y) for y in plan.score_mod_operands(x, rest)]
    edges = [cut(y) for y in (*keys.bad, *rest.mask)]
    sinks = [] if x.sink is None else [cut(x.sink[..., None])]

    def kernel(tables, query, keys: Any, refs, out, lse, scratch):
        query_ref, stream_k, stream_v, weights_ref, lse_ref, arrived, *other = scratch
        out_ref = other[0] if other else query_ref
        head, i, batch, group = (jax.lax.axis_index(n) for n in ("head", "block", "batch", "group"))
        order, full, visited = tables

        def read(operands, refs, j, shape):
            """Lines over the tile of this warpgroup's queries and block j of keys."""
            starts = (i * tile.groups + group, j)
            pairs = zip(operands, refs, strict=True)
            return [y.read(ref, batch, head, starts, shape) for y, ref in pairs]

        def compute():
            compute_registers(tile)
            own = i * tile.groups + group
            rows = pl.ds(own * WARPGROUP_ROWS, WARPGROUP_ROWS)
            queries, weights = query_ref.at[group], weights_ref.at[group]
            plgpu.copy_gmem_to_smem(query.at[batch, rows, head], queries, arrived.at[group])
            plgpu.barrier_wait(arrived.at[group])

            def step(masked, n, carry):
                largest, total, mixed = carry
                score = product(queries, transpose(stream_k.take(n)), tile.columns)
                stream_k.release(n)
                j = order[i, n]
                values = read(score_mod_operands, refs[0], j, score.shape)
                leaves = read(edges, refs[1], j, score.shape) if masked else None
                bad = leaves.pop(0) if leaves and plan.has_mask else None
                starts = (own * WARPGROUP_ROWS, j * tile.columns)
                scale = plan.scale / unit
                score = modify(plan, program, score, starts, False, leaves, values, bad, scale)
                new = jnp.maximum(largest, score.max(1))
                finite = finite_row(new)
                # Scaled before they are subtracted: that is one operation a score.
                weight = jnp.exp2(score * power - broadcast_rows(finite * power, score.shape))
                shrink = jnp.exp2((largest - finite) * power)
                put(weight, weights)
                value = stream_v.take(n)
                mixed = [
                    old * broadcast_rows(shrink, old.shape)
                    + product(weights, value.at[:, pl.ds(column, part)], part)
                    for column, old in zip(range(0, e, part), mixed, strict=True)
                ]
                stream_v.release(n)
                return new, total * shrink + weight.sum(1), mixed

            rows_of = (WARPGROUP_ROWS,)
            first, total = jnp.full(rows_of, -jnp.inf), jnp.zeros(rows_of)
            if sinks:  # One more logit, met first, without a value.
                first = read(sinks, refs[2], 0, rows_of)[0] / unit
                total = jnp.exp2((first - finite_row(first)) * power)
            mixed = [jnp.zeros((WARPGROUP_ROWS, part))] * (e // part)
            carry = (first, total, mixed)
            carry = jax.lax.fori_loop(0, full[i], functools.partial(step, False), carry)
            carry = jax.lax.fori_loop(full[i], visited[i], functools.partial(step, True), carry)
            largest, total, mixed = carry

            safe = jnp.where(total == 0, 1.0, total)
            lse_ref.at[group, 0][...] = finite_row(largest) * unit
            lse_ref.at[group, 1][...] = total
            for column, values in zip(range(0, e, part), mixed, strict=True):
                target = out_ref.at[group, :, pl.ds(column, part)]
                target[...] = (values / broadcast_rows(safe, values.shape)).astype(plan.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(out_ref.at[group], out.at[batch, rows, head])
            for n in range(2):
                plgpu.copy_smem_to_gmem(lse_ref.at[group, n], lse.at[n, batch, head, rows])
            plgpu.wait_smem_to_gmem(0)

        def copy(n, which, slot, barrier):
            index = (batch, pl.ds(order[i, n] * tile.columns, tile.columns), head // share)
            as_it_is, good = ((keys.key, keys.good_key), (keys.value, keys.good_value))[which]
            start = lambda source: plgpu.copy_gmem_to_smem(source.at[index], slot, barrier)
            pl.when(n < full[i])(lambda: start(as_it_is))
            pl.when(n >= full[i])(lambda: start(good))

        pl.when(group < tile.groups)(compute)

        @pl.when(group == tile.groups)
        def _():
            copy_registers(tile)
            feed(visited[i], (stream_k, stream_v), copy)

    operands = [[y.array for y in each] for each in (score_mod_operands, edges, sinks)]
    rows = (tile.groups, WARPGROUP_ROWS)
    out, lse = plgpu.kernel(
        kernel,
        out_type=(
            jax.ShapeDtypeStruct((b, t, h, e), plan.dtype),
            jax.ShapeDtypeStruct((2, b, h, t), jnp.float32),
        ),
        scratch_types=[(
            plgpu.SMEM((*rows, d), plan.dtype),
            ring((tile.columns, d), plan.dtype, tile.stages, tile.groups),
            ring((tile.columns, e), plan.dtype, tile.stages, tile.groups),
            plgpu.SMEM((*rows, tile.columns), plan.dtype),
            plgpu.SMEM((tile.groups, 2, WARPGROUP_ROWS), jnp.float32),
            plgpu.Barrier(num_barriers=tile.groups),
            *([plgpu.SMEM((*rows, e), plan.dtype)] if d != e else []),
        )],
        grid=(h, blocks_q, b),
        grid_names=("head", "block", "batch"),
        num_threads=tile.groups + 1,
        thread_name="group",
        compiler_params=PARAMETERS,
        interpret=plan.interpret,
    )(tuple(map(jnp.asarray, tables)), query, keys, operands)  # fmt: skip
    largest, total = jnp.swapaxes(lse[..., : plan.t], 2, 3)
    return out[:, : plan.t, :, : x.value.shape[3]], largest, total
