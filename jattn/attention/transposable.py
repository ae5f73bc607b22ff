"""Linear maps with a transpose of their own, for derivatives in every direction.

`jax.custom_vjp` rules out forward mode, and `jax.custom_jvp` leaves the backward pass to JAX, which
cannot turn a loop of unknown length round. Here a rule for forward mode hands its tangents to a map
that knows its transpose: reverse mode then runs that, forward mode runs the map itself, and both
can be differentiated again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import PyTree

_linear_p = Primitive("attend_tangent")
_linear_p.multiple_results = True


def with_transpose(
    forward: Callable[[Any, Any], Any],
    transpose: Callable[[Any, Any], Any],
    residuals: PyTree,
    tangents: PyTree,
    like: PyTree,
) -> PyTree:
    """`forward(residuals, tangents)`, whose transpose is `transpose(residuals, cotangents)`.

    Args:
        forward: linear in its second argument; in plain JAX, so that it can be differentiated.
        transpose: from cotangents of its results to those of `tangents`.
        residuals: what both may use besides.
        tangents: what it is linear in.
        like: arrays of the shapes and dtypes of its results.

    Returns:
        What `forward` returns, with the structure of `like`.
    """
    residuals, of_residuals = jax.tree.flatten(residuals)
    tangents, of_tangents = jax.tree.flatten(tangents)
    results, of_results = jax.tree.flatten(like)

    def flat_forward(residuals, tangents):
        out = forward(of_residuals.unflatten(residuals), of_tangents.unflatten(tangents))
        return jax.tree.leaves(out)

    def flat_transpose(residuals, cotangents):
        out = transpose(of_residuals.unflatten(residuals), of_results.unflatten(cotangents))
        return jax.tree.leaves(out)

    out = _linear_p.bind(
        *residuals, *tangents, forward=flat_forward, transpose=flat_transpose,
        count=len(residuals), avals=tuple(jax.typeof(x) for x in results),
    )  # fmt: skip
    return of_results.unflatten(out)


def _run(*arrays, forward, transpose, count, avals):
    del transpose, avals
    return forward(arrays[:count], arrays[count:])


def _transpose_rule(cotangents, *arrays, forward, transpose, count, avals):
    del forward, avals
    found = transpose(arrays[:count], tuple(map(_instantiated, cotangents)))
    wanted = [ad.is_undefined_primal(x) for x in arrays[count:]]
    return [None] * count + [x if want else None for x, want in zip(found, wanted, strict=True)]


def _jvp_rule(primals, tangents, **params):
    out = _linear_p.bind(*primals, **params)
    count, forward = params["count"], params["forward"]
    given = tuple(map(_instantiated, tangents))
    if all(isinstance(t, ad.Zero) for t in tangents[:count]):
        return out, _linear_p.bind(*primals[:count], *given[count:], **params)
    whole = lambda *arrays: forward(arrays[:count], arrays[count:])
    return out, jax.jvp(whole, primals, given)[1]


def _instantiated(tangent: Any) -> Any:
    if not isinstance(tangent, ad.Zero):
        return tangent
    aval: Any = tangent.aval
    if aval.dtype == jax.dtypes.float0:
        return np.zeros(aval.shape, jax.dtypes.float0)
    return ad.instantiate_zeros(tangent)


def _batch_rule(arrays, axes, *, forward, transpose, count, avals):
    size = next(x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None)
    of_residuals, of_tangents = tuple(axes[:count]), (0,) * (len(arrays) - count)
    tangents = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arrays[count:], axes[count:], strict=True)
    ]
    out = _linear_p.bind(
        *arrays[:count], *tangents,
        forward=jax.vmap(forward, (of_residuals, of_tangents)),
        transpose=jax.vmap(transpose, (of_residuals, (0,) * len(avals))),
        count=count,
        avals=tuple(aval.update(shape=(size, *aval.shape)) for aval in avals),
    )  # fmt: skip
    return out, [0] * len(out)


_linear_p.def_impl(_run)
_linear_p.def_abstract_eval(lambda *_, avals, **__: list(avals))
mlir.register_lowering(_linear_p, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[_linear_p] = _jvp_rule
ad.primitive_transposes[_linear_p] = _transpose_rule
batching.primitive_batchers[_linear_p] = _batch_rule
