"""The recurrence as it is defined: one token after another."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def update(
    state: Float[Array, "b h d e"],
    key: Float[Array, "b h d"],
    value: Float[Array, "b h e"],
    decay: Float[Array, "b h #d"] | None,
    beta: Float[Array, "b h"] | None,
    erase_key: Float[Array, "b h d"] | None = None,
) -> Float[Array, "b h d e"]:
    """One step: forget, then write `k v^T`, or with `beta` what the state predicts wrongly.

    The prediction is made at the key, or at another one.
    """
    if decay is not None:
        state = jnp.exp(decay)[..., None] * state
    if beta is not None:
        erased = key if erase_key is None else erase_key
        value = beta[..., None] * (value - jnp.einsum("bhd,bhde->bhe", erased, state))
    return state + key[..., :, None] * value[..., None, :]


def whole_chunk(chunk_size: int, length: Any) -> int:
    """The chunk's length for a sequence, whose own may be a symbol, as in `jax.export`."""
    return min(chunk_size, length) if isinstance(length, int) else chunk_size


def recur_scan(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    decay: Float[Array, "b t h #d"] | None,
    beta: Float[Array, "b t h"] | None,
    state: Float[Array, "b h d e"],
    chunk_size: int,
    erase_key: Float[Array, "b t h d"] | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"]]:
    """`recur` token by token; every other mode is tested against this one.

    The backward pass keeps one state per `chunk_size` tokens and computes those between again.

    Args: as `recur`, all of one floating type, with `h` key and value heads, and a last axis of
        size 1 on a decay per head.

    Returns:
        The reads, and the state after the last token.
    """
    length = query.shape[1]
    size = whole_chunk(chunk_size, length)
    count = -(-length // size)

    def split(x):
        # Padding with zeros writes nothing (key 0) and forgets nothing (log decay 0).
        x = jnp.pad(x, [(0, 0), (0, count * size - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x, 1, 0).reshape(count, size, *x.shape[:1], *x.shape[2:])

    def token(state, inputs):
        query, *write = inputs
        state = update(state, *write)
        return state, jnp.einsum("bhd,bhde->bhe", query, state)

    @jax.checkpoint
    def chunk(state, inputs):
        return jax.lax.scan(token, state, inputs)

    inputs = jax.tree.map(split, (query, key, value, decay, beta, erase_key))
    state, out = jax.lax.scan(chunk, state, inputs)
    out = out.reshape(count * size, *out.shape[2:])[:length]
    return jnp.moveaxis(out, 0, 1), state
