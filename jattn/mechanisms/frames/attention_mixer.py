"""The frame of mixers over `jattn.attend`, which differ in what is between q, k, v and output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import masks
from jattn.attention.mask_parts import count_visible
from jattn.attention.positions import rotary as rotate
from jattn.checks import check_count, check_flag
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.key_value_cache import key_value_cache
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mixer import Mixer, Params, Parts


class AttentionContext(NamedTuple):
    """Context of a core: what it may know besides its queries, keys and values.

    Attributes:
        x: the tokens that ask, `[b, t, m]`.
        mask: one for `attend`.
        visible_keys: gives the number of keys that each query may see by the mask, `[#b, #t, #h]`.
        relative_positions: position of each query less that of each key, broadcastable to
            `[b, t, s]`; None where they are index less index.
        crossed: whether the keys are those of a context.
        positions: those of queries `[b, t]` and of keys `[b, s]`, where relative ones are given.
    """

    x: Float[Array, "b t m"]
    mask: Any
    visible_keys: Callable[[], Int[Array, "#b #t #h"]]
    relative_positions: Int[Array, "#b t s"] | None
    crossed: bool = False
    positions: tuple[Int[Array, "#b t"], Int[Array, "#b s"]] | None = None


def attention_mixer(
    name: str,
    *,
    dim: int,
    heads: int,
    causal: bool,
    core: Callable[[Params, Array, Array, Array, AttentionContext], Array],
    kv_heads: int | None = None,
    head_dim: int | None = None,
    init: Callable[[jax.Array], Params] = lambda key: {},
    init_all: Callable[[jax.Array], Params] | None = None,
    project: Callable[[Params, Array, Array], dict[str, Array]] = project_qkv,
    prepare: Callable[..., tuple[Array, Array, Array]] | None = None,
    output: Callable[[Params, Array, Array], Array] = project_output,
    expand: Callable[[Params, Array], Array] | None = None,
    rotary: bool = False,
    self_only: bool = False,
    window: int | None = None,
    whole_cache: bool = False,
    any_size: bool = False,
) -> Mixer:
    """A mixer `y = output(core(params, query, key, value, context))`.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        heads: query heads h.
        causal: hide later tokens; the mixer then streams, with a key-value cache.
        core: from `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]` and an `AttentionContext` to
            `[b, t, h, e]`. Queries and keys are ready to be compared.
        kv_heads: key-value heads g, a divisor of h; default h.
        head_dim: size of a head; default m / h, of which h is then a divisor.
        init: parameters beyond the query, key, value and output projections.
        init_all: all parameters, where those projections are not all there.
        project: as in `Parts`.
        prepare: `(params, maps, x, source) -> (query, key, value)`, what becomes of the linear maps
            before any rotation; default heads. Their numbers and sizes are what it makes them.
        output: as in `Parts`.
        expand: what becomes of keys `[b, s, g, d]` behind the cache, which keeps them as prepared.
        rotary: rotate queries and (expanded) keys by their positions; self-attention only.
        self_only: refuse a context without rotary positions, too.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        whole_cache: keep tokens that have left the window, for cores that ask how many there are.
        any_size: parameters may be larger than those that are made, as grown models' are.

    Raises:
        ValueError: a size that does not fit.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    check_heads(dim if head_dim is None else heads, heads, kv_heads)
    check_flag("rotary", rotary)
    if rotary and head_dim is None and dim // heads % 2:
        raise ValueError(f"rotary: needs an even dim / heads, got {dim} / {heads} = {dim // heads}")
    if window is not None:
        check_count("window", window)

    def init_with_projections(key):
        shared, own = jax.random.split(key)
        made = qkvo_init(shared, dim, heads, kv_heads=kv_heads, head_dim=head_dim)
        return made | init(own)

    def to_cache(parts, params, x, source, positions):
        """Queries ready to be compared; keys and values as a cache keeps them."""
        maps = parts.project(params, x, source)
        if prepare is None:
            query, key, value = split_qkv(maps, heads, kv_heads)
        else:
            query, key, value = prepare(params, maps, x, source)
        if rotary:
            query = rotate(query, positions)
            key = key if expand else rotate(key, positions)
        return query, key, value

    def from_cache(params, key, positions):
        if expand is None:
            return key
        key = expand(params, key)
        return rotate(key, positions) if rotary else key

    def finish(parts, params, query, key, value, context):
        mixed = parts.core(params, query, key, value, context)
        return parts.output(params, merge_heads(mixed), context.x)

    def apply(parts, params, given):
        x, source, mask, positions = given.x, given.source, given.mask, given.positions
        if causal:
            mask = masks.causal() if mask is None else mask & masks.causal()
        if window is not None:
            near = masks.sliding_window(window, 0 if causal else window - 1)
            mask = near if mask is None else mask & near
        query, key, value = to_cache(parts, params, x, source, positions)
        relative = both = None
        if positions is not None and not given.crossed:
            relative, both = positions[:, :, None] - positions[:, None], (positions, positions)
        visible = lambda: count_visible_keys(mask, x.shape[1], source.shape[1])
        context = AttentionContext(x, mask, visible, relative, given.crossed, both)
        return finish(parts, params, query, from_cache(params, key, positions), value, context)

    def init_state(parts, params, batch_size, max_length, dtype):
        def cached(params, x):
            return to_cache(parts, params, x, x, None)[1:]

        x = jax.ShapeDtypeStruct((batch_size, 1, dim), dtype)
        key, value = jax.eval_shape(cached, params, x)
        room = max_length if window is None or whole_cache else min(max_length, window)
        return key_value_cache(key, value, room)

    def is_ring(state):
        """Whether the cache keeps the tokens of the window alone."""
        return not whole_cache and state.key.shape[1] == window

    def step(parts, params, x, state):
        positions = jnp.broadcast_to(state.position, (x.shape[0], 1))
        x = x[:, None]
        query, key, value = to_cache(parts, params, x, x, positions)
        ring = is_ring(state)
        state = state.append(key[:, 0], value[:, 0], ring)
        newest, mask, index = state.position - 1, state.filled(ring), state.tokens(ring)
        if window is not None:
            mask &= index > newest - window
        visible = mask.sum(-1)
        key, value = state.key.astype(x.dtype), state.value.astype(x.dtype)
        relative, both = (newest - index)[None, None], (newest[None, None], index[None])
        context = AttentionContext(x, mask, lambda: visible, relative, positions=both)
        y = finish(parts, params, query, from_cache(params, key, index), value, context)
        return y[:, 0], state

    def prefill(parts, params, x, state, length):
        """Applies the mixer to the tokens alone; the cache hides what is behind the real ones."""
        query, key, value = to_cache(parts, params, x, x, None)
        mask = masks.causal()
        if window is not None:
            mask &= masks.sliding_window(window, 0)
        visible = lambda: count_visible_keys(mask, x.shape[1], x.shape[1])
        context = AttentionContext(x, mask, visible, None)
        y = finish(parts, params, query, from_cache(params, key, None), value, context)
        return y, state.fill(key, value, length, is_ring(state))

    return framed_parts(
        f"{name} with rotary positions" if rotary and not self_only else name,
        Parts(project, core, output),
        dim=dim,
        init=init_with_projections if init_all is None else init_all,
        apply=apply,
        init_state=init_state if causal else None,
        step=step if causal else None,
        prefill=prefill if causal else None,
        takes="any",
        causal=causal,
        cross=not (rotary or self_only),
        any_size=any_size,
    )


def count_visible_keys(mask: Any, queries: int, length: int) -> Int[Array, "#b #t #h"]:
    """Counts the keys that each query may see, in each head; see `count_visible`."""
    return jnp.moveaxis(count_visible(mask, queries, length), 1, 2)


def per_head(counts: Int[Array, "#b #t"] | Int[Array, "#b #t #h"]) -> Int[Array, "#b #t #h"]:
    """Numbers of keys with an axis of heads, of size 1 where they share them."""
    return counts if counts.ndim == 3 else counts[..., None]
