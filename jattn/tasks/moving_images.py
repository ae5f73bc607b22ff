"""Clips of small images that drift over a dark screen and bounce off its borders.

Each has a constant velocity in between; where two meet, the brighter one is seen. Positions are not
whole pixels: images are interpolated.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_number
from jattn.tasks.pong import draw, fold


def spots(sigmas: Sequence[float], side: int) -> Float[Array, "n side side"]:
    """Gaussian spots of several widths, each in the middle of its image.

    Args:
        sigmas: widths, in pixels.
        side: of the images.

    Example:
        >>> found = spots([1.0, 2.0], 5)
        >>> found.shape, float(found[0].max())
        ((2, 5, 5), 1.0)
    """
    middle = jnp.array(0.5)
    one = lambda sigma: draw(middle, middle, jnp.array(True), side=side, sigma=sigma / side)
    return jnp.stack([one(sigma) for sigma in sigmas])


def placed(
    image: Float[Array, "k k"], row: Float[Array, ""], column: Float[Array, ""], side: int
) -> Float[Array, "side side"]:
    """An image at a place of a dark screen, bilinearly interpolated.

    Args:
        image: `[k, k]`.
        row, column: of its first pixel on the screen.
        side: of the screen.

    Example:
        >>> placed(jnp.ones((1, 1)), jnp.array(1.0), jnp.array(0.5), 3)[1].tolist()
        [0.5, 0.5, 0.0]
    """

    def weights(start):
        distance = jnp.arange(side)[:, None] - start - jnp.arange(image.shape[0])
        return jnp.maximum(0.0, 1 - jnp.abs(distance))

    return weights(row) @ image @ weights(column).T


def moving_images(
    images: Float[Array, "n k k"],
    *,
    side: int = 16,
    frames: int = 16,
    count: int = 2,
    slowest: float = 0.5,
    fastest: float = 1.5,
) -> Callable[[jax.Array], Float[Array, "frames side side"]]:
    """Makes the sampler of one clip.

    Args:
        images: what moves, drawn with replacement, `[n, k, k]`, 0 to 1.
        side: of the screen, above k.
        frames: of a clip.
        count: how many move.
        slowest, fastest: pixels a frame, along each of the two axes.

    Returns:
        `sample(key) -> [frames, side, side]`, to be vmapped over keys.

    Raises:
        ValueError: sizes that do not fit together.

    Reference:
        arXiv 1502.04681, whose digits move so.

    Example:
        >>> clip = moving_images(spots([1.0], 5), side=8, frames=4)(jax.random.key(0))
        >>> clip.shape, bool(clip.max() <= 1)
        ((4, 8, 8), True)
    """
    check_count("frames", frames)
    check_count("count", count)
    check_number("slowest", slowest, least=0)
    check_number("fastest", fastest, least=slowest)
    room = side - images.shape[-1]
    if room < 1:
        raise ValueError(f"side: expected more than the images' {images.shape[-1]}, got {side}")

    def sample(key: jax.Array) -> Float[Array, "frames side side"]:
        of_image, of_place, of_speed, of_sign = jax.random.split(key, 4)
        chosen = images[jax.random.randint(of_image, (count,), 0, len(images))]
        start = jax.random.uniform(of_place, (count, 2))
        speed = jax.random.uniform(of_speed, (count, 2), minval=slowest, maxval=fastest) / room
        speed = speed * jax.random.rademacher(of_sign, (count, 2))
        at = room * fold(start + speed * jnp.arange(frames)[:, None, None])  # [frames, count, 2]
        one = lambda image, place: placed(image, place[0], place[1], side)
        return jax.vmap(lambda places: jax.vmap(one)(chosen, places).max(0))(at)

    return sample
