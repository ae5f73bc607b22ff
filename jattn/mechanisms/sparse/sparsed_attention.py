"""SparseD (arXiv 2509.24014): a diffusion language model looks once where its heads look.

Blocks of keys are chosen from dense attention at one early step of denoising, each head its own,
and kept for all later steps:

    chosen for a block of queries: the highest mean softmax weights of its tiles,
    prompt and generation apart: the first from weights over all keys, the second from weights over
    the keys of the generation alone, so that neither crowds out the other.

Distinctive: patterns of heads differ, and hardly move over steps, so they are found once.

Limits: share 1 is dense attention. The reference scales the scores it selects by with
1 / sqrt(heads); `scale` of `choose_blocks` is 1 / sqrt(d) unless it is given.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.attention import attend, masks
from jattn.checks import check_count, check_number
from jattn.mechanisms.sparse.tile_scores import ratio_of, tile_mean_probabilities, top_count


def first_generated_block(length: int, generated: int, block: int) -> int:
    """The first block that holds nothing but generated tokens, which come last; or the last one.

    Example:
        >>> first_generated_block(64, 16, 8)
        6
    """
    count = -(-length // block)
    return next((i for i in range(count) if length - i * block <= generated), count - 1)


def choose_blocks(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    *,
    block: int,
    share: float,
    generated: int,
    scale: float | None = None,
) -> Bool[Array, "b h n n"]:
    """Which blocks of keys each block of queries attends to.

    Args:
        query, key: of one step of denoising, of as many heads.
        block: tokens of a block.
        share: of blocks that are kept, in (0, 1].
        generated: tokens at the end that are generated.
        scale: of the scores that decide; default `d**-0.5`.

    Returns:
        True = computed.

    Raises:
        ValueError: a share out of range.

    Reference:
        arXiv 2509.24014.

    Example:
        >>> x = jnp.ones((1, 8, 1, 2))
        >>> choose_blocks(x, x, block=2, share=0.25, generated=4).sum(-1).tolist()
        [[[3, 3, 3, 3]]]
    """
    check_count("block", block)
    check_number("share", share, above=0)
    length = query.shape[1]
    count, first = -(-length // block), first_generated_block(length, generated, block)
    everywhere = top_count(
        tile_mean_probabilities(query, key, block, scale=scale), ratio_of(count, share)
    )
    late = tile_mean_probabilities(query, key[:, first * block :], block, scale=scale)
    among_generated = top_count(late, ratio_of(count - first, share))
    return jnp.concatenate([everywhere[..., :first], among_generated], axis=-1)


def sparsed_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    chosen: Bool[Array, "b h n n"],
    *,
    block: int,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Bidirectional attention to the blocks that were chosen.

    Args:
        query, key, value: of a later step.
        chosen: by `choose_blocks`.
        block: tokens of a block.
        scale: of the scores; default `d**-0.5`.

    Reference:
        arXiv 2509.24014.

    Example:
        >>> x = jnp.ones((1, 8, 1, 2))
        >>> chosen = choose_blocks(x, x, block=2, share=0.25, generated=4)
        >>> sparsed_attention(x, x, x, chosen, block=2).shape
        (1, 8, 1, 2)
    """
    return attend(query, key, value, mask=masks.blocks(chosen, block, block), scale=scale)


def phase(step: int, steps: int, skip: float) -> Literal["dense", "dense, and choose", "sparse"]:
    """What a step of denoising does, counted from 0: dense ones first, the last of which chooses.

    Args:
        step: which one.
        steps: how many there are.
        skip: share of them that stay dense.

    Example:
        >>> [phase(step, 10, 0.2) for step in (1, 3, 4)]
        ['dense', 'dense, and choose', 'sparse']
    """
    last = int(steps * skip) + 1
    return "dense" if step < last else "dense, and choose" if step == last else "sparse"
