"""Means over tokens or pixels, without padding."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.extremes import largest


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


def count_over_space(
    x: Float[Array, "b *space c"], real: Bool[Array, " b *space"] | None = None
) -> Float[Array, "b *one 1"]:
    """How many real places there are, 1 at least, with axes of space 1 long."""
    space = tuple(range(1, x.ndim - 1))
    if real is None:
        places = math.prod(x.shape[1:-1])
        return jnp.full((x.shape[0], *(1 for _ in space), 1), max(places, 1), x.dtype)
    return jnp.maximum(real.sum(space, keepdims=True)[..., None], 1).astype(x.dtype)


def max_over_space(
    x: Float[Array, "b *space c"], real: Bool[Array, " b *space"] | None = None
) -> Float[Array, "b *one c"]:
    """The largest value of each channel over space; 0 in a row without any real token.

    Example:
        >>> x = jnp.array([[[1.0], [3.0], [8.0]]])
        >>> max_over_space(x, jnp.array([[True, True, False]])).tolist()
        [[[3.0]]]
    """
    return largest(x, range(1, x.ndim - 1), None if real is None else real[..., None])


def deviation_over_space(
    x: Float[Array, "b *space c"], real: Bool[Array, " b *space"] | None = None
) -> Float[Array, "b *one c"]:
    """The standard deviation of each channel over space, of n - 1; 0 of fewer than two places.

    Example:
        >>> deviation_over_space(jnp.array([[[1.0], [5.0], [9.0]]])).tolist()
        [[[4.0]]]
    """
    space = tuple(range(1, x.ndim - 1))
    apart = x - mean_over_space(x, real)
    apart = apart if real is None else jnp.where(real[..., None], apart, 0)
    count = count_over_space(x, real)
    variance = (apart**2).sum(space, keepdims=True) / jnp.maximum(count - 1, 1)
    # The root has no slope at 0: a channel that is constant gives 0, and no gradient.
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
