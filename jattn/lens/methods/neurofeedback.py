"""Neurofeedback: can a model report and control an axis of its own states (arXiv 2505.13763)?

A sentence's state is the mean residual stream over its tokens. Axes are principal components, or
the difference of two classes; a sentence's score along one, standardised, is split at the median
into the labels that the model is shown, and then asked for. Control is the effect size of being
asked for one label or the other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.lens.methods.method import Method


def principal_axes(
    states: Float[Array, "n m"],
) -> tuple[Float[Array, "k m"], Float[Array, " k"]]:
    """Orthonormal axes and their shares of the variance, the largest first; k = min(n, m)."""
    _, sizes, axes = jnp.linalg.svd(states - states.mean(0), full_matrices=False)
    return axes, sizes**2 / (sizes**2).sum()


def scores_and_labels(
    states: Float[Array, "n m"], axis: Float[Array, " m"]
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    """Standardised scores along an axis, and whether each is above their median."""
    along = states @ axis
    scores = (along - along.mean()) / along.std()
    return scores, scores > jnp.median(scores)


def effect_size(one: Float[Array, " n"], other: Float[Array, " k"]) -> Float[Array, ""]:
    """Cohen's d: the difference of means over the pooled standard deviation.

    Example:
        >>> float(effect_size(jnp.array([1.0, 3.0]), jnp.array([1.0, 3.0])))
        0.0
    """
    n, k = len(one), len(other)
    pooled = ((n - 1) * one.var(ddof=1) + (k - 1) * other.var(ddof=1)) / (n + k - 2)
    return (one.mean() - other.mean()) / jnp.sqrt(pooled)


METHOD = Method(
    name="principal_axes",
    title="Language models are capable of metacognitive monitoring and control",
    arxiv="2505.13763",
    kind="readout",
    function=principal_axes,
    example=lambda key: {"states": jax.random.normal(key, (12, 6))},
    bounds=(-1.0, 1.0),
)
