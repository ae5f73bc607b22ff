"""Images in which what a square is called depends on a cue at the other side.

Squares lie in the right half, on noise. A bright or a dark cue lies at the left edge, and decides
which of two classes all squares of its image have: a pixel's class cannot be told near it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number

CUE, SQUARE = 4, 5  # sides, in pixels
CLASSES = 3  # ground, and squares of either kind


def far_cue(
    key: jax.Array, *, side: int = 32, squares: int = 2, noise: float = 0.3
) -> tuple[Float[Array, "y x 1"], Int[Array, "y x"]]:
    """Draws an image and the class of every pixel, 0 where there is no square.

    Args:
        key: a PRNG key.
        side: of the image, 16 or more.
        squares: how many are drawn; they may overlap.
        noise: standard deviation of each pixel.

    Example:
        >>> image, classes = far_cue(jax.random.key(0))
        >>> image.shape, int(classes[:, :16].sum()), sorted(set(classes.ravel().tolist()))
        ((32, 32, 1), 0, [0, 1])
    """
    check_count("side", side, 16)
    check_count("squares", squares)
    check_number("noise", noise, least=0)
    of_cue, of_row, of_places, of_noise = jax.random.split(key, 4)
    cue = jax.random.bernoulli(of_cue)
    row = jax.random.randint(of_row, (), 0, side - CUE + 1)
    places = jax.random.randint(
        of_places, (squares, 2), jnp.array([0, side // 2]), side - SQUARE + 1
    )

    def box(corner, size):
        inside = [(jnp.arange(side) >= c) & (jnp.arange(side) < c + size) for c in corner]
        return inside[0][:, None] & inside[1][None, :]

    there = jax.vmap(lambda corner: box((corner[0], corner[1]), SQUARE))(places).any(0)
    image = there + jnp.where(box((row, 0), CUE), 2.0 * cue - 1, 0)
    image = image + noise * jax.random.normal(of_noise, image.shape)
    return image[..., None], jnp.where(there, 1 + cue, 0).astype(jnp.int32)
