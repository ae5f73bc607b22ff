"""Sliding-window attention with persistent tokens: what Titans puts beside its memory.

Every token sees the persistent tokens, the w - 1 tokens before it, and itself.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend
from jattn.attention.positions import rotary
from jattn.checks import check_count, check_shape


def window_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    prefix_key: Float[Array, "b n h d"],
    prefix_value: Float[Array, "b n h e"],
    *,
    window: int,
    mask: Bool[Array, "b t"] | None = None,
    rotate: bool = False,
) -> Float[Array, "b t h e"]:
    """Softmax attention of each token to a prefix and to the `window` tokens that end with it.

    Blocks of `window` queries meet their own block and the one before, so that it costs t w
    wherever it runs.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        prefix_key: `[b, n, h, d]`; n may be 0.
        prefix_value: `[b, n, h, e]`.
        window: tokens that a token sees, itself among them.
        mask: True = a real token.
        rotate: rotary positions, counted from the block before the query's on, so that they are
            below `2 window` however long the sequence is; the prefix stands at 0. d is even.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: shapes that do not fit, or a window below 1.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 7, 2, 4))
        >>> window_attention(x, x, x, x[:, :0], x[:, :0], window=3).shape
        (1, 7, 2, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b t h d", sizes)
    check_shape("value", value, "b t h e", sizes)
    check_shape("prefix_key", prefix_key, "b n h d", sizes)
    check_shape("prefix_value", prefix_value, "b n h e", sizes)
    check_count("window", window)
    batch, length, prefix = sizes["b"], sizes["t"], sizes["n"]
    blocks = -(-length // window)
    spare = blocks * window - length
    real = jnp.ones((batch, length), bool) if mask is None else mask

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, spare)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(batch, blocks, window, *x.shape[2:])

    def around(x, before=None):
        """The prefix, the block before and the block itself, for each block."""
        x = split(x)
        pair = jnp.concatenate(
            [jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2))[:, :-1], x], 2
        )
        shape = (batch, blocks, prefix, *pair.shape[3:])
        first = (
            jnp.ones(shape, bool) if before is None else jnp.broadcast_to(before[:, None], shape)
        )
        return jnp.concatenate([first, pair], 2).reshape(batch * blocks, -1, *pair.shape[3:])

    index = jnp.arange(2 * window)
    gap = index[None, :] - jnp.arange(window)[:, None]
    near = (gap > 0) & (gap <= window)  # the block before comes first: 0 .. w - 1
    near = jnp.concatenate([jnp.ones((window, prefix), bool), near], 1)
    allowed = near & around(real)[:, None]
    queries = split(query).reshape(batch * blocks, window, *query.shape[2:])
    keys = around(key, prefix_key)
    if rotate:
        places = jnp.concatenate([jnp.zeros(prefix, jnp.int32), index])
        queries, keys = rotary(queries, window + index[:window]), rotary(keys, places)
    out = attend(queries, keys, around(value, prefix_value), mask=allowed[:, None])
    return out.reshape(batch, blocks * window, *out.shape[2:])[:, :length]


class WindowCache(NamedTuple):
    """Keys and values of the prefix and of the last tokens; its size is that of the window.

    Attributes:
        key: `[b, n + w, h, d]`, the prefix first, then a ring of the last tokens.
        value: `[b, n + w, h, e]`.
        position: how many tokens it has seen.
    """

    key: Float[Array, "b s h d"]
    value: Float[Array, "b s h e"]
    position: Int[Array, ""]


def empty_cache(prefix_key: Array, prefix_value: Array, window: int) -> WindowCache:
    """A cache that holds a prefix and no tokens."""
    grow = lambda x: jnp.pad(x, ((0, 0), (0, window), (0, 0), (0, 0)))
    return WindowCache(grow(prefix_key), grow(prefix_value), jnp.zeros((), jnp.int32))


def window_step(
    cache: WindowCache, query: Any, key: Any, value: Any, *, window: int, rotate: bool = False
) -> tuple[WindowCache, Float[Array, "b h e"]]:
    """`window_attention` of one more token, `[b, h, d]` each."""
    prefix = cache.key.shape[1] - window
    slot = prefix + cache.position % window
    put = lambda buffer, x: lax.dynamic_update_slice_in_dim(
        buffer, x[:, None].astype(buffer.dtype), slot, axis=1
    )
    cache = WindowCache(put(cache.key, key), put(cache.value, value), cache.position + 1)
    filled = jnp.arange(cache.key.shape[1]) < prefix + cache.position
    keys, values = (x.astype(query.dtype) for x in (cache.key, cache.value))
    query = query[:, None]
    if rotate:
        # A ring's slot below that of the newest token is of its block, others of the one before.
        place = (cache.position - 1) % window
        ring = jnp.arange(window)
        places = ring + jnp.where(ring <= place, window, 0)
        places = jnp.concatenate([jnp.zeros(prefix, places.dtype), places])
        query, keys = rotary(query, place[None] + window), rotary(keys, places)
    return cache, attend(query, keys, values, mask=filled[None, None, None])[:, 0]
