"""Operands of the logits of a kernel whose tiles have keys as rows.

An axis of size 1 is never broadcast in memory: what varies along queries only goes in as `[1, t]`,
along keys only as `[1, s]`, a number of each head as `[1, 1]`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from jattn.pallas.tpu import as_column


class LogitsOperand(NamedTuple):
    """An array over the logits, as an operand.

    Attributes:
        array: `[#b, #h, #t, #s]`, padded to whole blocks.
        tile_index: from grid indices (and tables) to the indices of batch entry, head, block of
            queries and block of keys.
        block_q, block_k: lengths of the blocks.
    """

    array: Array
    tile_index: Callable[..., tuple]
    block_q: int
    block_k: int

    @property
    def varies(self) -> tuple[bool, bool]:
        """Whether it varies along queries, along keys."""
        return self.array.shape[2] > 1, self.array.shape[3] > 1

    def operand(self) -> Array:
        """The array as the kernel takes it."""
        along_q, along_k = self.varies
        x = jnp.swapaxes(self.array, 2, 3) if along_q and not along_k else self.array
        if x.dtype == bool:
            return x.astype(jnp.int8 if along_q and along_k else jnp.int32)
        if along_q and along_k and x.dtype == jnp.bfloat16:  # The kernel widens its tile.
            return x
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def spec(self) -> pl.BlockSpec:
        """How it is cut."""
        along_q, along_k = self.varies
        size_b, size_h = self.array.shape[:2]

        def index(*grid):
            b, h, i, j = self.tile_index(*grid)
            b, h = b if size_b > 1 else 0, h if size_h > 1 else 0
            if along_q and along_k:
                return b, h, i, j
            return b, h, 0, i if along_q else j if along_k else 0

        rows = self.block_q if along_q and along_k else 1
        columns = self.block_k if along_k else self.block_q if along_q else 1
        return pl.BlockSpec((1, 1, rows, columns), index)

    def read(self, ref, keys: slice) -> Array:
        """The values over `keys` of the tile at hand; broadcasts against `[keys, queries]`."""
        along_q, along_k = self.varies
        if along_q and along_k:
            tile = ref[0, 0, :, keys]
            tile = tile.astype(jnp.float32) if tile.dtype in (jnp.int8, jnp.bfloat16) else tile
            tile = tile.T
        elif along_k:
            tile = as_column(ref[0, 0, :, keys])
        else:
            tile = ref[0, 0]
        return tile != 0 if self.array.dtype == bool else tile
