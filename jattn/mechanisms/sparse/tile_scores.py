"""What tiles of attention are worth, and policies that choose some: what selectors are made of."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count


def block_means(x: Float[Array, "b t h d"], block: int) -> Float[Array, "b n h d"]:
    """Means of blocks of tokens; what is missing of the last block counts as zeros.

    Example:
        >>> block_means(jnp.arange(4.0).reshape(1, 4, 1, 1), 2).ravel().tolist()
        [0.5, 2.5]
    """
    check_count("block", block)
    padded = jnp.pad(x, [(0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0)])
    return padded.reshape(len(x), -1, block, *x.shape[2:]).mean(2)


def tile_mean_probabilities(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    block: int,
    *,
    scale: float | None = None,
) -> Float[Array, "b h n m"]:
    """Mean softmax weight of each tile of block x block pairs, a row of tiles at a time: O(t + s).

    What a ragged tile lacks counts as zeros.

    Args:
        query, key: of as many heads.
        block: tokens along a side of a tile.
        scale: of the scores; default `d**-0.5`.

    Example:
        >>> x = jnp.ones((1, 4, 1, 2))
        >>> tile_mean_probabilities(x, x, 2).tolist()
        [[[[0.25, 0.25], [0.25, 0.25]]]]
    """
    check_count("block", block)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    t, missing = query.shape[1], -key.shape[1] % block
    wide = jnp.promote_types(query.dtype, jnp.float32)
    padded = jnp.pad(query, [(0, 0), (0, -t % block), (0, 0), (0, 0)]).astype(wide)
    rows = jnp.moveaxis(padded.reshape(len(query), -1, block, *query.shape[2:]), 1, 0)
    real = (jnp.arange(padded.shape[1]) < t).reshape(-1, block)

    def one_row(row):
        queries, real = row
        scores = factor * jnp.einsum("bqhd,bshd->bhqs", queries, key.astype(wide))
        weights = jnp.where(real[:, None], jax.nn.softmax(scores, axis=-1), 0)
        weights = jnp.pad(weights, [(0, 0), (0, 0), (0, 0), (0, missing)])
        return weights.reshape(*weights.shape[:3], -1, block).sum((2, 4)) / block**2

    return jnp.moveaxis(lax.map(one_row, (rows, real)), 0, 2)


def top_count(scores: Float[Array, "*rows n"], count: int) -> Bool[Array, "*rows n"]:
    """The `count` highest of each row; of equal ones the first.

    Example:
        >>> top_count(jnp.array([3.0, 1.0, 3.0, 2.0]), 2).tolist()
        [True, False, True, False]
    """
    check_count("count", count)
    count = min(count, scores.shape[-1])
    chosen = lax.top_k(scores, count)[1]
    return jax.nn.one_hot(chosen, scores.shape[-1], dtype=jnp.bool_).any(-2)


def top_mass(
    probabilities: Float[Array, "*rows n"], mass: float, least: int = 1
) -> Bool[Array, "*rows n"]:
    """The highest of each row, until one more than those whose sum is within `mass`.

    Args:
        probabilities: rows that sum to one.
        mass: in [0, 1].
        least: how many are taken at least.

    Example:
        >>> top_mass(jnp.array([0.5, 0.1, 0.4]), 0.6).tolist()
        [True, False, True]
    """
    check_count("least", least)
    order = jnp.argsort(-probabilities, axis=-1, stable=True)
    ranked = jnp.take_along_axis(probabilities, order, axis=-1)
    count = (jnp.cumsum(ranked, axis=-1) <= mass).sum(-1, keepdims=True) + 1
    count = jnp.maximum(count, least)
    return jnp.argsort(order, axis=-1) < count


def ratio_of(count: int, share: float) -> int:
    """How many of `count` blocks a share is: one more than fit, at least one, at most all.

    Example:
        >>> ratio_of(8, 0.3), ratio_of(8, 1.0)
        (3, 8)
    """
    return min(count, max(1, math.floor(count * share) + 1))
