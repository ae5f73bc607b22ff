"""Scenes of coloured shapes on a grid, and questions about them whose answers are exact.

An object is (shape, colour, size, row, column), -1 throughout where there is none. A question names
an object by shape and colour, either of which may be left open (-1). What is asked of an object
that is not there exactly once, or whose axes tie, has no answer: it is never guessed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_choice, check_count, check_shape

ASPECTS = ("existence", "colour", "size", "count", "position", "relation", "shape")
EXISTENCE, COLOUR, SIZE, COUNT, POSITION, RELATION, SHAPE = range(7)
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")
RELATIONS = ("left", "right", "above", "below")
ABSENT, BINDING, PRESENT = 0, 1, 2


class Answer(NamedTuple):
    """Answers to questions.

    Attributes:
        answer: see `answer`; -1 where there is none, `[n]`.
        valid: whether there is one, `[n]`.
        kind: of questions of existence: 2 present; 1 absent though its shape and its colour are
            both there, on different objects; 0 absent otherwise; -1 of other questions, `[n]`.
    """

    answer: Int[Array, " n"]
    valid: Bool[Array, " n"]
    kind: Int[Array, " n"]


def matches(
    scene: Int[Array, "*n k 5"], shape: Int[Array, "*n"], colour: Int[Array, "*n"]
) -> Bool[Array, "*n k"]:
    """Which objects have the shape and the colour, where they are given.

    Example:
        >>> scene = jnp.array([[0, 1, 0, 0, 0], [2, 1, 0, 1, 1], [-1, -1, -1, -1, -1]])
        >>> matches(scene, jnp.array(-1), jnp.array(1)).tolist()
        [True, True, False]
    """
    agrees = lambda column, wanted: (wanted[..., None] == column) | (wanted[..., None] < 0)
    there = scene[..., 0] >= 0
    return there & agrees(scene[..., 0], shape) & agrees(scene[..., 1], colour)


def answer(
    scene: Int[Array, "n k 5"],
    aspect: Int[Array, " n"],
    shape: Int[Array, " n"],
    colour: Int[Array, " n"],
    shape2: Int[Array, " n"],
    colour2: Int[Array, " n"],
    *,
    side: int = 4,
) -> Answer:
    """Answers one question about each scene.

    Args:
        scene: objects.
        aspect: index in `ASPECTS`. Existence: 1 if anything matches. Count: of what matches.
            Colour, size and shape: of the one match. Position: its quadrant, `2 (row >= side / 2) +
            (column >= side / 2)`. Relation: of the one match to the one match of the second pair:
            0 left, 1 right, 2 above, 3 below, by the axis along which they are further apart.
        shape, colour: what is asked about; -1 = any.
        shape2, colour2: for relations, -1 otherwise.
        side: of the grid.

    Returns:
        An `Answer`: none where a match is needed that is not the only one, both are the same
        object, or they are as far apart along both axes.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> scene = jnp.array([[[0, 1, 0, 0, 0], [2, 3, 1, 0, 2]]])
        >>> one = lambda value: jnp.array([value])
        >>> asked = answer(scene, one(RELATION), one(0), one(-1), one(2), one(-1))
        >>> RELATIONS[int(asked.answer[0])]
        'left'
    """
    sizes: dict[str, int] = {}
    check_shape("scene", scene, "n k 5", sizes)
    for name, array in (("aspect", aspect), ("shape", shape), ("colour", colour)):
        check_shape(name, array, "n", sizes)
    check_count("side", side)
    first, second = matches(scene, shape, colour), matches(scene, shape2, colour2)
    number = first.sum(1)
    one, other = _object(scene, first), _object(scene, second)
    alone = number == 1
    middle = side / 2
    quadrant = 2 * (one[:, 3] >= middle) + (one[:, 4] >= middle)
    down, right = one[:, 3] - other[:, 3], one[:, 4] - other[:, 4]
    across = jnp.where(right < 0, 0, 1)
    relation = jnp.where(jnp.abs(right) > jnp.abs(down), across, jnp.where(down < 0, 2, 3))
    related = alone & (second.sum(1) == 1) & (jnp.abs(right) != jnp.abs(down))
    present = number > 0
    always = jnp.ones_like(present)
    choices = jnp.stack(
        [present.astype(int), one[:, 1], one[:, 2], number, quadrant, relation, one[:, 0]], 1
    )
    valids = jnp.stack([always, alone, alone, always, alone, related, alone], 1)
    pick = lambda table: jnp.take_along_axis(table, aspect[:, None], axis=1)[:, 0]
    valid = pick(valids)
    open_ = jnp.full_like(shape, -1)
    both = matches(scene, shape, open_).any(1) & matches(scene, open_, colour).any(1)
    kind = jnp.where(present, PRESENT, jnp.where(both, BINDING, ABSENT))
    return Answer(
        jnp.where(valid, pick(choices), -1), valid, jnp.where(aspect == EXISTENCE, kind, -1)
    )


def ask(
    key: jax.Array, scene: Int[Array, "n k 5"], aspect: int, *, coarse: bool = False
) -> Int[Array, "n 4"]:
    """Draws one question about each scene: shape, colour, shape2, colour2.

    Colour is asked by shape and shape by colour; size, position and relation by both; a count is of
    all objects; existence is half of the time of an object that is there, else of the shape of one
    and the colour of another.

    Args:
        key: of the draw.
        scene: objects.
        aspect: index in `ASPECTS`.
        coarse: ask for the existence of any shape instead, whatever its colour.

    Example:
        >>> scene = jnp.array([[[0, 1, 0, 0, 0]]])
        >>> ask(jax.random.key(0), scene, COLOUR).tolist()
        [[0, -1, -1, -1]]
    """
    check_choice("aspect", aspect, tuple(range(len(ASPECTS))))
    of_one, of_other, of_kind, of_shape = jax.random.split(key, 4)
    n = scene.shape[0]
    there = jnp.where(scene[..., 0] >= 0, 0.0, -jnp.inf)
    pick = lambda key: jnp.take_along_axis(
        scene, jax.random.categorical(key, there)[:, None, None], axis=1
    )[:, 0]
    one, other = pick(of_one), pick(of_other)
    any_ = jnp.full(n, -1)
    shape, colour = one[:, 0], one[:, 1]
    if aspect == EXISTENCE and coarse:
        other_shape = jax.random.randint(of_shape, (n,), 0, 4)
        half = jax.random.bernoulli(of_kind, shape=(n,))
        return jnp.stack([jnp.where(half, shape, other_shape), any_, any_, any_], 1)
    if aspect == EXISTENCE:
        half = jax.random.bernoulli(of_kind, shape=(n,))
        return jnp.stack([shape, jnp.where(half, colour, other[:, 1]), any_, any_], 1)
    columns = {
        COUNT: [any_, any_, any_, any_],
        COLOUR: [shape, any_, any_, any_],
        SHAPE: [any_, colour, any_, any_],
        RELATION: [shape, colour, other[:, 0], other[:, 1]],
    }
    return jnp.stack(columns.get(aspect, [shape, colour, any_, any_]), 1)


def draw_scenes(
    key: jax.Array,
    n: int,
    *,
    side: int = 4,
    objects: int = 4,
    shapes: int = 4,
    colours: int = 4,
    sizes: int = 2,
    allowed: Bool[Array, "shapes colours"] | None = None,
) -> Int[Array, "n k 5"]:
    """Draws scenes of 1 to `objects` objects in different cells.

    Args:
        key: of the draw.
        n: scenes.
        side: of the grid.
        objects: k, the most there are.
        shapes, colours, sizes: how many of each.
        allowed: which pairs of shape and colour occur; default all.

    Raises:
        ValueError: more objects than cells, or no pair that is allowed.

    Example:
        >>> draw_scenes(jax.random.key(0), 3).shape
        (3, 4, 5)
    """
    for name, value in dict(
        n=n, side=side, objects=objects, shapes=shapes, colours=colours
    ).items():
        check_count(name, value)
    if objects > side * side:
        raise ValueError(f"objects: expected at most side^2={side * side}, got {objects}")
    pairs = jnp.ones((shapes, colours), bool) if allowed is None else jnp.asarray(allowed)
    check_shape("allowed", pairs, f"{shapes} {colours}", {})
    if not isinstance(pairs, Tracer) and not bool(pairs.any()):
        raise ValueError("allowed: expected at least one pair of shape and colour, got none")
    logits = jnp.where(pairs, 0.0, -jnp.inf).ravel()

    def one(key):
        of_number, of_pair, of_size, of_cell = jax.random.split(key, 4)
        number = jax.random.randint(of_number, (), 1, objects + 1)
        pair = jax.random.categorical(of_pair, logits, shape=(objects,))
        size = jax.random.randint(of_size, (objects,), 0, sizes)
        cell = jax.random.permutation(of_cell, side * side)[:objects]
        columns = [pair // colours, pair % colours, size, cell // side, cell % side]
        return jnp.where(jnp.arange(objects)[:, None] < number, jnp.stack(columns, 1), -1)

    return jax.vmap(one)(jax.random.split(key, n))


def render(
    scene: Int[Array, "n k 5"], *, side: int = 4, cell: int = 8, palette: str = "plain"
) -> Float[Array, "n pixels pixels 3"]:
    """Images of scenes: squares, discs, triangles and crosses in red, green, blue and yellow.

    Args:
        scene: objects, of up to four shapes, four colours and two sizes.
        side: of the grid.
        cell: pixels of a cell.
        palette: `"plain"`, or `"grey"` for images without colour.

    Example:
        >>> render(jnp.array([[[0, 0, 1, 0, 0]]]), side=1, cell=4)[0, 2, 2].tolist()
        [1.0, 0.10000000149011612, 0.10000000149011612]
    """
    check_choice("palette", palette, ("plain", "grey"))
    table = jnp.array([[1, 0.1, 0.1], [0.1, 0.8, 0.2], [0.15, 0.3, 1], [1, 0.9, 0.1]])
    table = table if palette == "plain" else jnp.full_like(table, 0.7)
    at = (jnp.arange(cell) + 0.5) / cell * 2 - 1
    y, x = at[:, None], at[None, :]
    sizes = jnp.array([0.5, 0.9])[:, None, None]
    stamps = jnp.stack(
        [
            (jnp.abs(x) <= sizes) & (jnp.abs(y) <= sizes),
            x**2 + y**2 <= sizes**2,
            (jnp.abs(x) <= (y + sizes) / 2) & (jnp.abs(y) <= sizes),
            (jnp.abs(jnp.abs(x) - jnp.abs(y)) <= sizes / 3)
            & (jnp.maximum(jnp.abs(x), jnp.abs(y)) <= sizes),
        ]
    )  # [shape, size, cell, cell]

    def one(objects):
        there = objects[:, 0] >= 0
        safe = jnp.where(there[:, None], objects, 0)
        stamp = stamps[safe[:, 0], safe[:, 2]] & there[:, None, None]
        grid = jnp.zeros((side, side, cell, cell, 3))
        coloured = stamp[..., None] * table[safe[:, 1]][:, None, None]
        grid = grid.at[safe[:, 3], safe[:, 4]].add(coloured)
        return grid.transpose(0, 2, 1, 3, 4).reshape(side * cell, side * cell, 3)

    return jax.vmap(one)(scene)


def _object(scene, matching):
    """The first object that matches, `[n, 5]`."""
    index = matching.argmax(1)
    return jnp.take_along_axis(scene, index[:, None, None], axis=1)[:, 0]
