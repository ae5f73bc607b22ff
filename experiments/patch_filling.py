"""Encoders of patches that are trained here, by filling in the patches that are hidden."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jattn.nn import VisionTransformer, VisionTransformerConfig
from jattn.nn.patches import patches, unpatched

HIDDEN = -2.0  # what a hidden pixel is; others are -1 to 1


class Filler(nnx.Module):
    """An encoder of patches, and a linear map to their pixels."""

    def __init__(self, config: VisionTransformerConfig, *, rngs: nnx.Rngs):
        self.encoder = VisionTransformer(config, rngs=rngs)
        pixels = config.patch**2 * config.channels
        self.fill = nnx.Linear(config.dim, pixels, rngs=rngs)

    def __call__(self, shown: jax.Array) -> jax.Array:
        """Pixels of all patches, `[b, t, pixels]`."""
        return self.fill(self.encoder.tokens(shown))


def hidden_patches(key: jax.Array, *, total: int, hidden: int) -> Bool[Array, " t"]:
    """Draws which patches are hidden.

    Example:
        >>> int(hidden_patches(jax.random.key(0), total=16, hidden=5).sum())
        5
    """
    return jax.random.permutation(key, total) < hidden


def covered(
    images: Float[Array, "b height width c"], hidden: Bool[Array, "b t"], patch: int
) -> Float[Array, "b height width c"]:
    """Images with their hidden patches painted over.

    Example:
        >>> covered(jnp.zeros((1, 2, 4, 1)), jnp.array([[False, True]]), 2)[0, 0, :, 0].tolist()
        [0.0, 0.0, -2.0, -2.0]
    """
    pieces = jnp.where(hidden[..., None], HIDDEN, patches(images, patch))
    return unpatched(pieces, (images.shape[1] // patch, images.shape[2] // patch), patch)


def filling_error(
    filled: Float[Array, "b t p"],
    images: Float[Array, "b height width c"],
    hidden: Bool[Array, "b t"],
    patch: int,
) -> Float[Array, ""]:
    """Mean squared error of the pixels of hidden patches."""
    errors = ((filled - patches(images, patch)) ** 2).mean(-1)
    return (errors * hidden).sum() / hidden.sum()


def filling_loss(module: Any, batch: tuple[jax.Array, jax.Array], patch: int) -> jax.Array:
    """The error of a `Filler`, which is minimised; a batch is images and the patches to hide."""
    images, hidden = batch
    return filling_error(module(covered(images, hidden, patch)), images, hidden, patch)
