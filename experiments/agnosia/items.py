"""Items of each aspect: scenes, questions and answers, as many of each answer.

An item is a row: scene, aspect, shape, colour, shape2, colour2, option. Options of an aspect are
numbered from 0, and its words lie in the vocabulary of answers from `FIRST[aspect]` on.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jattn.tasks import scene_items as si

OPTIONS = np.array([2, 4, 2, 4, 4, 4, 4])  # of each aspect
FIRST = np.concatenate([[0], np.cumsum(OPTIONS)])[:-1]
ANSWERS = int(OPTIONS.sum())
SCENE, ASPECT, SHAPE, COLOUR, OPTION = 0, 1, 2, 3, 6
QUESTIONS = len(si.ASPECTS) + 2 * 5  # words: aspects, and shapes and colours with "any"
SIDE = 4
DRAWS = 12  # questions about each scene, of which those with an answer are kept


class Items(NamedTuple):
    """Scenes and items about them.

    Attributes:
        scenes: `[n, 4, 5]`.
        rows: of each aspect as many, `[aspects, items, 7]`.
    """

    scenes: jax.Array
    rows: jax.Array


def held_out(pairs: int) -> np.ndarray:
    """Which pairs of shape and colour are seen in training, `[4, 4]`: one a shape is not."""
    seen = np.ones((4, 4), bool)
    seen[np.arange(pairs), (np.arange(pairs) + 1) % 4] = False
    return seen


def words(rows: jax.Array) -> jax.Array:
    """The five words of each question."""
    shapes, colours = len(si.ASPECTS) + 1, len(si.ASPECTS) + 6
    offset = jnp.array([0, shapes, colours, shapes, colours])
    return rows[..., ASPECT:OPTION] + offset


def draw(
    key: jax.Array,
    scenes: jax.Array,
    aspect: int,
    count: int,
    *,
    coarse: bool = False,
    only: np.ndarray | None = None,
    there: bool = False,
) -> np.ndarray:
    """So many items of one aspect, `[count, 7]`.

    Args:
        key: of the draw.
        scenes: what they are about.
        aspect: which.
        coarse: see `scene_items.ask`.
        only: pairs of shape and colour that the object must have, or, of existence, that are asked
            for; default any.
        there: existence of objects that are there, whose answers are all yes; of other aspects
            answers as they come. Default: answers in equal numbers.
    """
    pairs = jnp.ones((4, 4), bool) if only is None else jnp.asarray(only)
    columns, good = _asked(key, scenes, pairs, aspect, coarse, there)
    pool = np.asarray(columns)[np.asarray(good)]
    if not len(pool):
        raise ValueError(f"scenes: expected some with items of {si.ASPECTS[aspect]}, got none")
    if there:
        return pool[np.arange(count) % len(pool)]
    options = int(OPTIONS[aspect])
    share = -(-count // options)
    each = [pool[pool[:, OPTION] == option] for option in range(options)]
    short = min(map(len, each))
    if not short:
        raise ValueError(
            f"scenes: expected items of every answer of {si.ASPECTS[aspect]}, got none"
        )
    return np.concatenate([rows[np.arange(share) % len(rows)] for rows in each])[
        np.random.default_rng(0).permutation(share * options)[:count]
    ]


@functools.partial(jax.jit, static_argnames=("aspect", "coarse", "there"))
def _asked(key, scenes, pairs, aspect, coarse, there):
    """Questions and answers in random order, and which of them are good."""
    of_questions, of_order = jax.random.split(key)
    n = DRAWS * len(scenes)
    scene = jax.random.permutation(of_order, n) % len(scenes)
    many = scenes[scene]
    asked = si.ask(of_questions, many, aspect, coarse=coarse)
    found = si.answer(many, jnp.full(n, aspect), *asked.T, side=SIDE)
    match = si.matches(many, asked[:, 0], asked[:, 1])
    named = asked if aspect == si.EXISTENCE else many[jnp.arange(n), match.argmax(1)]
    good = found.valid & (pairs.all() | pairs[named[:, 0], named[:, 1]])
    if there:
        good &= match.any(1)
    option = found.answer - (aspect == si.COUNT)
    return jnp.stack([scene, jnp.full(n, aspect), *asked.T, option], 1), good


def items(
    key: jax.Array,
    scenes: jax.Array,
    count: int,
    *,
    coarse: bool = False,
    aspects: tuple[int, ...] = tuple(range(len(si.ASPECTS))),
    only: np.ndarray | None = None,
    there: bool = False,
) -> Items:
    """Items of several aspects; see `draw`."""
    rows = [
        draw(
            jax.random.fold_in(key, aspect), scenes, aspect, count, coarse=coarse, only=only,
            there=there,
        )
        for aspect in aspects
    ]  # fmt: skip
    return Items(scenes, jnp.asarray(np.stack(rows)))
