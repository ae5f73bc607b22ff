"""The gradient of an operand as large as the logits, such as a bias for every pair."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention.masks import FULL, PARTIAL
from jattn.attention.tpu.plan import Plan
from jattn.attention.tpu.tiles import (
    finite_or_one,
    kept_part,
    nan_markers,
    parameters,
    tile_weights,
)
from jattn.pallas.tpu import product


def operand_gradient(
    plan: Plan, wanted: int, first: int, summary: Any, logits_operands, operands
) -> Array:
    """The gradient of an operand that varies along queries and keys, e.g. of a full bias.

    A program of its own, with batch entries and heads innermost: they are summed on the chip where
    the operand does not vary, and the whole program is dropped where nobody asks for the gradient.
    """
    b, groups, s, d = operands[0].shape
    e, (h, t) = operands[1].shape[3], (operands[2].shape[1], operands[2].shape[3])
    tile = plan.backward
    block_q, block_k, part = tile[:3]
    n_floats = plan.has_bias + plan.has_shift + sum(plan.learned)
    size_b, size_h = logits_operands[wanted].array.shape[:2]
    inner_h = 1 if size_h > 1 else h
    inner = inner_h * (1 if size_b > 1 else b)

    def tile_index(own_b, own_h, i, j, n, *_):
        return (
            own_b if size_b > 1 else n // inner_h,
            own_h if size_h > 1 else n % inner_h,
            i,
            j,
        )

    cut = [p._replace(tile_index=tile_index) for p in logits_operands]

    def kernel(kinds, key, value, query, d_out, largest, d_total, *refs):
        *logits_refs, out, finite = refs
        i, j, n = (pl.program_id(axis) for axis in (2, 3, 4))

        @pl.when(n == 0)
        def _():
            out[...] = jnp.zeros(out.shape, jnp.float32)

        finite[...] = finite_or_one(value[0, 0]) if plan.has_mask else value[0, 0]

        def body(masked):
            for start in range(0, block_k, part):
                at = slice(start, start + part)
                tiles = [p.read(ref, at) for p, ref in zip(cut, logits_refs, strict=True)]
                score = product(key[0, 0, at], query[0, 0], (1, 0), plan.dtype) * plan.scale
                if masked and plan.has_mask:
                    score += nan_markers(value[0, 0, at], 1)
                corner = (first + i * block_q, j * block_k + start)
                weigh = functools.partial(
                    tile_weights, plan, tile, slice(0, 0) if masked else None, corner,
                    tiles[n_floats:], largest[0, 0],
                )  # fmt: skip
                floats = [jnp.broadcast_to(f, score.shape) for f in tiles[:n_floats]]
                _, pull = jax.vjp(weigh, score, *floats)
                d_weight = product(finite[at], d_out[0, 0], (1, 0), plan.dtype)
                factor = kept_part(plan, corner, tiles[n_floats:], score.shape)
                d_weight = d_weight if factor is None else d_weight * factor
                out[0, 0, :, at] += pull(d_weight + d_total[0, 0])[1 + wanted].T

        pl.when(kinds[i, j] == FULL)(lambda: body(False))
        pl.when(kinds[i, j] == PARTIAL)(lambda: body(True))

    def at_key(*grid):
        own_b, own_h, _, j = tile_index(*grid)
        return own_b, own_h // (h // groups), j, 0

    def at_query(*grid):
        own_b, own_h, i, _ = tile_index(*grid)
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
        compiler_params=parameters(plan, *["parallel"] * 4, "arbitrary"),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * h * t * s * (d + e),
            transcendentals=b * h * t * s,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*operands, out)),
        ),
        interpret=plan.interpret,
        name="attend_full_gradient",
    )(jnp.asarray(summary, jnp.int32), *operands)
    return gradient[..., : plan.s]
