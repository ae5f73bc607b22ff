"""The decoding kernel: blocks of the cache stream past the newest queries, while there are keys.

The cache stays as it lies, `[b, s, g, d]`: a block of keys holds all heads, and with d a multiple
of 128 nothing is copied or transposed. Blocks that a sequence does not have are not fetched: their
index is held at the last one there is. A cache in pages is read page by page, where each lies.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jattn.attention.nonfinite import finite_row
from jattn.pallas.tpu import product

LANES = 128
BLOCK_BYTES = 2**21  # of keys and values of one block, of which two are on the chip


def decode_parts(query, key, value, lengths, pages, window, scale, splits, *, interpret):
    """Attention of each part of the cache: `[b, splits, n, h, e]`, and lse `[b, splits, n, h]`."""
    b, n, h, d = query.shape
    g, e = value.shape[2:]
    rows = h * n
    # Queries that share a head of keys follow each other, and a head's new tokens too.
    query = query.swapaxes(1, 2).reshape(b, rows, d)
    if pages is None:
        s = key.shape[1]
        # On the chip a head takes whole registers of 128 lanes, however narrow it is.
        lanes = lambda width: -(-width // LANES) * LANES
        block = _block(
            -(-s // splits), g * (lanes(d) * key.dtype.itemsize + lanes(e) * value.dtype.itemsize)
        )
        tables = (lengths,)
    else:
        block = key.shape[1]  # A page.
        s = pages.shape[1] * block
        tables = (lengths, pages)
    steps = -(-s // (splits * block))

    def first_and_last(length):
        last = jnp.maximum(pl.cdiv(length, block) - 1, 0)
        first = 0 if window is None else jnp.maximum(length - n + 1 - window, 0) // block
        return first, last

    def at_block(i, part, j, lengths, *pages):
        first, last = first_and_last(lengths[i])
        column = jnp.clip(part * steps + j, first, last)
        return (pages[0][i, column], 0, 0, 0) if pages else (i, column, 0, 0)

    of_query = pl.BlockSpec((1, rows, d), lambda i, part, j, *_: (i, 0, 0))
    of_part = lambda width: pl.BlockSpec(
        (1, 1, rows, width), lambda i, part, j, *_: (i, part, 0, 0)
    )
    bytes_a_key = g * (d * key.dtype.itemsize + e * value.dtype.itemsize)
    out, lse = pl.pallas_call(
        functools.partial(
            _kernel, block=block, steps=steps, groups=g, tokens=n, window=window, scale=scale
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(tables),
            grid=(b, splits, steps),
            in_specs=[
                of_query,
                pl.BlockSpec((1, block, g, d), at_block),
                pl.BlockSpec((1, block, g, e), at_block),
            ],
            out_specs=[of_part(e), of_part(LANES)],
            scratch_shapes=[
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((rows, e), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((b, splits, rows, e), jnp.float32),
            jax.ShapeDtypeStruct((b, splits, rows, LANES), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * rows * s * (d + e), bytes_accessed=b * s * bytes_a_key,
            transcendentals=b * rows * s,
        ),
        interpret=interpret,
        name="decode",
    )(*tables, query, key, value)  # fmt: skip
    tokens_first = lambda x: x.reshape(b, splits, h, n, *x.shape[3:]).swapaxes(2, 3)
    return tokens_first(out), tokens_first(lse[..., 0])


def _block(keys: int, bytes_a_key: int) -> int:
    """Keys a block: a multiple of 128 that fits, no more than there are."""
    fitting = max(BLOCK_BYTES // bytes_a_key // LANES, 1) * LANES
    return min(fitting, 1024, -(-keys // LANES) * LANES)


def _kernel(lengths, *refs, block, steps, groups, tokens, window, scale):
    query, key, value, out, lse, largest, total, sums = refs[-8:]  # In front: the pages.
    length, part, step = lengths[pl.program_id(0)], pl.program_id(1), pl.program_id(2)
    start = (part * steps + step) * block
    # What the first of the new tokens sees at least.
    low = 0 if window is None else jnp.maximum(length - tokens + 1 - window, 0)

    @pl.when(step == 0)
    def begin():
        largest[...] = jnp.full_like(largest, -jnp.inf)
        total[...] = jnp.zeros_like(total)
        sums[...] = jnp.zeros_like(sums)

    @pl.when((start < length) & (start + block > low))
    def meet():
        rows_of_group = query.shape[1] // groups
        for group in range(groups):
            rows = pl.ds(group * rows_of_group, rows_of_group)
            k = key[0, :, group, :]
            v = value[0, :, group, :]
            # Hidden values may be NaN, which a weight of 0 does not hide.
            k_index = start + jax.lax.broadcasted_iota(jnp.int32, (block, 1), 0)
            v = jnp.where((k_index < length) & (k_index >= low), v, 0)
            dtype = jnp.promote_types(query.dtype, k.dtype)
            scores = scale * product(query[0, rows, :], k, (1, 1), dtype)
            if tokens > 1:  # What one token sees, another may not.
                bad = product(jnp.ones((8, v.shape[1]), v.dtype), v * 0, (1, 1), v.dtype)
                scores += bad[:1]
                v = jnp.where(v * 0 == 0, v, 0)
            scores = jnp.where(_seen(scores.shape, start, length, tokens, window), scores, -jnp.inf)
            before = largest[rows, :1]
            now = jnp.maximum(before, scores.max(1, keepdims=True))
            finite = finite_row(now)
            weights = jnp.exp(scores - finite)
            shrink = jnp.exp(before - finite)
            total[rows, :] = shrink * total[rows, :] + weights.sum(1, keepdims=True)
            sums[rows, :] = shrink * sums[rows, :] + product(weights, v, (1, 0), v.dtype)
            largest[rows, :] = jnp.broadcast_to(now, (rows_of_group, LANES))

    @pl.when(step == steps - 1)
    def end():
        # Not `total > 0`, which NaN is not.
        some = total[...] != 0
        safe = jnp.where(some, total[...], 1)
        out[0, 0] = sums[...] / safe[:, :1]
        lse[0, 0] = jnp.where(some, largest[...] + jnp.log(safe), -jnp.inf)


def _seen(shape, start, length, tokens, window):
    """Which keys of a block each row sees: rows are heads, and of each its new tokens."""
    k_index = start + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    at = length - 1
    if tokens > 1:
        at = length - tokens + jax.lax.broadcasted_iota(jnp.int32, shape, 0) % tokens
    seen = k_index <= at
    return seen if window is None else seen & (k_index > at - window)
