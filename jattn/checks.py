"""Argument checks that end in one clear line: what was expected, and what came."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

_KINDS = {"bool": jnp.bool_, "integer": jnp.integer, "floating": jnp.floating}


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
    # An array is equal to nothing that a choice is, and says so element by element.
    if isinstance(value, jax.Array | np.ndarray) or value not in choices:
        wanted = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: expected one of {wanted}, got {said(value)}")


def check_array(name: str, array: Any, kind: str) -> None:
    """Checks that `array` is one, of JAX or NumPy, with a dtype of a kind.

    Args:
        name: the argument's name, for the message.
        array: anything.
        kind: `"bool"`, `"integer"` or `"floating"`.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_array("mask", jnp.zeros(3), "bool")
        Traceback (most recent call last):
        ...
        ValueError: mask: expected a bool array, got float32
    """
    article = "an" if kind == "integer" else "a"
    if not isinstance(array, jax.Array | np.ndarray | np.generic):
        raise ValueError(f"{name}: expected {article} {kind} array, got {said(array)}")
    if not jnp.issubdtype(array.dtype, _KINDS[kind]):
        raise ValueError(f"{name}: expected {article} {kind} array, got {array.dtype}")


def as_floating(name: str, value: Any) -> Any:
    """A floating array as it is, a number as one.

    Raises:
        ValueError: it is something else.

    Example:
        >>> as_floating("sink", 2).dtype.name
        'float32'
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return jnp.asarray(float(value))
    check_array(name, value, "floating")
    return value


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Checks that `value` is an integer of at least `least`; True and 2.0 are none.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_count("window", 2.5)
        Traceback (most recent call last):
        ...
        ValueError: window: expected an integer of at least 1, got 2.5
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name}: expected an integer of at least {least}, got {said(value)}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def check_indices(name: str, index: Any, size: int) -> None:
    """Checks that all integers of an array are 0 to size - 1; a traced array passes.

    Raises:
        ValueError: one is not.

    Example:
        >>> check_indices("tokens", np.array([0, 7]), 5)
        Traceback (most recent call last):
        ...
        ValueError: tokens: expected 0 to 4, got 7
    """
    if isinstance(index, Tracer):
        return
    found = np.asarray(index)
    wrong = found[(found < 0) | (found >= size)]
    if wrong.size:
        raise ValueError(f"{name}: expected 0 to {size - 1}, got {wrong[0]}")


def check_number(
    name: str, value: Any, *, least: float | int | None = None, above: float | int | None = None
) -> None:
    """Checks that `value` is a finite number, `>= least` or `> above` where they are given.

    A traced number passes: what it is will be known too late.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_number("temperature", float("nan"), above=0)
        Traceback (most recent call last):
        ...
        ValueError: temperature: expected a positive number, got nan
    """
    if isinstance(value, Tracer) and value.ndim == 0:
        return
    bound = "" if least is None else f" of at least {least}"
    wanted = f"number{bound}" if above is None else f"number above {above}"
    wanted = "positive number" if above == 0 else wanted
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, jax.Array | np.ndarray) and not np.ndim(value):
        number = jnp.issubdtype(value.dtype, jnp.number)
    if isinstance(value, bool) or not number or not math.isfinite(float(value)):
        raise ValueError(f"{name}: expected a {wanted}, got {said(value)}")
    if least is not None and float(value) < least:
        raise ValueError(f"{name}: expected at least {least}, got {said(value)}")
    if above is not None and float(value) <= above:
        raise ValueError(f"{name}: expected a {wanted}, got {said(value)}")


def check_flag(name: str, value: Any) -> None:
    """Checks that `value` is True or False.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {said(value)}")


def check_key(key: Any) -> None:
    """Checks that `key` is one for random numbers, or None.

    Raises:
        ValueError: it is something else.
    """
    if key is None:
        return
    array = isinstance(key, jax.Array)
    if not array or not (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32):
        raise ValueError(f"key: expected a PRNG key, as of jax.random.key(0), got {said(key)}")


def said(value: Any) -> str:
    """A value for a message: itself where it is short, else what it is.

    Example:
        >>> said(2.5), said(jnp.zeros(9))
        ('2.5', 'a float32 array of shape [9]')
    """
    if isinstance(value, jax.Array | np.ndarray) and value.ndim:
        return f"a {value.dtype} array of shape {list(value.shape)}"
    said = repr(value)
    short = len(said) <= 40 and "\n" not in said and not callable(value)
    return said if short else f"a {type(value).__name__}"
