"""Functions of a single score or pair of indices, traced once and run over whole tiles.

A user writes `(score, batch, head, q_index, k_index) -> score` with all five as scalars in mind.
Traced as that, and mapped over the axes of a tile, it means the same for every backend and every
tile, look-ups included (`bias[batch][q_index]`). What it closes over becomes arguments, so a rule
for derivatives sees it; what is left is text that tells whether two functions are the same, so a
new closure each call does not compile anew.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jaxtyping import Array

INDEX = jax.ShapeDtypeStruct((), jnp.int32)


class ScalarFunction:
    """A traced function; equal to another if both do the same to the same arguments.

    Attributes:
        jaxpr: what it does, with what it closes over as its first arguments.
        function: what it was traced from.
    """

    def __init__(self, jaxpr: Any, function: Callable[..., Any]):
        self.jaxpr, self.function = jaxpr, function
        own_rules = any(_has_own_rule(equation) for equation in nested(jaxpr.eqns))
        # Text does not show what a derivative's rule closes over.
        self._key = (str(jaxpr), id(function) if own_rules else None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScalarFunction) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def over_tile(
        self, closed_over: Sequence[Any], q_index: Array, k_index: Array, b: Any, h: Any,
        score: Array | None = None,
    ) -> Array:  # fmt: skip
        """Its values over a tile, `[b, h, q, k]`.

        Args:
            closed_over: what `trace` found.
            q_index, k_index: indices of the tile's queries and keys, `[q]` and `[k]`.
            b, h: indices of batch entries and heads, `[b]` and `[h]`.
            score: `[b, h, q, k]`, for functions that take one.
        """

        def scalar(score, *indices):
            given = indices if score is None else (score, *indices)
            return eval_jaxpr(self.jaxpr, closed_over, *given)[0]

        mapped = scalar
        for axis in (4, 3, 2, 1):
            axes = [None] * 4
            axes[axis - 1] = 0  # type: ignore[call-overload]
            mapped = jax.vmap(mapped, (None if score is None else 0, *axes))
        indices = (jnp.asarray(x, jnp.int32) for x in (b, h, q_index, k_index))
        return mapped(score, *indices)


def trace(
    name: str, function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct
) -> tuple[ScalarFunction, list[Any]]:
    """Traces a function on scalars; returns it and what it closes over.

    Raises:
        ValueError: it does not return one scalar.
    """
    try:
        # Operations keep the mesh in use when they are traced; these run inside `shard_map`, too.
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
            closed, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except (TypeError, IndexError, AttributeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(
            f"{name}: expected a function of {len(arguments)} scalars "
            f"(..., batch, head, q_index, k_index), got {type(error).__name__}: {first:.200}"
        ) from error
    leaves = jax.tree.leaves(out)
    if len(leaves) != 1 or leaves[0].shape != ():
        shapes = [list(leaf.shape) for leaf in leaves]
        raise ValueError(
            f"{name}: expected one scalar for one score; arrays it uses must be looked up by "
            f"index, as in table[head, q_index - k_index]; got {shapes}"
        )
    return ScalarFunction(closed.jaxpr, function), list(closed.consts)


def nested(equations):
    """Equations, and those of functions they call."""
    for equation in equations:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(parameter, "jaxpr"):
                yield from nested(parameter.jaxpr.eqns)


def _has_own_rule(equation: Any) -> bool:
    """Whether it has a rule for its derivative that is not one of JAX itself."""
    if not equation.primitive.name.startswith("custom_"):
        return False
    found = [getattr(rule, "debug_info", None) for rule in equation.params.values()]
    sources = [str(info.func_filename).replace("\\", "/") for info in found if info is not None]
    return not sources or not all("/jax/" in source for source in sources)
