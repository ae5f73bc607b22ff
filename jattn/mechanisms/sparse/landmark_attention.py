"""Landmark attention (Mohtashami and Jaggi 2023, arXiv 2305.16300): a token stands for a block.

A landmark closes every block of ordinary tokens. A query weighs the tokens of its own block and the
landmarks of earlier ones in one softmax, and what a landmark gets is shared out in its block:

    a_tj = softmax over own tokens and landmarks (z)_j                        own block
    a_tj = softmax over own tokens and landmarks (z)_lm(m) softmax_m(z)_j     earlier block m

so a landmark's key learns to say what is in its block, and at inference blocks can be fetched by
their landmarks alone. The same as one softmax over ordinary tokens of the scores

    z_tj + [z_t,lm(m) - log sum_{i in m} exp z_ti]     (the bracket: in earlier blocks only)

which is what runs here. Landmarks have no value, and their own block's is not looked at.

Limits: without landmarks it is causal attention; where a landmark's score is the log-sum-exp of its
block's, it is attention to all ordinary tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend
from jattn.checks import check_count, check_shape
from jattn.mechanisms.sparse.tile_scores import top_count


def insert_landmarks(
    tokens: Int[Array, "*batch t"], every: int, landmark: int
) -> Int[Array, "*batch n"]:
    """Puts a landmark behind every block of tokens; what is no whole block at the end has none.

    Args:
        tokens: ordinary ones.
        every: tokens of a block.
        landmark: the token that stands for a block.

    Returns:
        `[..., t + t // every]`.

    Reference:
        arXiv 2305.16300.

    Example:
        >>> insert_landmarks(jnp.arange(5), 2, 9).tolist()
        [0, 1, 9, 2, 3, 9, 4]
    """
    check_count("every", every)
    whole = tokens.shape[-1] // every
    blocks = tokens[..., : whole * every].reshape(*tokens.shape[:-1], whole, every)
    marks = jnp.full((*blocks.shape[:-1], 1), landmark, tokens.dtype)
    closed = jnp.concatenate([blocks, marks], axis=-1).reshape(*tokens.shape[:-1], -1)
    return jnp.concatenate([closed, tokens[..., whole * every :]], axis=-1)


def landmark_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    is_landmark: Bool[Array, "b t"],
    *,
    scale: float | None = None,
    retrieved: Bool[Array, "b h t n"] | None = None,
) -> Float[Array, "b t h e"]:
    """Causal attention in two levels, in the form of training: O(t^2) scores.

    Args:
        query, key, value: g divides h.
        is_landmark: True = the token closes a block.
        scale: of the scores; default `d**-0.5`.
        retrieved: which earlier blocks each query may look into, by `select_blocks`; None: all.
            Blocks are numbered by their landmarks; n is at least the number of those.

    Returns:
        `[b, t, h, e]`; zero for a query that sees no ordinary token and no landmark.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2305.16300.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> marks = jnp.array([[False, False, True, False, False, True]])
        >>> landmark_attention(x, x, x, marks).shape
        (1, 6, 2, 4)
    """
    bias, allowed = _shares(query, key, is_landmark, scale, retrieved)
    return attend(query, key, value, bias=bias, mask=allowed, scale=scale)


def landmark_weights(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    is_landmark: Bool[Array, "b t"],
    *,
    scale: float | None = None,
) -> Float[Array, "b h t t"]:
    """The weights a of `landmark_attention`; landmarks have none.

    Example:
        >>> x = jnp.ones((1, 3, 1, 2))
        >>> landmark_weights(x, x, jnp.array([[False, True, False]]))[0, 0].tolist()
        [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    """
    bias, allowed = _shares(query, key, is_landmark, scale, None)
    nothing = jnp.zeros((*key.shape[:3], 1), key.dtype)
    _, weights = attend(
        query, key, nothing, bias=bias, mask=allowed, scale=scale, return_weights=True
    )
    return weights


def select_blocks(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    is_landmark: Bool[Array, "b t"],
    count: int,
    *,
    scale: float | None = None,
) -> Bool[Array, "b h t n"]:
    """The earlier blocks whose landmarks a query scores highest, `count` at most.

    Args:
        query, key, is_landmark, scale: as for `landmark_attention`.
        count: blocks to fetch.

    Returns:
        `[b, h, t, t]`, blocks numbered by their landmarks, of which there are t at most.

    Raises:
        ValueError: a count below 1.

    Reference:
        arXiv 2305.16300.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> marks = jnp.array([[False, True, False, True, False, False]])
        >>> int(select_blocks(x, x, marks, 1)[0, 0, 5].sum())
        1
    """
    level = _levels(query, key, is_landmark, scale)
    return level.earlier & top_count(jnp.where(level.earlier, level.landmark, -jnp.inf), count)


class _Levels(NamedTuple):
    block: Int[Array, "b t"]  # of each token: how many landmarks are before it
    earlier: Bool[Array, "b 1 t n"]  # whether a block is closed before a query's own
    landmark: Float[Array, "b h t n"]  # a block's landmark's score
    total: Float[Array, "b h t n"]  # the log-sum-exp of its tokens' scores


def _levels(query, key, is_landmark, scale) -> _Levels:
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("is_landmark", is_landmark, "b t", sizes)
    h, g, t = query.shape[2], key.shape[2], sizes["t"]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    wide = jnp.promote_types(query.dtype, jnp.float32)
    keys = jnp.repeat(key, h // g, axis=2).astype(wide)
    scores = scale * jnp.einsum("bthd,bshd->bhts", query.astype(wide), keys)
    block = jnp.cumsum(is_landmark, axis=1) - is_landmark

    def of_one(scores, block, is_landmark):
        """Of one batch entry: each block's landmark's score, and its tokens' log-sum-exp."""
        by_key = jnp.moveaxis(scores, -1, 0)
        ordinary = jnp.where(is_landmark[:, None, None], -jnp.inf, by_key)
        largest = lax.stop_gradient(jax.ops.segment_max(ordinary, block, t))
        largest = jnp.where(jnp.isfinite(largest), largest, 0)
        shares = jnp.where(is_landmark[:, None, None], 0, jnp.exp(by_key - largest[block]))
        total = jax.ops.segment_sum(shares, block, t)
        place = jax.ops.segment_max(jnp.where(is_landmark, jnp.arange(t), 0), block, t)
        landmark = by_key[jnp.maximum(place, 0)]
        log = jnp.log(jnp.where(total > 0, total, 1)) + largest
        return jnp.moveaxis(landmark, 0, -1), jnp.moveaxis(log, 0, -1)

    landmark, total = jax.vmap(of_one)(scores, block, is_landmark)
    earlier = (jnp.arange(t) < block[..., None])[:, None]
    return _Levels(block, earlier, landmark, total)


def _shares(query, key, is_landmark, scale, retrieved):
    """What is added to the scores of earlier blocks' tokens, and which keys a query sees."""
    level = _levels(query, key, is_landmark, scale)
    share = jnp.where(level.earlier, level.landmark - level.total, 0)
    block = level.block[:, None, None]
    of_key = jnp.broadcast_to(block, (*share.shape[:3], block.shape[-1]))
    bias = jnp.take_along_axis(share, of_key, axis=-1)
    t = is_landmark.shape[1]
    own = level.block[:, :, None] == level.block[:, None]
    earlier = level.block[:, None] < level.block[:, :, None]
    own &= jnp.arange(t)[:, None] >= jnp.arange(t)
    own, earlier = own[:, None], earlier[:, None]
    if retrieved is not None:
        earlier = earlier & jnp.take_along_axis(retrieved, of_key, axis=-1)
    return bias, (own | earlier) & ~is_landmark[:, None, None]
