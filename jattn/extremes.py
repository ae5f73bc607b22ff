"""The largest of several numbers, with a gradient that compilers cannot spoil."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def largest(
    x: Float[Array, "..."], axes: int | Sequence[int], there: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """The maximum over axes, `max_i x_i`, whose gradient goes to the first that has it.

    The derivative of `jnp.max` looks for the numbers that equal the maximum. A compiler may compute
    them a second time and round them in another way; then none does, and the gradient is 0 / 0.
    Here the place is found once.

    Args:
        x: any numbers.
        axes: over which, one or several; they stay, 1 long.
        there: False where a number does not count, broadcastable to x; default all do. Where none
            is there the maximum is 0.

    Returns:
        Maxima, in x's dtype.

    Example:
        >>> x = jnp.array([[1.0, 4.0], [3.0, 2.0]])
        >>> largest(x, 1).tolist(), largest(x, (0, 1), x < 4).tolist()
        ([[4.0], [3.0]], [[3.0]])
    """
    if not x.ndim:
        raise ValueError("x: expected at least one axis, got a number")
    axes = [axis % x.ndim for axis in ([axes] if isinstance(axes, int) else axes)]
    shown = x if there is None else jnp.where(there, x, -jnp.inf)
    last = jnp.moveaxis(shown, axes, range(-len(axes), 0))
    count = math.prod(last.shape[-len(axes) :])
    flat = last.reshape(*last.shape[: -len(axes)], count)
    place = lax.stop_gradient(flat).argmax(-1, keepdims=True)
    chosen = lax.broadcasted_iota(place.dtype, flat.shape, flat.ndim - 1) == place
    found = jnp.expand_dims(jnp.where(chosen, flat, 0).sum(-1), axes)
    if there is None:
        return found
    return jnp.where(jnp.broadcast_to(there, x.shape).any(tuple(axes), keepdims=True), found, 0)


def least(
    x: Float[Array, "..."], axes: int | Sequence[int], there: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """The minimum over axes: see `largest`.

    Example:
        >>> least(jnp.array([[1.0, 4.0], [3.0, 2.0]]), 0).tolist()
        [[1.0, 2.0]]
    """
    return -largest(-x, axes, there)
