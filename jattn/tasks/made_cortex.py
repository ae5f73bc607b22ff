"""A made cortex: areas whose voxels read one token of an image, by place, by content, or by both.

An image is a grid of tokens, each c numbers of which half as many are free, turned by a fixed
rotation: what is added to tokens, such as waves that tell places, can be told from them. One token
somewhere is a face, and one in each half of the columns is a hand. Voxels of area

    place     read the token at one place, whatever is there,
    content   read the face, wherever it is,
    both      read the hand in the left half,

linearly, with noise; what tells a face or a hand apart is not read. After arXiv 2505.17329, where
early visual areas read places and higher ones objects.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number

AREAS = ("place", "content", "both")
MARKS = 2  # the first free numbers of a token: is it a face, is it a hand
MARKED = 3.0


class SeenImages(NamedTuple):
    """Images, and what voxels answer.

    Attributes:
        tokens: features, row by row.
        responses: of the voxels of each area, of variance one without their noise.
        sources: the token that each area reads.
    """

    tokens: Float[Array, "*b n c"]
    responses: Float[Array, "*b a v"]
    sources: Int[Array, "*b a"]


class Cortex(NamedTuple):
    """What is fixed.

    Attributes:
        rotation: from f free numbers to a token's c, its columns orthogonal and of length one.
        weights: what voxels read of the free numbers, of length one.
    """

    rotation: Float[Array, "c f"]
    weights: Float[Array, "a f v"]


def made_cortex(key: jax.Array, *, dim: int = 32, voxels: int = 12) -> Cortex:
    """Draws a cortex.

    Args:
        key: a PRNG key.
        dim: c, six or more.
        voxels: v, of each area.

    Example:
        >>> cortex = made_cortex(jax.random.key(0), dim=12, voxels=5)
        >>> cortex.rotation.shape, cortex.weights.shape
        ((12, 6), (3, 6, 5))
    """
    check_count("dim", dim, 2 * (MARKS + 1))
    check_count("voxels", voxels)
    of_rotation, of_weights = jax.random.split(key)
    rotation = jnp.linalg.qr(jax.random.normal(of_rotation, (dim, dim // 2)))[0]
    weights = jax.random.normal(of_weights, (len(AREAS), dim // 2, voxels)).at[:, :MARKS].set(0)
    return Cortex(rotation, weights / jnp.linalg.norm(weights, axis=1, keepdims=True))


def seen_image(
    key: jax.Array,
    cortex: Cortex,
    *,
    rows: int = 7,
    columns: int = 7,
    place: tuple[int, int] = (2, 2),
    noise: float = 0.1,
) -> SeenImages:
    """Draws an image, and what voxels answer to it.

    Args:
        key: a PRNG key.
        cortex: of `made_cortex`.
        rows, columns: of the grid, at least two columns and four tokens in each half.
        place: row and column that the first area reads.
        noise: standard deviation of responses.

    Example:
        >>> cortex = made_cortex(jax.random.key(0))
        >>> seen = seen_image(jax.random.key(1), cortex, noise=0.0)
        >>> free = seen.tokens @ cortex.rotation
        >>> read = jnp.einsum("af,afv->av", free[seen.sources], cortex.weights)
        >>> bool(jnp.allclose(read, seen.responses, atol=1e-5)), int(seen.sources[0])
        (True, 16)
    """
    check_count("rows", rows, 2)
    check_count("columns", columns, 4)
    check_number("noise", noise)
    if not (0 <= place[0] < rows and 0 <= place[1] < columns):
        raise ValueError(f"place: expected one in a grid of {rows} x {columns}, got {place}")
    of_features, of_marks, of_face, of_left, of_right, of_noise = jax.random.split(key, 6)
    free = jax.random.normal(of_features, (rows * columns, cortex.rotation.shape[1]))
    half = columns // 2
    left, right = (
        jax.random.randint(k, (), 0, rows) * columns + jax.random.randint(k, (), start, stop)
        for k, start, stop in ((of_left, 0, half), (of_right, half, columns))
    )
    # The face is none of the hands: the tokens that are none of them, in their order.
    first, second = jnp.minimum(left, right), jnp.maximum(left, right)
    face = jax.random.randint(of_face, (), 0, rows * columns - 2)
    face = face + (face >= first)
    face = face + (face >= second)
    marks = 0.5 * jax.random.normal(of_marks, (rows * columns, MARKS))
    marks = marks.at[face, 0].add(MARKED).at[jnp.stack([left, right]), 1].add(MARKED)
    free = free.at[:, :MARKS].set(marks)
    sources = jnp.stack([jnp.array(place[0] * columns + place[1]), face, left])
    read = jnp.einsum("af,afv->av", free[sources], cortex.weights)
    return SeenImages(
        free @ cortex.rotation.T, read + noise * jax.random.normal(of_noise, read.shape), sources
    )
