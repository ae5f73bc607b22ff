"""What TPU kernels share: products of the matrix unit, rows and columns of registers."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def as_column(row: Array) -> Array:
    """`[1, n]` to `[n, 1]`, by way of the eight rows of a register."""
    return jnp.broadcast_to(row, (8, row.shape[1])).T[:, :1]


def as_row(column: Array) -> Array:
    """`[n, 1]` to `[1, n]`."""
    return jnp.broadcast_to(column, (column.shape[0], 128)).T[:1]


def product(left: Array, right: Array, axes: tuple[int, int], dtype: Any) -> Array:
    """The product over one axis of each, in float32.

    Args:
        left, right: two matrices.
        axes: which axis of each is summed over.
        dtype: of the operands on the matrix unit; float32 is multiplied exactly.
    """
    return jax.lax.dot_general(
        left.astype(dtype), right.astype(dtype), (((axes[0],), (axes[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )  # fmt: skip
