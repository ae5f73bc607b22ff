"""LoFiT: localized fine-tuning of heads' reads, and inference-time intervention beside it.

    z' = (1 + A) z + v      before the output projection

Step 1 trains A in all heads with an l1 penalty and keeps the heads with the longest A; step 2
trains v in these alone, from a fresh start. v can be merged into the model as a bias behind the
output projection. ITI sets v = alpha sigma theta instead, with theta a difference of means.

References: LoFiT, arXiv 2406.01563; ITI, arXiv 2306.03341.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.lens.edits import HeadAffine, ResidAdd
from jattn.lens.methods.method import Method


def lofit_init(key: jax.Array, layers: int, heads: int, width: int) -> Float[Array, "L h d"]:
    """A, or v: N(0, 0.001^2)."""
    return 1e-3 * jax.random.normal(key, (layers, heads, width))


def lofit_edit(
    scale: Float[Array, "L h d"] | None = None,
    shift: Float[Array, "L h d"] | None = None,
    heads: Bool[Array, "L h"] | None = None,
) -> HeadAffine:
    """The edit; gradients reach the heads that are chosen alone.

    Args:
        scale: A; default 0.
        shift: v; default 0.
        heads: which; default all.
    """
    given = scale if scale is not None else shift
    if given is None:
        raise ValueError("scale: expected an array, or one for shift, got neither")
    on = jnp.ones(given.shape[:2]) if heads is None else heads.astype(given.dtype)
    of = lambda x: jnp.zeros_like(given) if x is None else on[..., None] * x
    return HeadAffine(of(scale), of(shift))


def lofit_penalty(
    scale: Float[Array, "L h d"], strength: Float[Array, ""] | float = 5e-4
) -> Float[Array, ""]:
    """The l1 penalty of step 1."""
    return strength * jnp.abs(scale).sum()


def lofit_select(scale: Float[Array, "L h d"], count: int) -> Bool[Array, "L h"]:
    """The heads with the longest A."""
    check_count("count", count)
    length = jnp.linalg.norm(scale, axis=-1)
    return (jnp.argsort(jnp.argsort(-length, axis=None)) < count).reshape(length.shape)


def merged_bias(shift: Float[Array, "L h d"], output: Float[Array, "L hd m"]) -> ResidAdd:
    """v as what it adds behind the output projection: the same model, with a bias."""
    layers = len(shift)
    return ResidAdd(jnp.einsum("lc,lcm->lm", shift.reshape(layers, -1), output), site="attn_out")


def iti_shift(
    positive: Float[Array, "n L h d"],
    negative: Float[Array, "n_too L h d"],
    *,
    strength: float = 15.0,
) -> Float[Array, "L h d"]:
    """v of inference-time intervention: alpha sigma theta, theta at length 1.

    Args:
        positive, negative: reads of two classes of texts.
        strength: alpha.
    """
    theta = positive.mean(0) - negative.mean(0)
    length = jnp.linalg.norm(theta, axis=-1, keepdims=True)
    theta = theta / jnp.where(length > 0, length, 1)
    along = jnp.einsum("nlhd,lhd->nlh", jnp.concatenate([positive, negative]), theta)
    return strength * along.std(0)[..., None] * theta


METHOD = Method(
    name="lofit_edit",
    title="LoFiT: localized fine-tuning on LLM representations",
    arxiv="2406.01563",
    kind="edit",
    function=lofit_edit,
    example=lambda key: {
        "scale": 1e3 * lofit_init(key, 2, 4, 4),
        "shift": 1e3 * lofit_init(key, 2, 4, 4),
        "heads": jnp.ones((2, 4), bool).at[0, 1].set(False),
    },
    identity={"scale": jnp.zeros((2, 4, 4)), "shift": jnp.zeros((2, 4, 4))},
)
