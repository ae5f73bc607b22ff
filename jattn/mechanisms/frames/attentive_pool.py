"""The core of poolers: a few queries attend to all tokens."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import jattn.attention as engine
from jattn.attention import masks
from jattn.mechanisms.layers.heads import merge_heads, split_heads


def attentive_pool(
    query: Float[Array, "#b k c"],
    key: Float[Array, "b n d"],
    value: Float[Array, "b n e"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    key_heads: int | None = None,
    value_heads: int | None = None,
    scale: float | None = None,
) -> Float[Array, "b k f"]:
    """What each query reads of the tokens, heads merged; zeros where none is real.

    Args:
        query: `[b, k, heads d]`, or with b = 1 where rows share them.
        key: `[b, n, key_heads d]`.
        value: `[b, n, value_heads e]`.
        real: False where tokens are padding; default none is.
        heads: of the queries.
        key_heads, value_heads: divisors of heads; default as many.
        scale: of the scores; default d^-0.5.

    Returns:
        `[b, k, heads e]`.

    Example:
        >>> x = jnp.array([[[0.0], [2.0]]])
        >>> attentive_pool(jnp.zeros((1, 1, 1)), x, x).tolist()
        [[[1.0]]]
    """
    query = jnp.broadcast_to(query, (len(key), *query.shape[1:])).astype(key.dtype)
    read = engine.attend(
        split_heads(query, heads),
        split_heads(key, heads if key_heads is None else key_heads),
        split_heads(value, heads if value_heads is None else value_heads),
        mask=None if real is None else masks.padding(real),
        scale=scale,
    )
    return merge_heads(read)
