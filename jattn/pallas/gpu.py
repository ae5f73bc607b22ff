"""What GPU kernels share: products of the matrix unit, and blocks that are streamed in."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

PARAMETERS = plgpu.CompilerParams(
    approx_math=True,  # exp2 and log of the chip: two units in the last place of float32
    lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
)
_TAKES_INDEX = "idx" in inspect.signature(plgpu.load).parameters  # jax < 0.12


def load(ref) -> Array:
    """Reads from global memory; unlike `ref[...]`, also what no wide load can."""
    index = ((),) if _TAKES_INDEX else ()
    return plgpu.load(ref, *index, optimized=False)


def product(left, right, columns: int) -> Array:
    """`left @ right` of two arrays in shared memory, `[64, columns]` in registers."""

    def multiply(sums):
        plgpu.wgmma(sums, left, right)
        return sums[...]

    return pl.run_scoped(multiply, plgpu.ACC((left.shape[0], columns), jnp.float32))


def add_product(sums, left, right) -> None:
    """`sums += left @ right`, from shared memory into an accumulator; waits until it is done."""
    plgpu.wgmma(sums, left, right)
    plgpu.wgmma_wait(0)


def transpose(ref):
    """The transpose of a block in shared memory, which costs nothing."""
    return ref.transpose((1, 0))


def put(values: Array, ref) -> Any:
    """Registers to shared memory, where the matrix unit can read them."""
    ref[...] = values.astype(ref.dtype)
    plgpu.commit_smem()
    return ref


def broadcast_rows(row: Array, shape: tuple[int, ...]) -> Array:
    """A number for each row of a tile, over the tile."""
    return jax.lax.broadcast_in_dim(row, shape, (0,))


class Stream(NamedTuple):
    """A ring of blocks on their way into shared memory, inside a kernel.

    One warpgroup copies them in, the others compute. A slot has two barriers: `ready`, when the
    copy engine has filled it, and `free`, when every computing warpgroup has let go of it.
    """

    slots: Any  # [stages, columns, width] in shared memory
    ready: Any
    free: Any

    def take(self, n):
        """Waits for block n; gives where it lies in shared memory."""
        slot = jax.lax.rem(n, self.slots.shape[0])
        plgpu.barrier_wait(self.ready.at[slot])
        return self.slots.at[slot]

    def release(self, n) -> None:
        """Says that this warpgroup is done with block n."""
        plgpu.barrier_arrive(self.free.at[jax.lax.rem(n, self.slots.shape[0])])


def ring(shape: tuple[int, int], dtype: Any, stages: int, consumers: int = 1) -> Stream:
    """Allocates a stream: `stages` slots in shared memory, which `consumers` warpgroups read."""
    return Stream(
        plgpu.SMEM((stages, *shape), dtype),
        plgpu.Barrier(num_barriers=stages),
        plgpu.Barrier(num_arrivals=consumers, num_barriers=stages),
    )


def feed(steps, streams: Sequence[Stream], copy: Callable[..., None]) -> None:
    """Runs the copying warpgroup: `copy(n, which, slot, barrier)` starts copy n of a stream.

    At the end it waits until all is used: no thread block leaves a barrier half way.
    """

    def load(n, _):
        for which, stream in enumerate(streams):
            stages = stream.slots.shape[0]
            slot = jax.lax.rem(n, stages)

            @pl.when(n >= stages)
            def _(stream=stream, slot=slot):
                plgpu.barrier_wait(stream.free.at[slot])

            copy(n, which, stream.slots.at[slot], stream.ready.at[slot])

    def drain(n, _):
        for stream in streams:
            plgpu.barrier_wait(stream.free.at[jax.lax.rem(n, stream.slots.shape[0])])

    stages = streams[0].slots.shape[0]
    jax.lax.fori_loop(0, steps, load, None)
    jax.lax.fori_loop(jnp.maximum(steps - stages, 0), steps, drain, None)
