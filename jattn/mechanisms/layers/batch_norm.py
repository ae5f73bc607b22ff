"""Batch norm without state: averages are given, and their next values returned.

A mechanism keeps `{"scale", "shift"}` in its parameter `norm` and `{"mean", "variance"}`, averages
over training, in its parameter `statistics`, which no gradient reaches.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

EPSILON = 1e-5
MOMENTUM = 0.1


def statistics_init(channels: int) -> dict[str, Array]:
    """`{"mean": zeros, "variance": ones}`."""
    return {"mean": jnp.zeros(channels), "variance": jnp.ones(channels)}


def running_norm(
    params: Mapping[str, Any],
    x: Float[Array, "*batch c"],
    real: Bool[Array, "*batch"] | None = None,
    *,
    eps: float = EPSILON,
) -> Float[Array, "*batch c"]:
    """Normalises each channel by averages over training, `params["statistics"]`.

    Args:
        params: with `statistics` and, unless the norm has neither, `norm`.
        x: features; all axes but the last are the batch.
        real: ignored, for averages are those of real features already.
        eps: added to the variance.

    Example:
        >>> params = {"statistics": {"mean": jnp.ones(1), "variance": jnp.full(1, 4.0)}}
        >>> running_norm(params, jnp.array([[3.0]])).round(3).tolist()
        [[1.0]]
    """
    averages = lax.stop_gradient((params["statistics"]["mean"], params["statistics"]["variance"]))
    return _normed(params, x, *averages, eps)


def batch_norm(
    params: Mapping[str, Any],
    x: Float[Array, "*batch c"],
    real: Bool[Array, "*batch"] | None = None,
    *,
    eps: float = EPSILON,
) -> tuple[Float[Array, "*batch c"], dict[str, Array]]:
    """Normalises each channel over the batch, and moves the averages by a tenth.

    Args:
        params: as for `running_norm`.
        x: features; all axes but the last are the batch.
        real: those that count; default all.
        eps: added to the variance, which is divided by n for the norm and by n - 1 for the average.

    Returns:
        Normalised features, and the next `params["statistics"]`.

    Example:
        >>> params = {"statistics": statistics_init(1)}
        >>> y, after = batch_norm(params, jnp.array([[1.0], [3.0]]))
        >>> y.round(3).tolist(), after["mean"].round(3).tolist()
        ([[-1.0], [1.0]], [0.20000000298023224])
    """
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    weight = jnp.ones(x.shape[:-1], bool) if real is None else real
    weight = jnp.broadcast_to(weight, x.shape[:-1])[..., None]
    count = jnp.maximum(weight.sum(), 1).astype(wide.dtype)
    mean = jnp.where(weight, wide, 0).sum(axes) / count
    squares = jnp.where(weight, wide - mean, 0) ** 2
    variance = squares.sum(axes) / count
    unbiased = lax.stop_gradient(variance * count / jnp.maximum(count - 1, 1))
    found = {"mean": lax.stop_gradient(mean), "variance": unbiased}
    before = {name: lax.stop_gradient(params["statistics"][name]) for name in found}
    after = {
        name: (1 - MOMENTUM) * before[name] + MOMENTUM * found[name].astype(before[name].dtype)
        for name in found
    }
    return _normed(params, x, mean, variance, eps), after


def _normed(params, x, mean, variance, eps):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = (wide - mean) * lax.rsqrt(variance + eps)
    if "norm" in params:
        y = y * params["norm"]["scale"] + params["norm"]["shift"]
    return y.astype(x.dtype)
