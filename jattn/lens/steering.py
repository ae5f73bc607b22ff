"""Directions in the residual stream: found as differences of means, added, or taken out.

Reference: activation addition, arXiv 2308.10248; ablation of directions, arXiv 2406.11717.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.lens.edits import At
from jattn.lens.run import Model, run
from jattn.nn import Llama


def last_token(model: Model, texts: Sequence[Any], *, site: str = "resid_post") -> Array:
    """A site at the last token of each text, `[n, L, ...]`; texts may differ in length."""
    if not isinstance(model, Llama):
        of = lambda text: run(model, jnp.asarray(text)[None], record=(site,))[1][site]
        return jnp.stack([of(text)[:, 0, -1] for text in texts])
    # Side by side, padded behind: a decoder does not see that, and it is one program.
    last = np.array([len(text) - 1 for text in texts])
    tokens = np.zeros((len(texts), last.max() + 1), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    found = run(model, jnp.asarray(tokens), record=(site,), at=jnp.asarray(last))[1][site]
    return jnp.moveaxis(found[:, np.arange(len(texts)), last], 1, 0)


def steering_vectors(
    model: Model, positive: Sequence[Any], negative: Sequence[Any], *, site: str = "resid_post"
) -> Float[Array, "L ..."]:
    """Mean of a site at the last token of some texts, less that of others; for `ResidAdd`.

    Args:
        model: any.
        positive, negative: token ids of texts.
        site: where.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from jattn.nn import Llama, LlamaConfig
        >>> config = LlamaConfig(vocab_size=50, dim=16, layers=2, heads=4, kv_heads=2, hidden=32)
        >>> model = Llama(config, rngs=nnx.Rngs(0))
        >>> steering_vectors(model, [[1, 2]], [[3, 4, 5]]).shape
        (2, 16)
    """
    return last_token(model, positive, site=site).mean(0) - last_token(
        model, negative, site=site
    ).mean(0)


def project_out(
    x: Float[Array, "*batch m"], direction: Float[Array, " m"]
) -> Float[Array, "*batch m"]:
    """`x - (x . u) u` with u the direction at length 1: what is left has nothing of it.

    Example:
        >>> project_out(jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])).tolist()
        [3.0, 0.0]
    """
    unit = direction / jnp.linalg.norm(direction)
    return x - (x @ unit)[..., None] * unit


def ablate_direction(direction: Float[Array, "L m"], *, site: str = "resid_post") -> At:
    """The edit that takes a direction out of the stream behind each layer."""
    return At(site, _without, direction)


def _without(value, direction, seen):
    return project_out(value, direction)
