"""A disc in noise, of which a few pixels are labelled (the setting of arXiv 2007.01152)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_number


class Scribbled(NamedTuple):
    """Images.

    Attributes:
        image: noise, and a disc that is brighter.
        mask: where the disc is.
        drawn: which pixels somebody labelled, inside and outside of it.
    """

    image: Float[Array, "*b y x 1"]
    mask: Bool[Array, "*b y x"]
    drawn: Bool[Array, "*b y x"]


def scribbled_disc(
    key: jax.Array,
    *,
    side: int = 32,
    smallest: float = 4.0,
    largest: float = 8.0,
    contrast: float = 1.0,
    noise: float = 1.0,
    labelled: float = 0.03,
) -> Scribbled:
    """Draws an image.

    Args:
        key: a PRNG key.
        side: of the image.
        smallest, largest: radius of the disc, which lies inside the image.
        contrast: how much brighter it is.
        noise: standard deviation of each pixel.
        labelled: probability of each pixel to be labelled.

    Example:
        >>> drawn = scribbled_disc(jax.random.key(0))
        >>> drawn.image.shape, bool(50 <= drawn.mask.sum() <= 202)
        ((32, 32, 1), True)
    """
    check_count("side", side)
    check_number("noise", noise, least=0)
    if not 0 < smallest <= largest <= side / 2:
        raise ValueError(
            f"smallest: expected 0 < smallest <= largest <= {side / 2:g}, got {smallest}, {largest}"
        )
    of_radius, of_centre, of_noise, of_labels = jax.random.split(key, 4)
    radius = jax.random.uniform(of_radius, minval=smallest, maxval=largest)
    centre = radius + (side - 2 * radius) * jax.random.uniform(of_centre, (2,))
    y, x = jnp.mgrid[:side, :side] + 0.5
    mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    image = contrast * mask + noise * jax.random.normal(of_noise, mask.shape)
    return Scribbled(image[..., None], mask, jax.random.bernoulli(of_labels, labelled, mask.shape))
