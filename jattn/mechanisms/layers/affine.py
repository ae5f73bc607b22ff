"""Affine maps, norms and small networks as trees of named arrays."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import layer_norm


def affine_init(
    key: jax.Array, inputs: int, outputs: int, *, bias: bool = True, std: float | None = None
) -> dict[str, Array]:
    """`{"weight": [inputs, outputs], "bias": [outputs]}`, with a bias of zeros.

    Args:
        key: a PRNG key.
        inputs, outputs: sizes.
        bias: whether there is one.
        std: of normal weights cut off at two of it; default U(-1/sqrt(inputs), 1/sqrt(inputs)).
    """
    if std is None:
        weight = linear_init(key, inputs, outputs)
    else:
        weight = std * jax.random.truncated_normal(key, -2, 2, (inputs, outputs))
    return {"weight": weight} | ({"bias": jnp.zeros(outputs)} if bias else {})


def affine(
    params: Mapping[str, Array], x: Float[Array, "*batch inputs"]
) -> Float[Array, "*batch outputs"]:
    """`x weight + bias`, in x's dtype; without a bias where there is none.

    Example:
        >>> affine({"weight": jnp.eye(2), "bias": jnp.ones(2)}, jnp.zeros((1, 2))).tolist()
        [[1.0, 1.0]]
    """
    y = linear(x, params["weight"])
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


def norm_init(channels: int) -> dict[str, Array]:
    """`{"scale": ones, "shift": zeros}`, of `norm`."""
    return {"scale": jnp.ones(channels), "shift": jnp.zeros(channels)}


def norm(
    params: Mapping[str, Array], x: Float[Array, "*batch c"], *, eps: float = 1e-6
) -> Float[Array, "*batch c"]:
    """Layer norm with `scale` and, where there is one, `shift`."""
    scale = params["scale"]
    shift = params["shift"] if "shift" in params else jnp.zeros_like(scale)
    return layer_norm(x, scale, shift, eps=eps)


def mlp_init(
    key: jax.Array, dim: int, hidden: int, outputs: int | None = None, *, bias: bool = True
) -> dict[str, dict[str, Array]]:
    """`{"inner": dim -> hidden, "outer": hidden -> outputs}`, of `mlp`; default outputs: dim."""
    inner, outer = jax.random.split(key)
    return {
        "inner": affine_init(inner, dim, hidden, bias=bias),
        "outer": affine_init(outer, hidden, dim if outputs is None else outputs, bias=bias),
    }


def mlp(
    params: Mapping[str, Any], x: Float[Array, "*batch m"], activation: Any = None
) -> Float[Array, "*batch n"]:
    """`activation(x inner) outer`; the activation is the exact GELU by default."""
    hidden = affine(params["inner"], x)
    hidden = jax.nn.gelu(hidden, approximate=False) if activation is None else activation(hidden)
    return affine(params["outer"], hidden)
