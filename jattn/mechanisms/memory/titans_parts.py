"""What the ways to combine Titans' memory with attention share: persistent tokens, and the gate."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mixer


def persistent_init(key: jax.Array, count: int, dim: int) -> Float[Array, "n m"]:
    """Persistent tokens, of the scale of normed tokens.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"persistent: expected at least 1, got {count}")
    return jax.random.normal(key, (count, dim))


def spread(tokens: Float[Array, "n m"], x: Float[Array, "b t m"]) -> Float[Array, "b n m"]:
    """Persistent tokens for every sequence of x, in its dtype."""
    return jnp.broadcast_to(tokens.astype(x.dtype), (len(x), *tokens.shape))


def prepend(
    tokens: Float[Array, "b n m"], x: Float[Array, "b t m"], mask: Bool[Array, "b t"] | None
) -> tuple[Float[Array, "b s m"], Bool[Array, "b s"] | None]:
    """`[P; x]`, and its padding mask."""
    if mask is not None:
        mask = jnp.pad(mask, ((0, 0), (tokens.shape[1], 0)), constant_values=True)
    return jnp.concatenate([tokens, x], axis=1), mask


def prefix_heads(
    params: Any, tokens: Float[Array, "b n m"], heads: int
) -> tuple[Float[Array, "b n h d"], Float[Array, "b n h d"]]:
    """Keys and values of tokens that are no sequence: short convolutions pass them by."""
    key, value = (
        params[name].weight if isinstance(params[name], p.Convolved) else params[name]
        for name in ("key", "value")
    )
    key, value = (p.split_heads(p.linear(tokens, weights), heads) for weights in (key, value))
    return key, value


def read_prefix(
    memory: Mixer, params: Any, tokens: Float[Array, "b n m"]
) -> tuple[Float[Array, "b n m"], Any]:
    """What a streaming memory answers to the persistent tokens, and its state after them."""
    assert memory.init_state is not None
    assert memory.step is not None
    step = memory.step

    def one(state, x):
        y, state = step(params, x, state)
        return state, y

    state = memory.init_state(params, len(tokens), tokens.shape[1])
    state, out = lax.scan(one, state, jnp.moveaxis(tokens, 1, 0))
    return jnp.moveaxis(out, 0, 1), state


def gated_output(
    params: Any, near: Float[Array, "*batch h d"], far: Float[Array, "*batch m"]
) -> Float[Array, "*batch m"]:
    """`(norm(near) * sigmoid(norm(far))) W`: attention gated by what the memory says.

    Args:
        params: with `attention_scale` and `memory_scale` `[m]` of the norms, and `output`.
        near: what attention gives.
        far: what the memory gives.
    """
    near = p.rms_norm(p.merge_heads(near), params["attention_scale"])
    gate = jax.nn.sigmoid(p.rms_norm(far, params["memory_scale"]))
    return p.project_out(params, near * gate)
