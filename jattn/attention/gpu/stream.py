"""Blocks on their way into shared memory: one warpgroup copies them in, the others compute.

Slots form a ring. A slot has two barriers: `ready`, when the copy engine has filled it, and `free`,
when every computing warpgroup has let go of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jattn.attention.gpu.plan import Tile


class Stream(NamedTuple):
    """A ring of blocks, inside a kernel."""

    slots: Any  # [stages, columns, width] in shared memory
    ready: Any
    free: Any

    def take(self, n):
        """Waits for block n; its place in shared memory."""
        slot = jax.lax.rem(n, self.slots.shape[0])
        plgpu.barrier_wait(self.ready.at[slot])
        return self.slots.at[slot]

    def release(self, n) -> None:
        """Says that this warpgroup is done with block n."""
        plgpu.barrier_arrive(self.free.at[jax.lax.rem(n, self.slots.shape[0])])


def scratch(tile: Tile, width: int, dtype: Any) -> Stream:
    """What a kernel must allocate for a stream."""
    return Stream(
        plgpu.SMEM((tile.stages, tile.columns, width), dtype),
        plgpu.Barrier(num_barriers=tile.stages),
        plgpu.Barrier(num_arrivals=tile.groups, num_barriers=tile.stages),
    )


def feed(steps, streams: Sequence[Stream], copy: Callable[..., None]) -> None:
    """What the copying warpgroup does: `copy(n, which, slot, barrier)` starts copy n of a stream.

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
