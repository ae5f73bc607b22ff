"""Arrays that broadcast to the logits `[b, h, t, s]`, and how to cut tiles from them.

An axis of size 1 stays of size 1 in every tile: nothing is ever broadcast to `[t, s]`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def as_logits_operand(
    name: str, array: Array | np.ndarray, b: int, h: int, t: int, s: int
) -> Array:
    """The array with four axes; raises ValueError unless it broadcasts to `[b, h, t, s]`."""
    shape = (1,) * (4 - array.ndim) + array.shape
    if len(shape) != 4 or any(x not in (1, y) for x, y in zip(shape, (b, h, t, s), strict=True)):
        raise ValueError(
            f"{name}: expected a shape broadcastable to [b={b}, h={h}, t={t}, s={s}], "
            f"got {list(array.shape)}"
        )
    return jnp.asarray(array).reshape(shape)


def pad_logits_operand(array: Array, t: int, s: int) -> Array:
    """Grows the last two axes to t and s with zeros, except where they have size 1."""
    grow = [
        (0, 0 if now == 1 else wanted - now)
        for now, wanted in zip(array.shape[2:], (t, s), strict=True)
    ]
    return jnp.pad(array, [(0, 0), (0, 0), *grow])


def _tile_slice(array, q_start, k_start, block_q, block_k):
    # All of one type, or dynamic_update_slice complains in double precision.
    starts = tuple(
        jnp.asarray(0 if size == 1 else start, jnp.int32)
        for size, start in zip(array.shape, (0, 0, q_start, k_start), strict=True)
    )
    sizes = (*array.shape[:2], min(array.shape[2], block_q), min(array.shape[3], block_k))
    return starts, sizes


def slice_tile(array: Array, q_start, k_start, block_q: int, block_k: int) -> Array:
    """The part of an operand that a tile meets, `[#b, #h, #block_q, #block_k]`."""
    return jax.lax.dynamic_slice(array, *_tile_slice(array, q_start, k_start, block_q, block_k))


def add_tile(array: Array, tile: Array, q_start, k_start) -> Array:
    """Adds a tile, as cut by `slice_tile`, back to where it was cut."""
    starts, sizes = _tile_slice(array, q_start, k_start, *tile.shape[2:])
    return jax.lax.dynamic_update_slice(
        array, jax.lax.dynamic_slice(array, starts, sizes) + tile, starts
    )
