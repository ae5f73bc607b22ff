"""The gradients of keys and values: a block of keys meets blocks of queries (arXiv 2307.08691)."""

import functools

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
from jattn.pallas.gpu import PARAMETERS, add_product, feed, product, put, ring, transpose

PART = 128  # Head dimensions whose sums, of keys and of values, registers can hold.


def key_gradient(
    plan: Plan,
    x: DifferentiableOperands,
    rest: OtherOperands,
    d_out: Array,
    row: Array,
    d_total: Array,
) -> tuple[Array, Array, list[Array]]:
    """Gradients of keys `[b, s, g, d]`, of values `[b, s, g, e]`, of operands `[b, h, s]`.

    Arguments are those of `query_gradient`. Tiles have keys as rows here. All query heads that
    share a key head are met in turn.
    """
    d, e = whole(x.key.shape[3]), whole(x.value.shape[3])
    parts = [_part(plan, x, rest, d_out, row, d_total, n) for n in range(0, max(d, e), PART)]
    d_keys, d_values, (d_score_mod_operands, *_) = zip(*parts, strict=True)
    cut = lambda y, like: jnp.concatenate(y, 3)[:, : plan.s, :, : like.shape[3]]
    d_score_mod_operands = [
        d_score_mod_operands[n, :, :, : plan.s] for n in range(len(plan.wanted(x, along_keys=True)))
    ]
    return cut(d_keys, x.key), cut(d_values, x.value), d_score_mod_operands


def _part(plan, x, rest, d_out, row, d_total, first: int) -> tuple[Array, ...]:
    """The head dimensions from `first` on, `PART` of them or what is left."""
    b, groups, h = x.query.shape[0], x.key.shape[2], x.query.shape[2]
    d, e, share = whole(x.key.shape[3]), whole(x.value.shape[3]), h // groups
    d_part, e_part = min(d - first, PART), min(e - first, PART)
    whole_width = (d_part, e_part) == (d, e)  # Else d = e.
    tile = plan.backward
    blocks = -(-plan.s // tile.rows)
    t, s = -(-plan.t // tile.columns) * tile.columns, blocks * tile.rows
    keys, query, d_out = prepare_keys(plan, x, s), padded(x.query, t, "edge"), padded(d_out, t)
    tables = schedule_tables(masking(plan, rest, (tile.columns, tile.rows))[1].T)

    sizes = (tile.columns, WARPGROUP_ROWS)
    wanted = [] if first else plan.wanted(x, along_keys=True)
    cut = functools.partial(broadcast_operand, lengths=(t, s), blocks=sizes, transposed=True)
    score_mod_operands = [cut(y) for y in plan.score_mod_operands(x, rest)]
    edges, bad = [cut(y) for y in rest.mask], [cut(y) for y in keys.bad]
    columns_of = [cut(row[..., None], fill=FAR), cut(d_total[..., None])]

    def kernel(tables, query, d_out, keys, refs, d_key, d_value, d_score_mod_operands, scratch):
        key_ref, value_ref, stream_q, stream_o, weights_ref, sums_ref, arrived, *own_out = scratch
        head, j, batch, group = (jax.lax.axis_index(n) for n in ("head", "block", "batch", "group"))
        order, full, visited = tables

        def compute():
            compute_registers(tile)
            own = j * tile.groups + group
            rows = pl.ds(own * WARPGROUP_ROWS, WARPGROUP_ROWS)
            key, value, weights = (y.at[group] for y in (key_ref, value_ref, weights_ref))
            for source, target in zip(keys, (key, value), strict=True):
                plgpu.copy_gmem_to_smem(source.at[batch, rows, head], target, arrived.at[group])
            plgpu.barrier_wait(arrived.at[group])

            def step(sum_key, sum_value, head_in_group, masked, m, carry):
                i, n, query_head = (
                    order[j, m],
                    head_in_group * visited[j] + m,
                    head * share + head_in_group,
                )
                shape = (WARPGROUP_ROWS, tile.columns)

                def read(operands, refs, shape=shape):
                    pairs = zip(operands, refs, strict=True)
                    return [y.read(ref, batch, query_head, (own, i), shape) for y, ref in pairs]

                (row,) = read(columns_of[:1], refs[3][:1])
                queries, d_outs = stream_q.take(n), stream_o.take(n)
                score = product(key, transpose(queries), tile.columns)
                weight, pull = weigh_again(
                    plan, score, row, read(score_mod_operands, refs[0]), wanted,
                    starts=(i * tile.columns, own * WARPGROUP_ROWS), transposed=True,
                    leaves=read(edges, refs[1]) if masked else None,
                    bad=read(bad, refs[2])[0] if bad else None,
                )  # fmt: skip
                put(weight, weights)
                add_product(sum_value, weights, d_outs.at[:, pl.ds(first, e_part)])
                (d_total,) = read(columns_of[1:], refs[3][1:])  # Not before registers are free.
                d_score, d_values = pull(product(value, transpose(d_outs), tile.columns) + d_total)
                stream_o.release(n)
                put(d_score, weights)
                add_product(sum_key, weights, queries.at[:, pl.ds(first, d_part)])
                stream_q.release(n)
                return [old + new.sum(1) for old, new in zip(carry, d_values, strict=True)]

            def loops(sum_key, sum_value):
                def meet(head_in_group, _):
                    carry = [jnp.zeros((WARPGROUP_ROWS,))] * len(wanted)
                    for masked, start, stop in ((False, 0, full[j]), (True, full[j], visited[j])):
                        body = functools.partial(step, sum_key, sum_value, head_in_group, masked)
                        carry = jax.lax.fori_loop(start, stop, body, carry)
                    for n, total in enumerate(carry):
                        target = d_score_mod_operands.at[
                            n, batch, head * share + head_in_group, rows
                        ]
                        plgpu.copy_smem_to_gmem(put(total, sums_ref.at[group]), target)
                        plgpu.wait_smem_to_gmem(0)

                jax.lax.fori_loop(0, share, meet, None)
                return sum_key[...], sum_value[...]

            sums = pl.run_scoped(
                loops,
                plgpu.ACC((WARPGROUP_ROWS, d_part), jnp.float32),
                plgpu.ACC((WARPGROUP_ROWS, e_part), jnp.float32),
            )
            leave = (key, value) if whole_width else (own_out[0].at[group],) * 2
            for values, out, target in zip(sums, leave, (d_key, d_value), strict=True):
                plgpu.copy_smem_to_gmem(put(values, out), target.at[batch, rows, head])
                plgpu.wait_smem_to_gmem(0)

        def copy(n, which, slot, barrier):
            head_in_group, m = jax.lax.div(n, visited[j]), jax.lax.rem(n, visited[j])
            rows = pl.ds(order[j, m] * tile.columns, tile.columns)
            source = (query, d_out)[which].at[batch, rows, head * share + head_in_group]
            plgpu.copy_gmem_to_smem(source, slot, barrier)

        pl.when(group < tile.groups)(compute)

        @pl.when(group == tile.groups)
        def _():
            copy_registers(tile)
            feed(visited[j] * share, (stream_q, stream_o), copy)

    operands = [[y.array for y in each] for each in (score_mod_operands, edges, bad, columns_of)]
    rows = (tile.groups, WARPGROUP_ROWS)
    return plgpu.kernel(
        kernel,
        out_type=(
            jax.ShapeDtypeStruct((b, s, groups, d_part), plan.dtype),
            jax.ShapeDtypeStruct((b, s, groups, e_part), plan.dtype),
            jax.ShapeDtypeStruct((max(len(wanted), 1), b, h, s), jnp.float32),
        ),
        scratch_types=[(
            plgpu.SMEM((*rows, d), plan.dtype),
            plgpu.SMEM((*rows, e), plan.dtype),
            ring((tile.columns, d), plan.dtype, tile.stages, tile.groups),
            ring((tile.columns, e), plan.dtype, tile.stages, tile.groups),
            plgpu.SMEM((*rows, tile.columns), plan.dtype),
            plgpu.SMEM(rows, jnp.float32),
            plgpu.Barrier(num_arrivals=2, num_barriers=tile.groups),
            *([] if whole_width else [plgpu.SMEM((*rows, d_part), plan.dtype)]),
        )],
        grid=(groups, blocks, b),
        grid_names=("head", "block", "batch"),
        num_threads=tile.groups + 1,
        thread_name="group",
        compiler_params=PARAMETERS,
        interpret=plan.interpret,
    )(
        tuple(map(jnp.asarray, tables)), query, d_out, (keys.good_key, keys.good_value), operands
    )  # fmt: skip
