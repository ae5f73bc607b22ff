"""Arrays over the plane of scores that vary along queries only, along keys only, or not at all.

A kernel reads a line straight from global memory, where it needs it: for the tiles on the edge of
a mask. It lies there in blocks, `[#b, #h, blocks, block]`, and is spread over a tile in registers.
"""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

_TAKES_INDEX = "idx" in inspect.signature(plgpu.load).parameters  # jax < 0.12


class Line(NamedTuple):
    """One such array as an operand of a kernel.

    Attributes:
        array: `[#b, #h, blocks, block]`, or `[#b, #h, 1, 1]` for a number.
        axis: of the tile along which it varies; None for a number.
        boolean: whether it stands for True and False.
    """

    array: Array
    axis: int | None
    boolean: bool

    def read(self, ref, b, h, starts: tuple[Any, Any], shape: tuple[int, ...]) -> Array:
        """Its values over a tile whose rows and columns are these blocks, or its rows."""
        b, h = (i if size > 1 else 0 for i, size in zip((b, h), self.array.shape, strict=False))
        if self.axis is None:
            value = jnp.broadcast_to(ref[b, h, 0, 0], shape)
        else:
            value = load(ref.at[b, h, starts[self.axis]])
            value = jax.lax.broadcast_in_dim(value, shape, (self.axis,))
        return value != 0 if self.boolean else value


def load(ref) -> Array:
    """Reads from global memory; unlike `ref[...]`, also what no wide load can."""
    index = ((),) if _TAKES_INDEX else ()
    return plgpu.load(ref, *index, optimized=False)


def line(array: Array, lengths: tuple[int, int], blocks: tuple[int, int], turned: bool) -> Line:
    """A `[#b, #h, #t, #s]` array, not both t and s, for tiles of `blocks` (queries, keys).

    Args:
        array: the array.
        lengths: numbers of queries and keys that the kernel meets, padding included.
        blocks: how many queries and keys a tile has.
        turned: keys are the rows of a tile.
    """
    boolean = array.dtype == bool
    kind = jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.int32
    array = jnp.asarray(array).astype(kind)
    for axis, (length, block) in enumerate(zip(lengths, blocks, strict=True)):
        if array.shape[2 + axis] > 1:
            flat = array.reshape(*array.shape[:2], -1)
            flat = jnp.pad(flat, ((0, 0), (0, 0), (0, length - flat.shape[2])))
            flat = flat.reshape(*array.shape[:2], -1, block)
            return Line(flat, axis ^ turned, boolean)
    return Line(array, None, boolean)


def is_plane(array: Any) -> bool:
    """Whether it varies along queries and keys; those arrays these kernels do not take."""
    return array.shape[2] > 1 and array.shape[3] > 1
