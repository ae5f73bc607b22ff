"""Floating-point operations of a traced program, with the lengths of its loops."""

import math
from collections.abc import Iterator
from typing import Any

# Order of the work of a factorisation of an n x n matrix, in n^3.
FACTORISATIONS = {"cholesky": 1 / 3, "lu": 2 / 3, "eigh": 9.0, "qr": 4 / 3}
# What moves numbers and computes none.
MOVES = frozenset(
    """broadcast_in_dim concatenate convert_element_type copy dynamic_slice dynamic_update_slice
    gather iota pad random_bits random_wrap reshape rev scatter select_n slice squeeze
    stop_gradient transpose""".split()  # noqa: SIM905  a list that can be read
)


def flops(jaxpr: Any) -> float:
    """Counts the operations of one call of a program: a multiplication and an addition are two.

    A scan counts as often as it is long, the dearest branch of a conditional once, and the body of
    a loop whose length is not known once. Elementwise operations count one for each number.

    Args:
        jaxpr: of the whole program, before it is divided over devices.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> step = lambda x, _: (x @ x, None)
        >>> program = jax.make_jaxpr(lambda x: jax.lax.scan(step, x, None, length=5))
        >>> flops(program(jnp.ones((4, 4)))) == 5 * 2 * 4**3
        True
    """
    equations = getattr(jaxpr, "jaxpr", jaxpr).eqns
    return float(sum(_of_equation(equation) for equation in equations))


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    inner = [flops(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "pallas_call" and params.get("cost_estimate") is not None:
        return float(params["cost_estimate"].flops)
    if name == "pallas_call":
        return float(sum(inner)) * math.prod(
            n for n in params["grid_mapping"].grid if isinstance(n, int)
        )
    if name == "scan":
        return sum(inner) * params["length"]
    if name == "cond":
        return max(inner, default=0.0)
    if name == "shard_map":
        return sum(inner) * _manual_devices(params)
    if inner:
        return sum(inner)
    shape: tuple[int, ...] = equation.outvars[0].aval.shape if equation.outvars else ()
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(shape) * math.prod(kernel) / outputs
    first: Any = equation.invars[0].aval.shape if equation.invars else ()
    if name in FACTORISATIONS:
        return FACTORISATIONS[name] * math.prod(first[:-1]) * first[-1] * first[-1]
    if name == "triangular_solve":
        return float(math.prod(shape) * first[-1])
    if name.startswith("reduce_") or name.startswith("cum") or name.startswith("arg"):
        return float(math.prod(first))
    return 0.0 if name in MOVES or not _floats(equation) else float(math.prod(shape))


def _floats(equation: Any) -> bool:
    return any(
        getattr(getattr(variable.aval, "dtype", None), "kind", "") in "fcV"
        for variable in equation.outvars
    )


def _manual_devices(params: dict[str, Any]) -> int:
    """Over how many devices the body of a shard_map runs."""
    mesh = params["mesh"]
    manual = params.get("manual_axes") or mesh.axis_names
    return math.prod(mesh.shape[axis] for axis in manual)


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns"):
                yield one
