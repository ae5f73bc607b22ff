"""Attention sinks: positions that many queries attend to, whatever they hold.

    alpha_j = (1 / (t - j)) sum_{i >= j} A_ij   (j from 0),      Sink_j = mean [alpha_j > eps]

Reference: arXiv 2410.10781.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape


def importance(weights: Float[Array, "*batch t t"]) -> Float[Array, "*batch t"]:
    """Mean attention that a position gets from the queries that can see it.

    Args:
        weights: causal attention maps `[..., t, t]`, zero above the diagonal. Weights without a
            normaliser are to be divided by their rows' sums of magnitudes first.

    Returns:
        alpha `[..., t]`.

    Raises:
        ValueError: maps that are not square.

    Reference:
        arXiv 2410.10781, section 3.

    Example:
        >>> importance(jnp.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
        [0.75, 0.5]
    """
    length = weights.shape[-1]
    check_shape("weights", weights.reshape(-1, *weights.shape[-2:]), "n t t", {"t": length})
    return weights.sum(-2) / (length - jnp.arange(length))


def sink_metric(weights: Float[Array, "n l h t t"], threshold: float = 0.3) -> Float[Array, " t"]:
    """Share of samples, layers and heads in which a position is a sink.

    Args:
        weights: causal attention maps `[samples, layers, heads, t, t]`.
        threshold: eps; a position is a sink of a head if its importance exceeds it.

    Returns:
        Sink `[t]`, in [0, 1].

    Raises:
        ValueError: not five axes.

    Reference:
        arXiv 2410.10781, section 3.

    Example:
        >>> first = jnp.zeros((2, 1, 1, 4, 4)).at[..., 0].set(1.0)
        >>> sink_metric(first).tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    check_shape("weights", weights, "n l h t t", {})
    return (importance(weights) > threshold).mean(axis=(0, 1, 2))
