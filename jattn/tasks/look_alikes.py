"""Images of three shapes, two of them of one colour, and which patch shows which.

What `tasks.scenes` draws, painted again in two colours. By its colour a patch tells what it shows,
not which of two.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count
from jattn.tasks.scenes import GROUND, OBJECTS, RGB, SIDE, sample_scene

NOTHING = -1  # a patch that shows no object, or hardly one


class LookAlikes(NamedTuple):
    """Images in [-1, 1], and for every patch the object that it shows, and its colour, or -1."""

    image: Float[Array, "*b 24 24 3"]
    objects: Int[Array, "*b n"]
    colors: Int[Array, "*b n"]


def look_alikes(key: jax.Array, *, patch: int = 3, least: float = 0.3) -> LookAlikes:
    """Draws an image.

    Args:
        key: a PRNG key.
        patch: side of a patch, a divisor of 24.
        least: what share of its patch an object must cover to be what the patch shows.

    Example:
        >>> drawn = look_alikes(jax.random.key(0))
        >>> drawn.image.shape, drawn.objects.shape, int(drawn.objects.max())
        ((24, 24, 3), (64,), 2)
    """
    check_count("patch", patch)
    if SIDE % patch:
        raise ValueError(f"patch: expected a divisor of {SIDE}, got {patch}")
    of_scene, of_colors, of_twin = jax.random.split(key, 3)
    masks = sample_scene(of_scene, OBJECTS, OBJECTS).masks
    pair = jax.random.permutation(of_colors, len(RGB))[:2]
    other = jax.random.randint(of_twin, (), 0, OBJECTS)  # the one that is not of the pair
    colors = jnp.where(jnp.arange(OBJECTS) == other, pair[1], pair[0])
    image = jnp.full((SIDE, SIDE, 3), GROUND)
    for number in range(OBJECTS):
        image = jnp.where(masks[number][..., None], jnp.asarray(RGB)[colors[number]], image)
    grid = masks.reshape(OBJECTS, SIDE // patch, patch, SIDE // patch, patch)
    shares = grid.mean((2, 4)).reshape(OBJECTS, -1)  # of each patch
    objects = jnp.where(shares.max(0) >= least, shares.argmax(0), NOTHING)
    return LookAlikes(image, objects, jnp.where(objects >= 0, colors[objects], NOTHING))
