"""Persistent tokens and the gate: shared by the ways to combine Titans' memory with attention."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.attention import masks
from jattn.checks import check_count, check_flag
from jattn.mechanisms.combinators.short_convolution import PROJECTIONS
from jattn.mechanisms.layers.convolutions import causal_depthwise
from jattn.mechanisms.layers.heads import merge_heads, split_heads
from jattn.mechanisms.layers.linear_maps import linear
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.mixer import Mixer, last_tokens


def persistent_init(key: jax.Array, count: int, dim: int) -> Float[Array, "n m"]:
    """Persistent tokens, of the scale of normed tokens.

    Raises:
        ValueError: a count below 0.
    """
    check_count("persistent", count, least=0)
    return jax.random.normal(key, (count, dim))


def check_rotary(rotary: bool, dim: int, heads: int) -> None:
    """Checks that heads can have rotary positions.

    Raises:
        ValueError: no flag, or an odd number of channels.
    """
    check_flag("rotary", rotary)
    if rotary and dim // heads % 2:
        raise ValueError(
            f"heads: expected an even dim / heads for rotation, got {dim} / {heads}; "
            "or pass rotary=False"
        )


def broadcast_tokens(
    tokens: Float[Array, "n m"], x: Float[Array, "b t m"]
) -> Float[Array, "b n m"]:
    """Persistent tokens for every sequence of x, in its dtype."""
    return jnp.broadcast_to(tokens.astype(x.dtype), (len(x), *tokens.shape))


def prepend(
    tokens: Float[Array, "b n m"], x: Float[Array, "b t m"], real: Bool[Array, "b t"] | None
) -> tuple[Float[Array, "b s m"], masks.Mask | None]:
    """`[P; x]`, and the mask of its padding, which is behind the real tokens."""
    mask = None if real is None else masks.prefix(tokens.shape[1] + real.sum(1))
    return jnp.concatenate([tokens, x], axis=1), mask


def prefix_heads(
    params: Any, tokens: Float[Array, "b n m"], heads: int
) -> tuple[Float[Array, "b n h d"], Float[Array, "b n h d"]]:
    """Keys and values of tokens that are no sequence: short convolutions pass them by."""
    key, value = (split_heads(linear(tokens, params[name]), heads) for name in ("key", "value"))
    return key, value


def read_prefix(
    memory: Mixer, params: Any, tokens: Float[Array, "b n m"]
) -> tuple[Float[Array, "b n m"], Any]:
    """Answers of a streaming memory to the persistent tokens, and its state after them."""
    assert memory.init_state is not None
    assert memory.step is not None
    step = memory.step

    def one(state, x):
        y, state = step(params, x, state)
        return state, y

    state = memory.init_state(params, len(tokens), max(tokens.shape[1], 1))
    state, out = lax.scan(one, state, jnp.moveaxis(tokens, 1, 0))
    return jnp.moveaxis(out, 0, 1), state


def filters_init(key: jax.Array, width: int, dim: int) -> dict[str, Float[Array, "width m"]]:
    """Filters of the memory's queries, keys and values, U(-width^-1/2, width^-1/2)."""
    bound = width**-0.5
    make = lambda key: jax.random.uniform(key, (width, dim), minval=-bound, maxval=bound)
    return dict(zip(PROJECTIONS, map(make, jax.random.split(key, 3)), strict=True))


def empty_past(params: Any, batch: int, dtype: Any) -> dict[str, Float[Array, "b before m"]]:
    """What filters see before the first token: zeros; nothing where there are no filters."""
    filters = params.get("filters", {})
    return {name: jnp.zeros((batch, len(f) - 1, f.shape[1]), dtype) for name, f in filters.items()}


def filtered(
    params: Any, maps: dict[str, Float[Array, "b t m"]], past: dict[str, Float[Array, "b before m"]]
) -> tuple[dict[str, Float[Array, "b t m"]], dict[str, Float[Array, "b before m"]]]:
    """Linear maps behind the short convolutions of `filters_init`, and what those still reach.

    Args:
        params: with `filters`, or without, and then maps are as they were.
        maps: of the tokens, by name.
        past: those of the tokens before, as `empty_past` or an earlier call gives them.
    """
    filters = params.get("filters", {})
    after = {name: last_tokens(past[name], maps[name], maps[name].shape[1]) for name in filters}
    convolved = {
        name: causal_depthwise(maps[name], taps, past=past[name]) for name, taps in filters.items()
    }
    return maps | convolved, after


def gate_by_memory(
    params: Any, near: Float[Array, "b t h d"], far: Float[Array, "b t m"]
) -> Float[Array, "b t m"]:
    """`norm(near) * sigmoid(norm(far))`: merged heads gated by what the memory says.

    Args:
        params: with `attention_scale` and `memory_scale` `[m]` of the norms.
        near: what attention gives.
        far: what the memory gives.
    """
    near = rms_norm(merge_heads(near), params["attention_scale"])
    return near * jax.nn.sigmoid(rms_norm(far, params["memory_scale"]))
