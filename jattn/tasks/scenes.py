"""Coloured shapes on a plain ground, their captions, and an exact reading of what is in an image.

A scene has one to three objects of different colours, apart from each other. Its caption names them
in some order, colour and shape: `START red circle blue square PAD PAD`. Whether an image shows what
its caption says can be told exactly, for the shapes are known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

SIDE, OBJECTS = 24, 3
COLORS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "cross")
RGB = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1]], np.float32)
GROUND = -1.0  # black
RADIUS = 3  # an object is 7 x 7 pixels
PAD, START = 0, 1
FIRST_COLOR = 2
FIRST_SHAPE = FIRST_COLOR + len(COLORS)
VOCABULARY = FIRST_SHAPE + len(SHAPES)
CAPTION = 1 + 2 * OBJECTS
WORDS = ("", "", *COLORS, *SHAPES)


def _templates() -> np.ndarray:
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    circle = y**2 + x**2 <= (RADIUS + 0.2) ** 2
    square = (abs(y) <= RADIUS) & (abs(x) <= RADIUS)
    cross = (abs(y) <= 1) | (abs(x) <= 1)
    return np.stack([circle, square, cross]).astype(np.float32)


TEMPLATES = _templates()


class Scene(NamedTuple):
    """Scenes.

    Attributes:
        image: in [-1, 1], `[*n, 24, 24, 3]`.
        caption: `[*n, 7]`.
        objects: colour and shape of each, -1 where there is none, `[*n, 3, 2]`.
        masks: where each is, `[*n, 3, 24, 24]`.
    """

    image: Float[Array, "*n 24 24 3"]
    caption: Int[Array, "*n 7"]
    objects: Int[Array, "*n 3 2"]
    masks: Bool[Array, "*n 3 24 24"]


def sample_scene(key: jax.Array, fewest: int = 1, most: int = OBJECTS) -> Scene:
    """Draws one scene.

    Args:
        key: draws it.
        fewest, most: objects.

    Example:
        >>> scene = sample_scene(jax.random.key(0))
        >>> scene.image.shape, describe(np.asarray(scene.caption))
        ((24, 24, 3), 'red circle, yellow square')
    """
    of_count, of_color, of_shape, of_place = jax.random.split(key, 4)
    count = jax.random.randint(of_count, (), fewest, most + 1)
    color = jax.random.permutation(of_color, len(COLORS))[:OBJECTS]
    shape = jax.random.randint(of_shape, (OBJECTS,), 0, len(SHAPES))
    centers = _apart(of_place)
    there = jnp.arange(OBJECTS) < count
    masks = jax.vmap(_drawn)(shape, centers) & there[:, None, None]
    image = jnp.full((SIDE, SIDE, 3), GROUND)
    for number in range(OBJECTS):
        image = jnp.where(masks[number][..., None], jnp.asarray(RGB)[color[number]], image)
    objects = jnp.where(there[:, None], jnp.stack([color, shape], 1), -1)
    return Scene(image, caption_of(objects), objects, masks)


def caption_of(objects: Int[Array, "3 2"]) -> Int[Array, " 7"]:
    """The words of objects.

    Example:
        >>> caption_of(jnp.array([[0, 1], [2, 0], [-1, -1]])).tolist()
        [1, 2, 7, 4, 6, 0, 0]
    """
    words = objects + jnp.array([FIRST_COLOR, FIRST_SHAPE])
    words = jnp.where(objects >= 0, words, PAD).reshape(-1)
    return jnp.concatenate([jnp.array([START]), words]).astype(jnp.int32)


def empty_caption() -> Int[Array, " 7"]:
    """The caption that says nothing: what guidance leads away from."""
    return jnp.full(CAPTION, PAD, jnp.int32).at[0].set(START)


def describe(caption: Int[np.ndarray, " 7"]) -> str:
    """A caption for people.

    Example:
        >>> describe(np.array([1, 2, 7, 4, 6, 0, 0]))
        'red square, blue circle'
    """
    words = [WORDS[word] for word in np.asarray(caption)[1:] if word != PAD]
    return ", ".join(" ".join(pair) for pair in zip(words[::2], words[1::2], strict=True))


def _apart(key: jax.Array) -> Int[Array, "3 2"]:
    """Centres in three of four quarters, moved about in them: no two objects touch."""
    of_quarter, of_shift = jax.random.split(key)
    quarter = jax.random.permutation(of_quarter, 4)[:OBJECTS]
    half = SIDE // 2
    low, high = RADIUS, half - RADIUS - 1
    shift = jax.random.randint(of_shift, (OBJECTS, 2), low, high + 1)
    return half * jnp.stack([quarter // 2, quarter % 2], 1) + shift


def _drawn(shape: Int[Array, ""], center: Int[Array, " 2"]) -> Bool[Array, "24 24"]:
    canvas = jnp.zeros((SIDE, SIDE))
    return lax.dynamic_update_slice(canvas, jnp.asarray(TEMPLATES)[shape], center - RADIUS) > 0.5


def recognized(images: Float[Array, "n 24 24 3"], least: float = 0.6) -> Bool[Array, "n 4 3"]:
    """Which colours and shapes an image shows.

    The pixels next to a colour are compared with each shape at each place, by intersection over
    union inside the shape's square; the best shape of a colour is there if that is high enough.

    Args:
        images: in [-1, 1].
        least: intersection over union from which on a shape is there.

    Example:
        >>> scene = sample_scene(jax.random.key(0))
        >>> found = recognized(scene.image[None])[0]
        >>> [(COLORS[c], SHAPES[s]) for c, s in np.argwhere(np.asarray(found))]
        [('red', 'circle'), ('yellow', 'square')]
    """
    known = jnp.concatenate([jnp.asarray(RGB), jnp.full((1, 3), GROUND)])
    away = ((images[..., None, :] - known) ** 2).sum(-1)
    near = (away.argmin(-1)[..., None] == jnp.arange(len(COLORS))).astype(jnp.float32)
    pixels = jnp.moveaxis(near, -1, 1).reshape(-1, 1, SIDE, SIDE)
    convolve = lambda kernels: lax.conv(pixels, jnp.asarray(kernels)[:, None], (1, 1), "VALID")
    shared, around = convolve(TEMPLATES), convolve(np.ones_like(TEMPLATES[:1]))
    area = jnp.asarray(TEMPLATES.sum((1, 2)))[:, None, None]
    ratio = (shared / (area + around - shared)).max((-2, -1)).reshape(len(images), len(COLORS), -1)
    best = ratio.argmax(-1)[..., None] == jnp.arange(len(SHAPES))
    return best & (ratio >= least)


class Verdict(NamedTuple):
    """How an image stands to its caption.

    Attributes:
        right: everything named is there, and nothing else.
        missing: share of the named objects that are not there.
        swapped: share of the named objects whose colour is there with another's shape.
    """

    right: Bool[Array, " n"]
    missing: Float[Array, " n"]
    swapped: Float[Array, " n"]


def judged(images: Float[Array, "n 24 24 3"], objects: Int[Array, "n 3 2"]) -> Verdict:
    """Compares images with what their captions name.

    Example:
        >>> scene = jax.tree.map(lambda x: x[None], sample_scene(jax.random.key(0)))
        >>> judged(scene.image, scene.objects).right.tolist()
        [True]
    """
    found = recognized(images)
    named = (objects >= 0).all(-1)
    pairs = (
        jax.nn.one_hot(objects[..., 0], len(COLORS))[..., :, None]
        * (jax.nn.one_hot(objects[..., 1], len(SHAPES))[..., None, :])
    )
    wanted = (pairs * named[..., None, None]).sum(1) > 0
    color, shape = jnp.maximum(objects[..., 0], 0), jnp.maximum(objects[..., 1], 0)
    row = jnp.arange(len(images))[:, None]
    there = found[row, color, shape]
    as_other = found.any(-1)[row, color] & ~there
    count = jnp.maximum(named.sum(1), 1)
    return Verdict(
        (found == wanted).all((1, 2)),
        (named & ~there).sum(1) / count,
        (named & as_other).sum(1) / count,
    )
