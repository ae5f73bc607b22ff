"""Arrays of torch modules in the layouts of jattn."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays under a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): jnp.asarray(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def matrix(weight: Any) -> Any:
    """`[out, in, 1, ...] -> [in, out]`."""
    return jnp.asarray(weight).reshape(weight.shape[0], -1).T


def affine(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`NAME.weight` and, where it is there, `NAME.bias`."""
    params = {"weight": matrix(arrays[f"{name}.weight"])}
    bias = {"bias": arrays[f"{name}.bias"]} if f"{name}.bias" in arrays else {}
    return params | bias


def norm(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`scale` and `shift` of a norm by the name of NAME."""
    return {"scale": arrays[f"{name}.weight"], "shift": arrays[f"{name}.bias"]}


def statistics(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`mean` and `variance` of a batch norm by the name of NAME."""
    return {"mean": arrays[f"{name}.running_mean"], "variance": arrays[f"{name}.running_var"]}


def packed(arrays: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """`query`, `key`, `value` and `output` of a multi-head attention with packed projections."""
    weights = jnp.split(arrays[f"{name}.in_proj_weight"], 3)
    biases = jnp.split(arrays[f"{name}.in_proj_bias"], 3)
    maps = {
        of: {"weight": weight.T, "bias": bias}
        for of, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    return maps | {"output": affine(arrays, f"{name}.out_proj")}


def pulled(function: Any, *given: Any, cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
    """A function's output, and its gradients for what it is given, weighted by a cotangent."""
    y, pull = jax.vjp(function, *map(jnp.asarray, given))
    return y, pull(jnp.asarray(cotangent).astype(y.dtype))


def without_rounding(
    outputs: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs that the case has, but for zeros: where both are a millionth of the largest gradient.

    A bias that a softmax cancels has no gradient; what is in a file of it is rounding, and so is
    what we get. One that is no zero stays, and fails.
    """
    found = {name: np.asarray(value) for name, value in outputs.items() if name in arrays}
    size = lambda array: float(np.abs(np.asarray(array, np.float64)).max(initial=0.0))
    gradients = {name for name in found if "grad" in name}
    zero = 1e-6 * max((size(arrays[name]) for name in gradients), default=0.0)
    noise = {n for n in gradients if max(size(arrays[n]), size(found[n])) < zero}
    return {name: value for name, value in found.items() if name not in noise}
