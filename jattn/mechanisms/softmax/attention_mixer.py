"""The frame of mixers over `jattn.attend`, which differ in what is between q, k, v and output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import masks
from jattn.attention.positions import rotary as rotate
from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mixer, Params


class Scene(NamedTuple):
    """What a core may know besides its queries, keys and values.

    Attributes:
        x: the tokens that ask, `[b, t, m]`.
        mask: one for `attend`.
        seen: the number of keys each query may see, as causality and padding have it (not a mask
            of another kind); broadcastable to `[b, t]`.
        distance: position of each query less that of each key, broadcastable to `[b, t, s]`; None
            where they are index less index.
    """

    x: Float[Array, "b t m"]
    mask: Any
    seen: Int[Array, "#b #t"]
    distance: Int[Array, "#b t s"] | None


def attention_mixer(
    name: str,
    *,
    dim: int,
    heads: int,
    causal: bool,
    core: Callable[[Params, Array, Array, Array, Scene], Array],
    kv_heads: int | None = None,
    init: Callable[[jax.Array], Params] = lambda key: {},
    project: Callable[[Params, Array, Array], tuple[Array, Array, Array]] | None = None,
    expand: Callable[[Params, Array], Array] | None = None,
    rotary: bool = False,
    self_only: bool = False,
    window: int | None = None,
) -> Mixer:
    """A mixer `y = output(core(params, query, key, value, scene))`.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens; the mixer then streams, with a key-value cache.
        core: from `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]` and a `Scene` to `[b, t, h, e]`.
        kv_heads: key-value heads g, a divisor of h; default h.
        init: parameters beyond the query, key, value and output projections, or in their place.
        project: `(params, x, context) -> (query, key, value)`; default those projections. Numbers
            and sizes of heads are what it makes them.
        expand: what becomes of keys `[b, s, g, d]` behind the cache, which keeps them as projected.
        rotary: rotate queries and (expanded) keys by their positions; self-attention only.
        self_only: refuse a context without rotary positions, too.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).

    Raises:
        ValueError: a size that does not fit.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    p.check_heads(dim, heads, kv_heads)
    if rotary and dim // heads % 2:
        raise ValueError(f"rotary: needs an even dim / heads, got {dim} / {heads} = {dim // heads}")
    if window is not None and window < 1:
        raise ValueError(f"window: expected at least 1, got {window}")

    def init_all(key):
        shared, own = jax.random.split(key)
        return p.qkvo_init(shared, dim, heads, kv_heads=kv_heads) | init(own)

    def to_cache(params, x, context, positions):
        """Queries ready to be compared; keys and values as a cache keeps them."""
        if project is None:
            query, key, value = p.qkv(params, x, context, heads, kv_heads)
        else:
            query, key, value = project(params, x, context)
        if rotary:
            query = rotate(query, positions)
            key = key if expand else rotate(key, positions)
        return query, key, value

    def from_cache(params, key, positions):
        if expand is None:
            return key
        key = expand(params, key)
        return rotate(key, positions) if rotary else key

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        if rotary or self_only:
            p.no_context(name if self_only else f"{name} with rotary positions", context)
        source = p.check_tokens(dim, x, context, positions)
        seen = seen_keys(mask, x.shape[1], *source.shape[:2], causal=causal)
        mask = p.attention_mask(mask, *source.shape[:2], causal=causal)
        if window is not None:
            near = masks.sliding_window(window, 0 if causal else window - 1)
            mask = near if mask is None else mask & near
        query, key, value = to_cache(params, x, source, positions)
        distance = None
        if positions is not None and context is None:
            distance = positions[:, :, None] - positions[:, None]
        scene = Scene(x, mask, seen, distance)
        return p.output(
            params, core(params, query, from_cache(params, key, positions), value, scene)
        )

    def init_state(params, batch_size, max_length):
        def cached(params, x):
            return to_cache(params, x, x, None)[1:]

        dtype = jnp.result_type(*jax.tree.leaves(params))
        x = jax.ShapeDtypeStruct((batch_size, 1, dim), dtype)
        key, value = jax.eval_shape(cached, params, x)
        return p.key_value_cache(key, value, max_length)

    def step(params, x, state):
        positions = jnp.broadcast_to(state.position, (x.shape[0], 1))
        x = x[:, None]
        query, key, value = to_cache(params, x, x, positions)
        state = state.append(key[:, 0], value[:, 0])
        newest, mask = state.position - 1, state.filled
        places = jnp.arange(mask.shape[-1])
        if window is not None:
            mask &= places > newest - window
        key, value = state.key.astype(x.dtype), state.value.astype(x.dtype)
        scene = Scene(x, mask, state.position[None, None], (newest - places)[None, None])
        mixed = core(params, query, from_cache(params, key, places), value, scene)
        return p.output(params, mixed)[:, 0], state

    return Mixer(init_all, apply, init_state, step) if causal else Mixer(init_all, apply)


def seen_keys(
    mask: Any, queries: int, batch: int, length: int, *, causal: bool
) -> Int[Array, "#b #t"]:
    """How many keys each query may see: the real ones, if causal up to its own place."""
    found = p.real_tokens(mask, batch, length)
    real: Bool[Array, "#b s"] = jnp.ones((1, length), bool) if found is None else found
    if not causal:
        return real.sum(1, keepdims=True)
    return jnp.cumsum(real, 1)[:, jnp.minimum(jnp.arange(queries), length - 1)]
