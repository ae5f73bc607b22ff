"""Means over tokens or pixels, without padding."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_over_space(
    x: Float[Array, "b *space c"], real: Bool[Array, " b *space"] | None = None
) -> Float[Array, "b *one c"]:
    """The mean of each channel over all axes between the first and the last, which stay, 1 long.

    Args:
        x: states `[b, c]`, tokens `[b, t, c]`, images `[b, y, x, c]`.
        real: False where x is padding, which does not count; default none is. A row without any
            real token has zeros.

    Example:
        >>> x = jnp.array([[[1.0], [3.0], [8.0]]])
        >>> mean_over_space(x, jnp.array([[True, True, False]])).tolist()
        [[[2.0]]]
    """
    space = tuple(range(1, x.ndim - 1))
    if real is None:
        return x.mean(space, keepdims=True)
    there = real[..., None]
    count = jnp.maximum(there.sum(space, keepdims=True), 1).astype(x.dtype)
    return jnp.where(there, x, 0).sum(space, keepdims=True) / count
