"""Checks of what mixers are given: their parameters and tokens."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jattn.checks import check_array, check_shape
from jattn.mechanisms.mixer import Params


def shapes_of(init: Callable[[jax.Array], Params]) -> Callable[[], Any]:
    """Gives the shapes of the parameters that `init` makes, found when first asked."""
    return functools.cache(lambda: jax.eval_shape(lambda: init(jax.random.key(0))))


def check_tokens(dim: int | None, x: Any, context: Any = None, positions: Any = None) -> None:
    """Checks the arrays that a mixer is given.

    Raises:
        ValueError: one that is none, or of a shape or dtype that does not fit.
    """
    sizes = {} if dim is None else {"m": dim}
    check_array("x", x, "floating")
    check_shape("x", x, "b t m", sizes)
    if positions is not None:
        check_array("positions", positions, "integer")
        check_shape("positions", positions, "b t", sizes)
    if context is not None:
        check_array("context", context, "floating")
        check_shape("context", context, "b s m", sizes)


def check_parameters(name: str, params: Any, expected: Any, *, any_size: bool = False) -> None:
    """Checks that parameters hold those of this mixer.

    Others may be there besides: parameters of a mechanism serve the ones that it has for its
    limits.

    Args:
        name: the mechanism's name, for messages.
        params: what came.
        expected: the tree of the shapes of the parameters that `init` makes.
        any_size: look at names, trees and numbers of axes only.

    Raises:
        ValueError: one is missing, or has another shape.
    """
    if not isinstance(params, Mapping):
        raise ValueError(f"params: expected those of {name}, got a {type(params).__name__}")
    missing = sorted(set(expected) - set(params))
    if missing:
        wanted = ", ".join(sorted(expected))
        raise ValueError(
            f"params: expected those of {name} ({wanted}), got none by the name of "
            f"{', '.join(missing)}"
        )
    for part in sorted(set(expected) & set(params)):
        array = params[part]
        wanted, got = (jax.tree_util.tree_leaves_with_path(x) for x in (expected[part], array))
        if jax.tree.structure(expected[part]) != jax.tree.structure(array):
            raise ValueError(f"params[{part!r}]: expected the tree that {name} makes, got another")
        for (path, shape), (_, leaf) in zip(wanted, got, strict=True):
            fits = np.ndim(leaf) == len(shape.shape) if any_size else np.shape(leaf) == shape.shape
            if not fits:
                where = f"params[{part!r}]{jax.tree_util.keystr(path)}"
                raise ValueError(
                    f"{where}: expected shape {list(shape.shape)} for {name}, "
                    f"got {list(np.shape(leaf))}"
                )
