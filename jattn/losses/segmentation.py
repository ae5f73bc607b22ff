"""Losses of segmentation from scribbles and from unpaired masks (arXiv 2007.01152)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_shape


def scribble_cross_entropy(
    probabilities: Float[Array, "b *space k"],
    scribbles: Bool[Array, "b *space k"],
    *,
    weights: Float[Array, " k"] | None = None,
) -> Float[Array, ""]:
    """Cross entropy at labelled places, weighted by class; the others get no gradient.

    Args:
        probabilities: of each class.
        scribbles: one-hot, False throughout where nobody has drawn.
        weights: of each class; default all are 1.

    Returns:
        Sum over labelled places, divided by how many there are; 0 of none.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2007.01152.

    Example:
        >>> p = jnp.array([[[0.5, 0.5], [0.9, 0.1]]])
        >>> drawn = jnp.array([[[True, False], [False, False]]])
        >>> round(float(scribble_cross_entropy(p, drawn)), 4)
        0.6931
    """
    axes = " ".join(f"axis{i}" for i in range(probabilities.ndim))
    sizes: dict[str, int] = {}
    check_shape("probabilities", probabilities, axes, sizes)
    check_shape("scribbles", scribbles, axes, sizes)
    logs = jnp.log(jnp.where(scribbles, jnp.maximum(probabilities, 1e-12), 1))
    logs = logs if weights is None else logs * weights
    return -logs.sum() / jnp.maximum(scribbles.sum(), 1)


def class_weights(scribbles: Bool[Array, "b *space k"]) -> Float[Array, " k"]:
    """Inverse shares of the classes among labelled places, of mean 1 over classes that occur.

    Example:
        >>> class_weights(jnp.array([[[True, False], [True, False], [False, True]]])).tolist()
        [0.6666666865348816, 1.3333333730697632]
    """
    count = scribbles.sum(tuple(range(scribbles.ndim - 1))).astype(jnp.float32)
    inverse = jnp.where(count > 0, 1 / jnp.maximum(count, 1), 0)
    occurring = jnp.maximum((count > 0).sum(), 1)
    return inverse * occurring / jnp.maximum(inverse.sum(), 1e-12)


class LeastSquares(NamedTuple):
    """Losses of a discriminator whose targets are +1 and -1, and of what it judges.

    Attributes:
        discriminator: `E (D(real) - 1)^2 / 2 + E (D(fake) + 1)^2 / 2`.
        generator: `E (D(fake) - 1)^2 / 2`.
    """

    discriminator: Float[Array, ""]
    generator: Float[Array, ""]


def least_squares_gan(real: Float[Array, "..."], fake: Float[Array, "..."]) -> LeastSquares:
    """Both losses of a least-squares adversarial game.

    Args:
        real, fake: what the discriminator says of real masks and of predicted ones.

    Reference:
        arXiv 2007.01152; the game, arXiv 1611.04076.

    Example:
        >>> [loss.item() for loss in least_squares_gan(jnp.ones(3), -jnp.ones(3))]
        [0.0, 2.0]
    """
    half = lambda x, target: ((x - target) ** 2).mean() / 2
    return LeastSquares(half(real, 1.0) + half(fake, -1.0), half(fake, 1.0))


def dice(
    probabilities: Float[Array, " b *space"], mask: Float[Array, " b *space"], *, eps: float = 1e-6
) -> Float[Array, " b"]:
    """`2 sum p m / (sum p + sum m)` of each image; 1 where both are empty.

    Example:
        >>> round(float(dice(jnp.ones((1, 4)), jnp.array([[1.0, 1.0, 0.0, 0.0]]))[0]), 3)
        0.667
    """
    space = tuple(range(1, probabilities.ndim))
    both = (probabilities * mask).sum(space)
    return (2 * both + eps) / (probabilities.sum(space) + mask.sum(space) + eps)
