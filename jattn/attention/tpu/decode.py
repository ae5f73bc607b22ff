"""The decoding kernel: blocks of the cache stream past one query, as far as the sequence reaches.

The cache stays as it lies, `[b, s, g, d]`: a block of keys holds all heads, and with d a multiple
of 128 nothing is copied or transposed. Blocks that a sequence does not have are not fetched: their
index is held at the last one there is.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jattn.pallas.tpu import product

LANES = 128
BLOCK_BYTES = 2**21  # of keys and values of one block, of which two are on the chip


def decode_parts(query, key, value, lengths, window, scale, splits, *, interpret):
    """Attention of each part of the cache: `[b, splits, h, e]`, and lse `[b, splits, h]`."""
    b, h, d = query.shape
    s, g, e = value.shape[1:]
    # On the chip a head takes whole registers of 128 lanes, however narrow it is.
    lanes = lambda width: -(-width // LANES) * LANES
    block = _block(
        -(-s // splits), g * (lanes(d) * key.dtype.itemsize + lanes(e) * value.dtype.itemsize)
    )
    steps = -(-s // (splits * block))

    def first_and_last(length):
        last = jnp.maximum(pl.cdiv(length, block) - 1, 0)
        return (0 if window is None else jnp.maximum(length - window, 0) // block), last

    def at_block(i, n, j, lengths):
        first, last = first_and_last(lengths[i])
        return i, jnp.clip(n * steps + j, first, last), 0, 0

    of_query = pl.BlockSpec((1, h, d), lambda i, n, j, _: (i, 0, 0))
    of_part = lambda width: pl.BlockSpec((1, 1, h, width), lambda i, n, j, _: (i, n, 0, 0))
    bytes_read = key.size * key.dtype.itemsize + value.size * value.dtype.itemsize
    out, lse = pl.pallas_call(
        functools.partial(_kernel, block=block, steps=steps, groups=g, window=window, scale=scale),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(b, splits, steps),
            in_specs=[
                of_query,
                pl.BlockSpec((1, block, g, d), at_block),
                pl.BlockSpec((1, block, g, e), at_block),
            ],
            out_specs=[of_part(e), of_part(LANES)],
            scratch_shapes=[
                pltpu.VMEM((h, LANES), jnp.float32),
                pltpu.VMEM((h, LANES), jnp.float32),
                pltpu.VMEM((h, e), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((b, splits, h, e), jnp.float32),
            jax.ShapeDtypeStruct((b, splits, h, LANES), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * h * s * (d + e), bytes_accessed=bytes_read, transcendentals=b * h * s
        ),
        interpret=interpret,
        name="decode",
    )(lengths, query, key, value)
    return out, lse[..., 0]


def _block(keys: int, bytes_a_key: int) -> int:
    """Keys a block: a multiple of 128 that fits, no more than there are."""
    fitting = max(BLOCK_BYTES // bytes_a_key // LANES, 1) * LANES
    return min(fitting, 1024, -(-keys // LANES) * LANES)


def _kernel(
    lengths, query, key, value, out, lse, largest, total, sums,
    *, block, steps, groups, window, scale,
):  # fmt: skip
    length, part, step = lengths[pl.program_id(0)], pl.program_id(1), pl.program_id(2)
    start = (part * steps + step) * block
    low = 0 if window is None else jnp.maximum(length - window, 0)

    @pl.when(step == 0)
    def begin():
        largest[...] = jnp.full_like(largest, -jnp.inf)
        total[...] = jnp.zeros_like(total)
        sums[...] = jnp.zeros_like(sums)

    @pl.when((start < length) & (start + block > low))
    def meet():
        def seen(shape, axis):
            k_index = start + jax.lax.broadcasted_iota(jnp.int32, shape, axis)
            return (k_index < length) & (k_index >= low)

        heads = query.shape[1] // groups
        for group in range(groups):
            rows = pl.ds(group * heads, heads)
            k = key[0, :, group, :]
            v = value[0, :, group, :]
            # Hidden values may be NaN, which a weight of 0 does not hide.
            v = jnp.where(seen((block, 1), 0), v, 0)
            dtype = jnp.promote_types(query.dtype, k.dtype)
            scores = scale * product(query[0, rows, :], k, (1, 1), dtype)
            scores = jnp.where(seen((heads, block), 1), scores, -jnp.inf)
            before = largest[rows, :1]
            now = jnp.maximum(before, scores.max(1, keepdims=True))
            weights = jnp.exp(scores - now)
            shrink = jnp.exp(before - now)
            total[rows, :] = shrink * total[rows, :] + weights.sum(1, keepdims=True)
            sums[rows, :] = shrink * sums[rows, :] + product(weights, v, (1, 0), v.dtype)
            largest[rows, :] = jnp.broadcast_to(now, (heads, LANES))

    @pl.when(step == steps - 1)
    def end():
        some = total[:, :1] > 0
        out[0, 0] = sums[...] / jnp.where(some, total[:, :1], 1)
        lse[0, 0] = jnp.where(some, largest[...] + jnp.log(total[...]), -jnp.inf)
