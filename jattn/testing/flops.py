"""Counts the operations of a traced function, loops included as often as they run.

XLA's cost analysis counts the body of a loop once, so a recurrence would look free.
"""

import math

import jax
from jax.extend import core


def count(function, *args) -> int:
    """Operations of `function(*args)`: 2 m n k for a matrix product, else one per number made.

    Args:
        function: any JAX function.
        *args: arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        NotImplementedError: a loop whose number of turns the trace does not tell.

    Example:
        >>> import jax.numpy as jnp
        >>> count(lambda a, b: a @ b + 1, jnp.ones((2, 3)), jnp.ones((3, 5)))
        70
    """
    return _operations(jax.make_jaxpr(function)(*args).jaxpr)


def _operations(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [
            p
            for value in equation.params.values()
            for p in (value if isinstance(value, tuple) else (value,))
            if isinstance(p, core.Jaxpr | core.ClosedJaxpr)
        ]
        costs = [_operations(getattr(p, "jaxpr", p)) for p in inner]
        if name == "while":
            raise NotImplementedError("a while loop: the trace does not tell how often it runs")
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        elif name == "scan":
            total += equation.params["length"] * sum(costs)
        elif name == "cond":
            total += max(costs)
        elif costs:
            total += sum(costs)
        else:
            total += sum(math.prod(v.aval.shape) for v in equation.outvars)
    return total
