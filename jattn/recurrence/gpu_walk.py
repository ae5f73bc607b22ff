"""The walk of a matrix state from chunk to chunk, as a kernel for Hopper GPUs.

At each chunk, from the state S that enters it,

    writes = W + U S
    S      = remains * S + A + K^T writes

where remains multiplies the rows of S. All of it is linear, and its backward pass has the same
form: the gradient G of the state that leaves a chunk meets it as a state, from the last one on,

    d_writes = d_writes + K G
    G        = remains * G + d_S + U^T d_writes

where d_S is the gradient of S as an output. So one kernel serves both.

A thread block keeps 64 columns of a state on the chip, one of its warpgroups computing while
another copies what the next chunks need.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from jattn.pallas.gpu import PARAMETERS, broadcast_rows, feed, load, product, put, ring, transpose

CHUNK = 64  # Rows of a product that a warpgroup computes at a time.
COLUMNS = 64  # d and e come in multiples: a swizzled line of shared memory is 128 bytes.
SHARED = 220 * 1024  # Bytes of shared memory for blocks; a few more are for barriers.


class Steps(NamedTuple):
    """What the walk meets at each chunk; all but `remains` in bfloat16.

    Either all of `meet`, `keep` and `writes` are there, or none.
    """

    remains: Float[Array, "b h n d"]  # in float32
    add: Float[Array, "b h n d e"] | None  # A
    meet: Float[Array, "b h n c d"] | None  # U
    keep: Float[Array, "b h n c d"] | None  # K
    writes: Float[Array, "b h n c e"] | None  # W


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def walk(
    interpret: Any, steps: Steps, first: Float[Array, "b h d e"]
) -> tuple[Float[Array, "b h n d e"], Float[Array, "b h n c e"] | None, Float[Array, "b h d e"]]:
    """The states that enter the chunks, what is written (None without `meet`), and the last state.

    Args:
        interpret: `jax.experimental.pallas.mosaic_gpu.InterpretGPUParams`, or None.
        steps: what is met, with d and e multiples of `COLUMNS`, d at most 256.
        first: the state before the first chunk, in float32.
    """
    return _walk(interpret, steps, first, False)


def _forward(interpret, steps, first):
    results = _walk(interpret, steps, first, False)
    return results, (steps, results[0], results[1])


def _backward(interpret, saved, cotangents):
    steps, entering, writes = saved
    d_entering, d_writes, d_last = cotangents
    back = Steps(steps.remains, d_entering, steps.keep, steps.meet, d_writes)
    leaving, d_writes, d_first = _walk(interpret, back, d_last, True)
    wide = jnp.float32
    d_remains = (entering.astype(wide) * leaving.astype(wide)).sum(-1)
    d_add = None if steps.add is None else leaving
    d_meet = d_keep = None
    if writes is not None:
        d_meet, d_keep = d_writes @ entering.mT, writes @ leaving.mT
    return Steps(d_remains, d_add, d_meet, d_keep, d_writes), d_first


walk.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _walk(interpret: Any, steps: Steps, first: Array, reverse: bool):
    b, h, d, e = first.shape
    count = steps.remains.shape[2]
    dtype, give = jnp.bfloat16, jax.ShapeDtypeStruct
    rows = d if d <= 128 else 64  # Of a state, in one product.
    tiles = d // rows
    present = [name for name, x in zip(steps._fields, steps, strict=True) if x is not None]
    parted = ("add", "writes")  # Of these a thread block needs its columns only.
    delta = steps.meet is not None
    tile = lambda n: pl.ds(n * rows, rows)

    def kernel(steps, first, entering, writes, last, scratch):
        streams, state_ref, writes_ref = scratch
        head, part, batch, group = (
            jax.lax.axis_index(n) for n in ("head", "part", "batch", "group")
        )
        columns = pl.ds(part * COLUMNS, COLUMNS)
        at = lambda n: count - 1 - n if reverse else n

        def step(n, states):
            def onward(states):
                """Without what is written."""
                stays = streams["remains"].take(n)
                states = [
                    y * broadcast_rows(stays.at[i][...], y.shape) for i, y in enumerate(states)
                ]
                if "add" in streams:
                    more = streams["add"].take(n)
                    parts = [more.at[tile(i)][...].astype(jnp.float32) for i in range(tiles)]
                    states = [y + part for y, part in zip(states, parts, strict=True)]
                return states

            def meet(sums):
                plgpu.wgmma(sums, streams["meet"].take(n), state_ref)
                return onward(states), sums[...]  # The first while the product is on its way.

            plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # The copies of the chunk before.
            for i, state in enumerate(states):
                state_ref.at[tile(i)][...] = state.astype(dtype)
            if delta:
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(state_ref, entering.at[batch, head, at(n), :, columns])
                sums = plgpu.ACC((CHUNK, COLUMNS), jnp.float32)
                states, change = pl.run_scoped(meet, sums)
                put(streams["writes"].take(n)[...].astype(jnp.float32) + change, writes_ref)
                plgpu.copy_smem_to_gmem(writes_ref, writes.at[batch, head, at(n), :, columns])
                keys = streams["keep"].take(n)
                states = [
                    y + product(transpose(keys.at[:, tile(i)]), writes_ref, COLUMNS)
                    for i, y in enumerate(states)
                ]
            else:
                states = onward(states)
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(state_ref, entering.at[batch, head, at(n), :, columns])
            for stream in streams.values():  # After a `commit_smem`, since they have been read.
                stream.release(n)
            return states

        def compute():
            tile_of = lambda ref, i: ref.at[batch, head, tile(i), columns]
            states = [
                plgpu.layout_cast(load(tile_of(first, i)), plgpu.Layout.WGMMA) for i in range(tiles)
            ]
            states = jax.lax.fori_loop(0, count, step, states)
            for i, state in enumerate(states):
                tile_of(last, i)[...] = state
            plgpu.wait_smem_to_gmem(0)

        def copy(n, which, slot, barrier):
            name = present[which]
            source = getattr(steps, name).at[batch, head, at(n)]
            if name in parted:
                source = source.at[:, columns]
            plgpu.copy_gmem_to_smem(source, slot, barrier)

        pl.when(group == 0)(compute)
        pl.when(group == 1)(lambda: feed(count, [streams[name] for name in present], copy))

    steps = steps._replace(remains=steps.remains.reshape(b, h, count, tiles, rows))
    blocks = {
        name: give((x.shape[3], COLUMNS if name in parted else x.shape[4]), x.dtype)
        for name in present
        for x in [getattr(steps, name)]
    }
    each = sum(x.size * x.dtype.itemsize for x in blocks.values())
    stages = min(4, (SHARED - (d + CHUNK) * COLUMNS * 2) // each)

    return plgpu.kernel(
        kernel,
        out_type=(
            give((b, h, count, d, e), dtype),
            give((b, h, count, CHUNK, e), dtype) if delta else None,
            give((b, h, d, e), jnp.float32),
        ),
        scratch_types=[(
            {name: ring(block.shape, block.dtype, stages) for name, block in blocks.items()},
            plgpu.SMEM((d, COLUMNS), dtype),
            plgpu.SMEM((CHUNK, COLUMNS), dtype) if delta else None,
        )],
        grid=(h, e // COLUMNS, b),
        grid_names=("head", "part", "batch"),
        num_threads=2,
        thread_name="group",
        compiler_params=PARAMETERS,
        interpret=interpret,
    )(steps, first)  # fmt: skip
