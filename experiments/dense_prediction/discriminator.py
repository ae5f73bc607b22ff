"""A judge of masks at several scales at once (arXiv 2007.01152): are they real or predicted."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jattn.mechanisms.layers.convolutions import convolution

SQUEEZED = 13  # channels to which features are brought before a smaller mask joins them


def spectral(weight: Float[Array, "y x i o"]) -> Float[Array, "y x i o"]:
    """A kernel divided by its largest singular value, as a matrix with a column an output."""
    return weight / jnp.linalg.norm(weight.reshape(-1, weight.shape[-1]), ord=2)


def convolved(x: Array, weight: Array, stride: int) -> Array:
    """A convolution, zeros around, of which every so many places are kept."""
    return convolution(x, weight)[:, ::stride, ::stride]


class Discriminator(nnx.Module):
    """Convolutions of stride 2, joined by a smaller mask after each, and one number at the end.

    Args:
        levels: number of masks, each of half the sides of the one before.
        side: of the largest.
        width: channels after the first convolution; they double at each.
        rngs: where the initial parameters come from.
    """

    def __init__(self, levels: int, side: int, width: int = 8, *, rngs: nnx.Rngs):
        draw = lambda *shape: nnx.Param(
            jax.random.normal(rngs.params(), shape) * (2 / (shape[0] * shape[1] * shape[2])) ** 0.5
        )
        self.first = draw(4, 4, 1, width)
        widths = [width * 2**level for level in range(levels)]
        self.squeezes = nnx.List([draw(1, 1, w, SQUEEZED) for w in widths[:-1]])
        self.rest = nnx.List([draw(4, 4, SQUEEZED + 1, w) for w in widths[1:]])
        self.last = nnx.Linear((side // 2**levels) ** 2 * widths[-1], 1, rngs=rngs)

    def __call__(self, masks: Sequence[Float[Array, "b y x 1"]]) -> Float[Array, " b"]:
        """About +1 for real masks, -1 for predicted ones; the largest first."""
        x = jax.nn.leaky_relu(convolved(masks[0], self.first[...], 2), 0.2)
        for mask, squeeze, weight in zip(masks[1:], self.squeezes, self.rest, strict=True):
            squeezed = jax.nn.sigmoid(convolved(x, squeeze[...], 1))
            joined = jnp.concatenate([squeezed, mask], axis=-1)
            x = jnp.tanh(convolved(joined, spectral(weight[...]), 2))
        return self.last(x.reshape(len(x), -1))[:, 0]


def at_scales(mask: Float[Array, "b y x 1"], levels: int) -> list[Array]:
    """A mask at half the sides again and again, the largest first."""
    b, side = len(mask), mask.shape[1]
    return [
        jax.image.resize(mask, (b, side // 2**i, side // 2**i, 1), "linear") for i in range(levels)
    ]
