"""Norms over the last axis."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def rms_norm(
    x: Float[Array, "*batch d"], weight: Float[Array, " d"] | None = None, *, eps: float = 1e-6
) -> Float[Array, "*batch d"]:
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis, computed in float32 at least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide * lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + eps)
    return (wide if weight is None else wide * weight).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*batch d"],
    scale: Float[Array, " d"],
    shift: Float[Array, " d"],
    *,
    eps: float = 1e-6,
) -> Float[Array, "*batch d"]:
    """`scale * (x - mean(x)) / sqrt(var(x) + eps) + shift`, computed in float32 at least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, -1, keepdims=True)
    wide = wide * lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + eps)
    return (scale * wide + shift).astype(x.dtype)


def unit_norm(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """`x / |x|` over the last axis, safe at 0."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * jax.lax.rsqrt((wide**2).sum(-1, keepdims=True) + 1e-6)).astype(x.dtype)


def unit(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """`x / |x|` over the last axis, 0 where x is zero."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = (x**2).sum(-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square == 0, 1, square))
