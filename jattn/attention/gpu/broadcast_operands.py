"""Operands of the logits that vary along queries only, along keys only, or not at all.

A kernel reads such an operand straight from global memory, where it needs it: for the tiles on the
edge of a mask. It lies there in blocks, `[#b, #h, blocks, block]`, and is broadcast over a tile in
registers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jattn.pallas.gpu import load

FAR = float(np.finfo(np.float32).max)  # Any score less this has a weight of zero.


class BroadcastOperand(NamedTuple):
    """An array that varies along one axis of the logits at most, as an operand of a kernel.

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


def broadcast_operand(
    array: Array,
    lengths: tuple[int, int],
    blocks: tuple[int, int],
    transposed: bool,
    fill: float = 0,
) -> BroadcastOperand:
    """A `[#b, #h, #t, #s]` array, not both t and s, for tiles of `blocks` (queries, keys).

    Args:
        array: the array.
        lengths: numbers of queries and keys that the kernel meets, padding included.
        blocks: how many queries and keys a tile has.
        transposed: keys are the rows of a tile.
        fill: what padding holds.
    """
    boolean = array.dtype == bool
    kind = jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.int32
    array = jnp.asarray(array).astype(kind)
    for axis, (length, block) in enumerate(zip(lengths, blocks, strict=True)):
        if array.shape[2 + axis] > 1:
            flat = array.reshape(*array.shape[:2], -1)
            grow = ((0, 0), (0, 0), (0, length - flat.shape[2]))
            flat = jnp.pad(flat, grow, constant_values=fill)
            flat = flat.reshape(*array.shape[:2], -1, block)
            return BroadcastOperand(flat, axis ^ transposed, boolean)
    return BroadcastOperand(array, None, boolean)


def is_full(array: Any) -> bool:
    """Whether it varies along queries and keys; those arrays these kernels do not take."""
    return array.shape[2] > 1 and array.shape[3] > 1
