"""Argument checks that end in one clear line: what was expected, and what came."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike


def check_shape(name: str, array: ArrayLike, axes: str, sizes: dict[str, int]) -> None:
    """Checks `array` against named axes, and records the sizes of axes seen for the first time.

    Args:
        name: the argument's name, for the message.
        array: any array.
        axes: axis names separated by spaces, e.g. `"b t h d"`. A digit stands for itself.
        sizes: the sizes known so far; new names are added to it.

    Raises:
        ValueError: the number of axes or a size differs.

    Example:
        >>> sizes = {}
        >>> check_shape("query", jnp.ones((2, 3, 4, 8)), "b t h d", sizes)
        >>> check_shape("key", jnp.ones((2, 5, 4, 7)), "b s h d", sizes)
        Traceback (most recent call last):
        ...
        ValueError: key: expected shape [b=2, s=5, h=4, d=8], got [2, 5, 4, 7]
    """
    shape = jnp.shape(array)
    names = axes.split()
    if len(shape) != len(names):
        raise ValueError(
            f"{name}: expected {len(names)} axes [{', '.join(names)}], got shape {list(shape)}"
        )
    for axis, size in zip(names, shape, strict=True):
        if not axis.isdigit():
            sizes.setdefault(axis, size)
    expected = [int(axis) if axis.isdigit() else sizes[axis] for axis in names]
    if expected != list(shape):
        wanted = ", ".join(
            axis if axis.isdigit() else f"{axis}={size}"
            for axis, size in zip(names, expected, strict=True)
        )
        raise ValueError(f"{name}: expected shape [{wanted}], got {list(shape)}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Checks that `value` is one of `choices`.

    Raises:
        ValueError: it is not; the message lists the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
