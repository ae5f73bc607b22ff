"""The frame of mixers over `jattn.attend`, which differ in what is between q, k, v and output."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jattn.attention import masks
from jattn.attention.positions import rotary as rotate
from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mixer, Params


def attention_mixer(
    name: str,
    *,
    dim: int,
    heads: int,
    causal: bool,
    kv_heads: int | None,
    core: Callable[..., Array],
    init: Callable[[jax.Array], Params] = lambda key: {},
    rotary: bool = False,
    window: int | None = None,
) -> Mixer:
    """A mixer `y = output(core(params, query, key, value, mask=, seen=))`.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens; the mixer then streams, with a key-value cache.
        kv_heads: key-value heads g, a divisor of h; default h.
        core: `mask` is one for `attend`. `seen`, int, broadcastable to `[b, t]`, is the number of
            keys each query may see, as causality and padding have it (not a mask of another kind).
        init: parameters beyond the query, key, value and output projections.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).

    Raises:
        ValueError: a size that does not fit.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    p.check_heads(dim, heads, kv_heads)
    head_dim = dim // heads
    if rotary and head_dim % 2:
        raise ValueError(f"rotary: needs an even dim / heads, got {dim} / {heads} = {head_dim}")
    if window is not None and window < 1:
        raise ValueError(f"window: expected at least 1, got {window}")

    def init_all(key):
        shared, own = jax.random.split(key)
        return p.qkvo_init(shared, dim, heads, kv_heads=kv_heads) | init(own)

    def project(params, x, context, positions):
        query, key, value = p.qkv(params, x, context, heads, kv_heads)
        if rotary:
            query, key = rotate(query, positions), rotate(key, positions)
        return query, key, value

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        if rotary:
            p.no_context(f"{name} with rotary positions", context)
        context = p.check_tokens(dim, x, context, positions)
        seen = seen_keys(mask, x.shape[1], *context.shape[:2], causal=causal)
        mask = p.attention_mask(mask, *context.shape[:2], causal=causal)
        if window is not None:
            near = masks.sliding_window(window, 0 if causal else window - 1)
            mask = near if mask is None else mask & near
        mixed = core(params, *project(params, x, context, positions), mask=mask, seen=seen)
        return p.output(params, mixed)

    def init_state(params, batch_size, max_length):
        dtype = params["key"].dtype
        return p.key_value_cache(batch_size, max_length, kv_heads, head_dim, dtype=dtype)

    def step(params, x, state):
        positions = jnp.broadcast_to(state.position, (x.shape[0], 1))
        query, key, value = project(params, x[:, None], x[:, None], positions)
        state = state.append(key[:, 0], value[:, 0])
        mask = state.filled
        if window is not None:
            mask &= jnp.arange(mask.shape[-1]) >= state.position - window
        key, value = state.key.astype(x.dtype), state.value.astype(x.dtype)
        mixed = core(params, query, key, value, mask=mask, seen=state.position[None, None])
        return p.output(params, mixed)[:, 0], state

    return Mixer(init_all, apply, init_state, step) if causal else Mixer(init_all, apply)


def seen_keys(
    mask: Any, queries: int, batch: int, length: int, *, causal: bool
) -> Int[Array, "#b #t"]:
    """How many keys each query may see: the real ones, if causal up to its own place."""
    real: Bool[Array, "#b s"] = jnp.ones((1, length), bool)
    if mask is not None and not isinstance(mask, masks.Mask) and jnp.ndim(mask) == 2:
        real = jnp.asarray(p.padding(mask, batch, length))
    if not causal:
        return real.sum(1, keepdims=True)
    return jnp.cumsum(real, 1)[:, jnp.minimum(jnp.arange(queries), length - 1)]
