"""Attention sinks: positions that many queries attend to, whatever they hold.

    alpha_j = (1 / (t - j)) sum_{i >= j} A_ij   (j from 0),      Sink_j = mean [alpha_j > eps]

Reference: arXiv 2410.10781.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.mechanisms.mixer import Mixer, edit_parts


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


def weight_on_position(
    mixer: Mixer, params: Any, x: Float[Array, "b t m"], *, heads: int, position: int = 0
) -> Float[Array, "b t h"]:
    """Weight of each token and head on a position: what it gives where values are 1 there, else 0.

    It is the attention weight where that is all that is done to values; whatever a mechanism does
    behind it in its core, a scale, a shift or a difference, is in it, so it may be negative.

    Args:
        mixer: one with parts, whose core is linear in values, such as softmax attention.
        params: its parameters.
        x: tokens.
        heads: h; values have h heads, too.
        position: which one.

    Returns:
        `[b, t, h]`.

    Raises:
        ValueError: a mixer without parts, or a position that is not there.

    Example:
        >>> import jax, jattn
        >>> mixer = jattn.zoo.make("softmax_attention", dim=8, heads=2, causal=True)
        >>> zeros = jax.tree.map(jnp.zeros_like, mixer.init(jax.random.key(0)))
        >>> weights = weight_on_position(mixer, zeros, jnp.ones((1, 4, 8)), heads=2)
        >>> [round(float(weight), 3) for weight in weights[0, :, 0]]
        [1.0, 0.5, 0.333, 0.25]
    """
    if not 0 <= position < x.shape[1]:
        raise ValueError(f"position: expected 0 to {x.shape[1] - 1}, got {position}")

    def only_there(parts):
        def project(params, x, source):
            maps = dict(parts.project(params, x, source))
            there = jnp.zeros_like(maps["value"]).at[:, position].set(1.0)
            # Known values would have the compiler work through what is done to them.
            maps["value"] = lax.optimization_barrier(there)
            return maps

        return parts._replace(project=project, output=lambda params, mixed, x: mixed)

    mixed = edit_parts(mixer, only_there).apply(params, x)
    return mixed.reshape(*mixed.shape[:2], heads, -1)[..., 0]
