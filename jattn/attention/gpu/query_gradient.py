"""The gradient of queries: a block of queries meets blocks of keys once more (arXiv 2307.08691)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from jattn.attention.gpu.broadcast_operands import FAR, broadcast_operand
from jattn.attention.gpu.keys import prepare_keys
from jattn.attention.gpu.plan import WARPGROUP_ROWS, DifferentiableOperands, OtherOperands, Plan
from jattn.attention.gpu.tiles import (
    compute_registers,
    copy_registers,
    masking,
    padded,
    weigh_again,
    whole,
)
from jattn.attention.tiling import schedule_tables
from jattn.pallas.gpu import (
    PARAMETERS,
    add_product,
    broadcast_rows,
    feed,
    product,
    put,
    ring,
    transpose,
)


def query_gradient(
    plan: Plan,
    x: DifferentiableOperands,
    rest: OtherOperands,
    d_out: Array,
    row: Array,
    d_total: Array,
) -> tuple[Array, list[Array]]:
    """Gradients of queries `[b, t, h, d]`, and `[b, h, t]` of operands not along keys.

    Args:
        plan: the plan.
        x: what has gradients.
        rest: what has none.
        d_out: gradient of the output, `[b, t, h, e]`.
        row: log-sum-exp, finite, `[b, h, t]`.
        d_total: what the gradients of all weights of a query have in common, `[b, h, t]`.
    """
    b, _, h, _ = x.query.shape
    d, e, share = whole(x.key.shape[3]), whole(x.value.shape[3]), h // x.key.shape[2]
    tile = plan.backward
    blocks = -(-plan.t // tile.rows)
    t, s = blocks * tile.rows, -(-plan.s // tile.columns) * tile.columns
    keys, query, d_out = prepare_keys(plan, x, s), padded(x.query, t, "edge"), padded(d_out, t)
    tables = schedule_tables(masking(plan, rest, (tile.rows, tile.columns))[1])
    wanted = plan.wanted(x, along_keys=False)

    sizes = (WARPGROUP_ROWS, tile.columns)
    cut = functools.partial(broadcast_operand, lengths=(t, s), blocks=sizes, transposed=False)
    score_mod_operands = [cut(y) for y in plan.score_mod_operands(x, rest)]
    edges = [cut(y) for y in (*keys.bad, *rest.mask)]
    rows_of = [cut(row[..., None], fill=FAR), cut(d_total[..., None])]

    def kernel(tables, query, d_out, keys: Any, refs, d_query, d_score_mod_operands, scratch):
        query_ref, d_out_ref, stream_k, stream_v, scores_ref, sums_ref, arrived = scratch
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
            queries, d_outs, scores = (y.at[group] for y in (query_ref, d_out_ref, scores_ref))
            for source, target in ((query, queries), (d_out, d_outs)):
                plgpu.copy_gmem_to_smem(source.at[batch, rows, head], target, arrived.at[group])
            row, d_total = read(rows_of, refs[2], 0, (WARPGROUP_ROWS,))
            plgpu.barrier_wait(arrived.at[group])

            def step(sums, masked, n, carry):
                j = order[i, n]
                shape = (WARPGROUP_ROWS, tile.columns)
                key = stream_k.take(n)
                score = product(queries, transpose(key), tile.columns)
                leaves = read(edges, refs[1], j, shape) if masked else None
                _, pull = weigh_again(
                    plan, score, broadcast_rows(row, shape),
                    read(score_mod_operands, refs[0], j, shape), wanted,
                    starts=(own * WARPGROUP_ROWS, j * tile.columns), transposed=False,
                    bad=leaves.pop(0) if leaves and plan.has_mask else None, leaves=leaves,
                )  # fmt: skip
                d_weight = product(d_outs, transpose(stream_v.take(n)), tile.columns)
                stream_v.release(n)
                d_score, d_values = pull(d_weight + broadcast_rows(d_total, shape))
                add_product(sums, put(d_score, scores), key)
                stream_k.release(n)
                return [old + new.sum(1) for old, new in zip(carry, d_values, strict=True)]

            def loops(sums):
                carry = [jnp.zeros((WARPGROUP_ROWS,))] * len(wanted)
                for masked, start, stop in ((False, 0, full[i]), (True, full[i], visited[i])):
                    body = functools.partial(step, sums, masked)
                    carry = jax.lax.fori_loop(start, stop, body, carry)
                return sums[...], carry

            sums, d_values = pl.run_scoped(loops, plgpu.ACC((WARPGROUP_ROWS, d), jnp.float32))
            queries[...] = sums.astype(plan.dtype)
            for n, value in enumerate(d_values):
                sums_ref.at[group, n][...] = value
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(queries, d_query.at[batch, rows, head])
            for n in range(len(wanted)):
                plgpu.copy_smem_to_gmem(
                    sums_ref.at[group, n], d_score_mod_operands.at[n, batch, head, rows]
                )
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

    operands = [[y.array for y in each] for each in (score_mod_operands, edges, rows_of)]
    rows = (tile.groups, WARPGROUP_ROWS)
    slots = max(len(wanted), 1)  # No array is empty.
    d_query, d_score_mod_operands = plgpu.kernel(
        kernel,
        out_type=(
            jax.ShapeDtypeStruct((b, t, h, d), plan.dtype),
            jax.ShapeDtypeStruct((slots, b, h, t), jnp.float32),
        ),
        scratch_types=[(
            plgpu.SMEM((*rows, d), plan.dtype),
            plgpu.SMEM((*rows, e), plan.dtype),
            ring((tile.columns, d), plan.dtype, tile.stages, tile.groups),
            ring((tile.columns, e), plan.dtype, tile.stages, tile.groups),
            plgpu.SMEM((*rows, tile.columns), plan.dtype),
            plgpu.SMEM((tile.groups, slots, WARPGROUP_ROWS), jnp.float32),
            plgpu.Barrier(num_arrivals=2, num_barriers=tile.groups),
        )],
        grid=(h, blocks, b),
        grid_names=("head", "block", "batch"),
        num_threads=tile.groups + 1,
        thread_name="group",
        compiler_params=PARAMETERS,
        interpret=plan.interpret,
    )(tuple(map(jnp.asarray, tables)), query, d_out, keys, operands)  # fmt: skip
    d_score_mod_operands = [d_score_mod_operands[n, :, :, : plan.t] for n in range(len(wanted))]
    return d_query[:, : plan.t, :, : x.query.shape[3]], d_score_mod_operands
