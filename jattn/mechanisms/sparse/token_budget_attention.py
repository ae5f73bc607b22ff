"""TCA attention (arXiv 2512.09238): each block of the past keeps as many tokens as it needs.

Blocks of b tokens keep 1, 2, 4, ... or b of them. How many blocks keep how many is a head's budget,

    p_k proportional to exp(-(log2 k - mu)^2 / (2 sigma^2)),

the most redundant blocks keep least, and in a block the most important tokens stay. A query sees
what was kept of earlier blocks, and all tokens of its own block and the one before.

Distinctive: no training; the cache shrinks too.

Limits: a budget of b tokens for all is causal attention. What makes a block redundant, or a token
important, the paper's abstract leaves open: here the mean cosine of the block's keys, and the mean
weight that the last queries give.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_count, check_shape
from jattn.extremes import largest
from jattn.mechanisms.layers.norms import unit


def budget(block: int, mu: float, sigma: float) -> Float[np.ndarray, " k"]:
    """Shares of blocks that keep 1, 2, 4, ... `block` tokens; they sum to one.

    Args:
        block: tokens of a block, a power of two.
        mu, sigma: centre and width, of log2 of the number kept. With sigma 0 all keep 2^mu.

    Raises:
        ValueError: a block that is no power of two.

    Reference:
        arXiv 2512.09238.

    Example:
        >>> budget(4, 1.0, 0.0).tolist()
        [0.0, 1.0, 0.0]
    """
    check_count("block", block)
    steps = block.bit_length() - 1
    if block != 2**steps:
        raise ValueError(f"block: expected a power of two, got {block}")
    away = (np.arange(steps + 1) - mu) ** 2
    if sigma == 0:
        return (away == away.min()).astype(float) / (away == away.min()).sum()
    share = np.exp(-(away - away.min()) / (2 * sigma**2))
    return share / share.sum()


def redundancy(key: Float[Array, "b t g d"], block: int) -> Float[Array, "b g n"]:
    """Mean cosine of the keys of each block with each other, of whole blocks.

    Example:
        >>> redundancy(jnp.ones((1, 4, 1, 2)), 2).round(3)
        Array([[[1., 1.]]], dtype=float32)
    """
    whole = key.shape[1] // block
    keys = unit(key)[:, : whole * block]
    blocks = keys.reshape(len(key), whole, block, *key.shape[2:])
    total = (blocks.sum(2) ** 2).sum(-1)
    own = (blocks**2).sum((2, -1))
    pairs = max(block * (block - 1), 1)
    return jnp.moveaxis((total - own) / pairs if block > 1 else own, 1, 2)


def counts(
    redundant: Float[Array, "b g n"], shares: Float[np.ndarray, " k"]
) -> Int[Array, "b g n"]:
    """How many tokens each block keeps: the most redundant the fewest, in the shares of a budget.

    Example:
        >>> counts(jnp.array([[[0.9, 0.1]]]), np.array([0.5, 0.0, 0.5])).tolist()
        [[[1, 4]]]
    """
    n = redundant.shape[-1]
    upto = np.floor(np.cumsum(shares) * n + 0.5).astype(int)
    upto[-1] = n
    kept = 2 ** np.searchsorted(upto, np.arange(n), side="right")
    rank = jnp.argsort(jnp.argsort(-redundant, axis=-1, stable=True), axis=-1)
    return jnp.asarray(kept)[rank]


def keep_tokens(
    importance: Float[Array, "b g t"], kept: Int[Array, "b g n"], block: int
) -> Bool[Array, "b g t"]:
    """The most important tokens of each block, as many as it keeps; what is no whole block stays.

    Example:
        >>> importance = jnp.array([[[3.0, 1.0, 1.0, 2.0, 0.0]]])
        >>> keep_tokens(importance, jnp.array([[[1, 1]]]), 2).astype(int).tolist()
        [[[1, 0, 0, 1, 1]]]
    """
    whole = kept.shape[-1] * block
    blocks = importance[..., :whole].reshape(*kept.shape, block)
    rank = jnp.argsort(jnp.argsort(-blocks, axis=-1, stable=True), axis=-1)
    chosen = (rank < kept[..., None]).reshape(*importance.shape[:2], whole)
    rest = [(0, 0), (0, 0), (0, importance.shape[-1] - whole)]
    return jnp.pad(chosen, rest, constant_values=True)


def token_budget_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    kept: Bool[Array, "b g t"],
    *,
    block: int,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Causal attention to the tokens that are kept, and to all of the last two blocks.

    Args:
        query, key, value: g divides h.
        kept: of `keep_tokens`.
        block: tokens of a block.
        scale: of the scores; default `d**-0.5`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2512.09238.

    Example:
        >>> x = jnp.ones((1, 8, 2, 4))
        >>> token_budget_attention(x, x, x, jnp.zeros((1, 2, 8), bool), block=2).shape
        (1, 8, 2, 4)
    """
    check_shape("kept", kept, "b g t", {"g": key.shape[2], "t": key.shape[1]})
    each = query.shape[2] // key.shape[2]
    near = masks.from_function(lambda b, h, i, j: i // block - j // block <= 1)
    held = masks.from_array(jnp.repeat(kept, each, axis=1)[:, :, None])
    return attend(query, key, value, mask=(near | held) & masks.causal(), scale=scale)


def importance(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    last: int,
    *,
    scale: float | None = None,
) -> Float[Array, "b g t"]:
    """Mean weight that the last queries give to each key, the largest of the heads that share it.

    Example:
        >>> importance(jnp.ones((1, 4, 2, 3)), jnp.ones((1, 4, 1, 3)), 1).tolist()
        [[[0.25, 0.25, 0.25, 0.25]]]
    """
    check_count("last", last)
    b, t, g = key.shape[:3]
    last = min(last, t)
    nothing = jnp.zeros((*key.shape[:3], 1), key.dtype)
    mask = masks.causal(t - last)
    _, weights = attend(query[:, -last:], key, nothing, mask=mask, scale=scale, return_weights=True)
    return largest(weights.mean(2).reshape(b, g, -1, t), 2)[:, :, 0]
