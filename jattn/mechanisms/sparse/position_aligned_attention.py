"""Position-aligned and keyword-scoped attention, PKA (arXiv 2602.06850): conditions see little.

A picture is drawn under many conditions: maps of the same grid, and subjects. Of a map, a cell of
the picture sees the cells at its own position (within a radius); a subject is seen only by cells
that its keywords in the text attend to; conditions see themselves alone.

    pairs: n |X| (2 radius + 1)^2 in place of n |X|^2

Distinctive: cost grows with the number of conditions, not with its product with the picture.

Limits: a radius as large as the grid, and threshold 0, are joint attention. The paper's formulas
are not public; these are the simplest that do what its abstract says.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.attention import attend, masks
from jattn.checks import check_count, check_shape


def aligned_mask(shape: tuple[int, int], conditions: int, radius: int = 0) -> masks.Mask:
    """Cells of a picture see those cells of each condition that are at most `radius` away.

    Args:
        shape: rows and columns of the grid.
        conditions: maps, one behind the other.
        radius: along either axis.

    Example:
        >>> aligned_mask((1, 3), 1, 1).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """
    check_count("conditions", conditions)
    check_count("radius", radius, 0)
    near = _near(shape, radius)
    return masks.from_function(lambda b, h, i, j: near(i, j))


def _near(shape: tuple[int, int], radius: int):
    cells, columns = math.prod(shape), shape[1]

    def near(i, j):
        place = j % cells
        down = jnp.abs(i // columns - place // columns)
        return (down <= radius) & (jnp.abs(i % columns - place % columns) <= radius)

    return near


def position_aligned_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    condition_key: Float[Array, "b n g d"],
    condition_value: Float[Array, "b n g e"],
    *,
    shape: tuple[int, int],
    radius: int = 0,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """One softmax over text and picture, and the conditions' cells at a query's own place.

    Args:
        query: of the picture's cells, row by row.
        key, value: of text and picture.
        condition_key, condition_value: of the maps, one behind the other; n is a multiple of t.
        shape: of the grid.
        radius: of `aligned_mask`.
        scale: of the scores; default `d**-0.5`.

    Raises:
        ValueError: maps of another grid.

    Reference:
        arXiv 2602.06850.

    Example:
        >>> x = jnp.ones((1, 6, 2, 4))
        >>> position_aligned_attention(x, x, x, x, x, shape=(2, 3)).shape
        (1, 6, 2, 4)
    """
    cells = math.prod(shape)
    check_shape("query", query, "b t h d", {"t": cells})
    count, rest = divmod(condition_key.shape[1], cells)
    if rest or not count:
        raise ValueError(
            f"condition_key: expected maps of {cells} cells, got {condition_key.shape[1]} tokens"
        )
    check_count("radius", radius, 0)
    before, near = key.shape[1], _near(shape, radius)
    both = jnp.concatenate([key, condition_key], axis=1)
    values = jnp.concatenate([value, condition_value], axis=1)
    mask = masks.from_function(lambda b, h, i, j: (j < before) | near(i, j - before))
    return attend(query, both, values, mask=mask, scale=scale)


def keyword_scope(
    text_weights: Float[Array, "b h x w"], keywords: Sequence[int], threshold: float
) -> Bool[Array, "b x"]:
    """Which cells see a subject: those whose weight on its keywords is near the largest.

    Args:
        text_weights: attention of cells to words.
        keywords: words that name the subject.
        threshold: share of the largest weight, in [0, 1].

    Example:
        >>> weights = jnp.array([[[[0.9, 0.1], [0.2, 0.8]]]])
        >>> keyword_scope(weights, [0], 0.5).tolist()
        [[True, False]]
    """
    score = text_weights[..., jnp.asarray(keywords)].sum(-1).mean(1)
    return score >= threshold * score.max(-1, keepdims=True)


def timestep_density(
    with_condition: Float[Array, " n"], without: Float[Array, " n"], mix: float
) -> Float[Array, " n"]:
    """How often each timestep is trained: as its loss feels the condition, mixed with uniform.

    Args:
        with_condition, without: losses by timestep.
        mix: weight of the uniform part, in [0, 1].

    Example:
        >>> timestep_density(jnp.array([1.0, 1.0]), jnp.array([1.0, 2.0]), 0.5).tolist()
        [0.25, 0.75]
    """
    gain = jnp.abs(without - with_condition)
    count, total = gain.shape[0], gain.sum()
    share = jnp.where(total > 0, gain / jnp.where(total > 0, total, 1), 1 / count)
    return (1 - mix) * share + mix / count
