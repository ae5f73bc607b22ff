"""Losses of signals in time."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape


def negative_pearson(x: Float[Array, "*b t"], y: Float[Array, "*b t"]) -> Float[Array, "*b"]:
    """`1 - r`, r the correlation over time: 0 of signals alike up to scale and offset.

    Opposite ones have 2.

    A constant signal correlates with nothing: 1.

    Args:
        x, y: signals, time last.

    Raises:
        ValueError: shapes that differ.

    Reference:
        arXiv 1905.02419; with soft masks of video, arXiv 2507.07795.

    Example:
        >>> negative_pearson(jnp.array([1.0, 2.0, 4.0]), jnp.array([3.0, 5.0, 9.0])).round(5).item()
        0.0
    """
    axes = " ".join(f"axis{i}" for i in range(x.ndim))
    sizes: dict[str, int] = {}
    check_shape("x", x, axes, sizes)
    check_shape("y", y, axes, sizes)
    x, y = (z - z.mean(-1, keepdims=True) for z in (x, y))
    square = (x**2).sum(-1) * (y**2).sum(-1)
    some = square > 0
    return 1 - jnp.where(some, (x * y).sum(-1) / jnp.sqrt(jnp.where(some, square, 1)), 0)
