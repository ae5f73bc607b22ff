"""Secondary sinks: tokens behind the first that draw attention in some middle layers (2512.22213).

A token's alpha[l, k] is the head mean of the weight it gets from rows that see it. A sink is born
in the first layer where alpha is above a threshold, and lives as many layers in a row. Their
residual streams point where that of token 0 points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.lens.methods.method import Method, example_maps
from jattn.lens.sinks import importance


class Sinks(NamedTuple):
    """What is known of each token as a sink.

    Attributes:
        birth: first layer, -1 if it never is one.
        lifetime: layers in a row from there.
        alpha: the largest of those, 0 if it never is one.
        norm: of the residual stream where alpha is largest.
        cosine: of that with token 0's of the same layer.
    """

    birth: Int[Array, " t"]
    lifetime: Int[Array, " t"]
    alpha: Float[Array, " t"]
    norm: Float[Array, " t"]
    cosine: Float[Array, " t"]


def find_sinks(
    probs: Float[Array, "L h t t"], resid: Float[Array, "L t m"], *, threshold: float = 0.15
) -> Sinks:
    """Sinks of one text.

    Args:
        probs: maps.
        resid: the residual stream that each layer's attention reads, or leaves.
        threshold: of alpha, the mean over heads.
    """
    alpha = importance(probs).mean(1)
    above = alpha > threshold
    born = above.any(0)
    birth = jnp.where(born, above.argmax(0), -1)
    layer = jnp.arange(len(alpha))[:, None]
    since = layer >= birth
    alive = above | ~since
    living = since & jnp.cumprod(alive, axis=0).astype(bool) & born
    held = jnp.where(living, alpha, 0)
    at, token = held.argmax(0), jnp.arange(alpha.shape[1])
    norms = jnp.linalg.norm(resid, axis=-1)
    cosine = jnp.einsum("ltm,lm->lt", resid, resid[:, 0]) / (norms * norms[:, :1])
    return Sinks(birth, living.sum(0), held.max(0), norms[at, token], cosine[at, token])


def _example(key):
    maps, stream = jax.random.split(key)
    return dict(probs=example_maps(maps, 3, 2, 8, 8), resid=jax.random.normal(stream, (3, 8, 16)))


METHOD = Method(
    name="find_sinks",
    title="Secondary attention sinks",
    arxiv="2512.22213",
    kind="readout",
    function=find_sinks,
    example=_example,
)
