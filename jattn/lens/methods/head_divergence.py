"""VHD and VHR: heads that depend on the context are found and reinforced (arXiv 2412.13949).

    VHD[l, h] = | z_h(context, text) - z_h(text) |_2      at the last token

In each layer, heads whose reads surge when the context is taken away are left out, and of the
others the half with the largest divergence is multiplied by alpha. Later layers see that already,
so both texts run side by side. The context is an image there. How a surge is told is ours: a
divergence above mean + 1 standard deviation of the layer, with reads that are longer without.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_number
from jattn.lens.edits import At
from jattn.lens.methods.method import Method


def head_divergence(
    with_context: Float[Array, "*heads d"], without: Float[Array, "*heads d"]
) -> Float[Array, "*heads"]:
    """Distance of what heads read with and without the context.

    Example:
        >>> head_divergence(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).tolist()
        [5.0]
    """
    return jnp.linalg.norm(with_context - without, axis=-1)


def total_divergence(divergence: Float[Array, "L h"], k: int = 20) -> Float[Array, ""]:
    """T-VHD: mean of the k largest of all heads."""
    return jax.lax.top_k(divergence.reshape(-1), min(k, divergence.size))[0].mean()


def context_heads(
    with_context: Float[Array, "h d"], without: Float[Array, "h d"], *, surges: bool = True
) -> Bool[Array, " h"]:
    """The heads of a layer that are reinforced.

    Args:
        with_context, without: reads at the last token.
        surges: leave surging heads out.
    """
    divergence = head_divergence(with_context, without)
    if surges:
        longer = jnp.linalg.norm(without, axis=-1) > jnp.linalg.norm(with_context, axis=-1)
        surge = longer & (divergence > divergence.mean() + divergence.std())
        divergence = jnp.where(surge, 0.0, divergence)
    return divergence >= jnp.median(divergence)


def reinforce(alpha: float = 2.0) -> At:
    """The edit, for a batch of two: the text with its context, and without it.

    The second is padded in front, so that both end at the same place; only the last token of the
    first is changed, layer by layer with what the layers before have changed.

    Args:
        alpha: factor of the heads that are chosen; 1 changes nothing.
    """
    check_number("alpha", alpha, above=0)
    return At("z", _reinforced, jnp.full((1,), alpha))


def _reinforced(z: Any, alpha: Any, seen: Any) -> Array:
    chosen = context_heads(z[0, -1], z[1, -1])
    return z.at[0, -1].multiply(jnp.where(chosen[:, None], alpha, 1).astype(z.dtype))


METHOD = Method(
    name="reinforce",
    title="Cracking the code of hallucination in LVLMs with vision-aware head divergence",
    arxiv="2412.13949",
    kind="edit",
    function=reinforce,
    example=lambda key: {"alpha": 2.0},
    identity={"alpha": 1.0},
)
