"""Attention rollout: what all layers together make of attention maps."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape


def rollout(
    weights: Float[Array, "l b h t t"],
    residual: float | Sequence[float] | Float[Array, " l"] = 0.0,
) -> Float[Array, "b t t"]:
    """Cumulative attention: the product of the layers' maps, the last layer leftmost.

        P = A^(L) ... A^(1),    A <- (1 - a) mean_h A_h + a I

    P_ij is the influence of input j on output i.

    Args:
        weights: attention maps `[l, b, h, t, t]`.
        residual: a, the share of the skip connection, of all layers or of each.

    Returns:
        P `[b, t, t]`; rows sum to one if those of the maps do.

    Raises:
        ValueError: not five axes, or shares of another number than the layers.

    Reference:
        arXiv 2502.01951; 2005.00928 (attention rollout).

    Example:
        >>> cesaro = jnp.tril(jnp.ones((2, 2))) / jnp.array([[1.0], [2.0]])
        >>> rollout(jnp.stack([cesaro, cesaro])[:, None, None])[0].tolist()
        [[1.0, 0.0], [0.75, 0.25]]
    """
    check_shape("weights", weights, "l b h t t", {})
    shares = jnp.asarray(residual, weights.dtype)
    if shares.ndim:
        check_shape("residual", shares, "l", {"l": len(weights)})
    total = jnp.eye(weights.shape[-1], dtype=weights.dtype)
    shares = jnp.broadcast_to(shares, (len(weights),))
    for layer, share in zip(weights.mean(axis=2), shares, strict=True):
        total = (1 - share) * jnp.matmul(layer, total, precision="highest") + share * total
    return total
