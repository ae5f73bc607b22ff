"""Rectified sparse attention (arXiv 2511.19835): what blocks that are skipped would have said.

Means of blocks give probabilities P of blocks; the highest are computed exactly, others are
compensated by their means, and what is neither is given back to the exact ones:

    out_i = R A_critical(i) + sum over b not in S of P_b mean(v_b),   R = sum over b in S of P_b

S are the critical blocks, and those whose mean score is too uncertain to stand for them: their
gain |mean(q) . mean(k)| is not above their error (see `compensated_blocks`).

Distinctive: all weights of a query sum to one, whatever is skipped; nothing is trained.

Limits: all blocks critical, or keys and queries that are constant in each block, give softmax
attention exactly. The paper's is bidirectional.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.attention import attend, masks, merge
from jattn.checks import check_count, check_shape
from jattn.mechanisms.sparse.tile_scores import block_means, top_mass


def block_probabilities(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    block: int,
    *,
    text_key: Float[Array, "b n h d"] | None = None,
    scale: float | None = None,
) -> Float[Array, "b h q k"]:
    """Probabilities of blocks of keys for blocks of queries, by their means.

    Text keys, which are none of a block, take part one by one; a block then weighs as many times
    as it has tokens, and all text is one more column. Rows sum to one.

    Args:
        query, key: of the tokens in blocks.
        block: tokens of a block.
        text_key: keys of text.
        scale: of the scores; default `d**-0.5`.

    Reference:
        arXiv 2511.19835.

    Example:
        >>> x = jnp.ones((1, 4, 1, 2))
        >>> found = block_probabilities(x, x, 2, text_key=x[:, :1])[0, 0, 0]
        >>> [round(share, 2) for share in found.tolist()]
        [0.4, 0.4, 0.2]
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    queries, keys = block_means(query, block), block_means(key, block)
    if text_key is None:
        return jax.nn.softmax(factor * jnp.einsum("bqhd,bkhd->bhqk", queries, keys), axis=-1)
    both = jnp.concatenate([keys, text_key], axis=1)
    weights = jax.nn.softmax(factor * jnp.einsum("bqhd,bkhd->bhqk", queries, both), axis=-1)
    of_blocks, of_text = jnp.split(weights, [keys.shape[1]], axis=-1)
    columns = jnp.concatenate([block * of_blocks, of_text.sum(-1, keepdims=True)], axis=-1)
    return columns / columns.sum(-1, keepdims=True)


def compensated_blocks(
    query: Float[Array, "b t h d"], key: Float[Array, "b t h d"], block: int
) -> Bool[Array, "b h q k"]:
    """Pairs of blocks whose means say more than what they leave out could undo.

        |mean(q) . mean(k)|  >  |mean|dq| . mean(k)| + |mean(q) . mean|dk||

    with dq and dk the tokens' distances from their blocks' means, in absolute values.

    Example:
        >>> x = jnp.ones((1, 4, 1, 2))
        >>> compensated_blocks(x, x, 2).all().item()
        True
    """
    queries, keys = block_means(query, block), block_means(key, block)
    spread = lambda x, mean: block_means(
        jnp.abs(x - jnp.repeat(mean, block, axis=1)[:, : x.shape[1]]), block
    )
    product = lambda q, k: jnp.abs(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    error = product(spread(query, queries), keys) + product(queries, spread(key, keys))
    return product(queries, keys) > error


class Selection(NamedTuple):
    """What is done with each pair of blocks.

    Attributes:
        probabilities: P, `[b, h, q, k]`, with one more column where there is text.
        critical: computed exactly; text always is.
        kept: not compensated: critical, or too uncertain.
    """

    probabilities: Float[Array, "b h q k"]
    critical: Bool[Array, "b h q k"]
    kept: Bool[Array, "b h q k"]


def select(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    *,
    block: int,
    mass: float,
    least: int,
    text_key: Float[Array, "b n h d"] | None = None,
    neighbors: Bool[Array, "#b #h q k"] | None = None,
    first_frame: int = 0,
) -> Selection:
    """Chooses critical blocks by their probabilities, and those that are not compensated.

    Args:
        query, key: of the tokens in blocks.
        block: tokens of a block.
        mass: of the probabilities that critical blocks hold about.
        least: critical blocks of a row at least.
        text_key: keys of text, which all see.
        neighbors: more critical pairs.
        first_frame: blocks of the first frame, which see each other.

    Reference:
        arXiv 2511.19835.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 8, 1, 2))
        >>> select(x, x, block=2, mass=0.5, least=1).critical.shape
        (1, 1, 4, 4)
    """
    probabilities = block_probabilities(query, key, block, text_key=text_key)
    critical = top_mass(probabilities, mass, least)
    if text_key is not None:
        critical = critical.at[..., -1].set(True)
    count = -(-query.shape[1] // block)
    if neighbors is not None:
        critical = critical.at[..., :count].max(
            jnp.broadcast_to(neighbors, critical[..., :count].shape)
        )
    if first_frame:
        critical = critical.at[..., :first_frame, :first_frame].set(True)
    kept = ~compensated_blocks(query, key, block)
    if text_key is not None:
        kept = jnp.pad(kept, [(0, 0), (0, 0), (0, 0), (0, 1)], constant_values=True)
    return Selection(probabilities, critical, critical | kept)


def rectified_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    value: Float[Array, "b s h e"],
    *,
    block: int,
    mass: float,
    least: int = 1,
    text: int = 0,
    neighbors: Bool[Array, "#b #h q k"] | None = None,
    first_frame: int = 0,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Attention to critical blocks, corrected for what it skips.

    Args:
        query: of the tokens in blocks, and then of text, which attends to all.
        key, value: of the same tokens, s = t.
        block: tokens of a block.
        mass, least, neighbors, first_frame: as for `select`.
        text: tokens of text at the end.
        scale: of the scores; default `d**-0.5`.

    Returns:
        `[b, t, h, e]` in the query's dtype.

    Raises:
        ValueError: tokens before the text that are no whole blocks.

    Reference:
        arXiv 2511.19835.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 8, 1, 2))
        >>> ones = jnp.ones_like(x)
        >>> bool(jnp.allclose(rectified_attention(x, x, ones, block=2, mass=0.3), 1, atol=1e-5))
        True
    """
    check_count("text", text, 0)
    check_shape("key", key, "b s h d", {"s": query.shape[1]})
    cut = query.shape[1] - text
    if cut % block:
        raise ValueError(f"query: expected whole blocks of {block} before the text, got {cut}")
    q, k, v = (x[:, :cut] for x in (query, key, value))
    chosen = select(
        q, k, block=block, mass=mass, least=least, neighbors=neighbors, first_frame=first_frame,
        text_key=key[:, cut:] if text else None,
    )  # fmt: skip
    count = cut // block
    exact = masks.blocks(chosen.critical[..., :count], block, block)
    sparse = attend(q, k, v, mask=exact, scale=scale, return_lse=True)
    if text:
        sparse = merge(
            sparse, attend(q, key[:, cut:], value[:, cut:], scale=scale, return_lse=True)
        )
    left = jnp.where(chosen.kept, chosen.probabilities, 0).sum(-1)
    skipped = jnp.where(chosen.kept, 0, chosen.probabilities)[..., :count]
    back = jnp.einsum("bhqk,bkhe->bqhe", skipped, block_means(v, block))
    spread = lambda x: jnp.repeat(x, block, axis=1)
    out = sparse[0] * spread(jnp.moveaxis(left, 1, 2)[..., None]) + spread(back)
    if not text:
        return out.astype(query.dtype)
    dense = attend(query[:, cut:], key, value, scale=scale)
    return jnp.concatenate([out.astype(query.dtype), dense], axis=1)
