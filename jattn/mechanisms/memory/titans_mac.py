"""Titans with memory as a context (MAC): segments attend to what the memory recalls for them.

Paper: Titans, arXiv 2501.00663.

For each segment s of C tokens, with M the memory after the segments before it:

    h = M(q(s)),   y = attention of s to [P; h; s],   M' = M trained on y
    o = norm(y) * sigmoid(norm(M'(q(y))))

P are learned persistent tokens, attention has rotary positions in `[P; h; s]`, and the memory's
queries, keys and values of y pass short convolutions, as in the paper. It attends causally over
the whole of `[P; h; s]`, where the recall of a segment's last token is in front of its first one.
Here token i sees P and h_j, s_j of j <= i only, so that it can be trained on every token and be
streamed; the last read, too, is with the memory as it is after the token's own write. With a number
of memory tokens, h answers as many learned tokens in place of the segment's, and all of s see it.

Distinctive: attention stays within segments, and what it says is what is remembered.

Limits: one segment is attention with persistent tokens and recalls of the memory's beginning.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.attention.positions import rotary as rotate
from jattn.checks import check_count
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.frames.recurrent_mixer import gated_heads
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.linear_maps import linear
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.memory.neural_memory import MemoryState, neural_memory
from jattn.mechanisms.memory.titans_memory import (
    MemoryOptions,
    memory_init,
    memory_inputs,
    memory_queries,
    memory_start,
    memory_token,
    read_memory,
    run_memory,
)
from jattn.mechanisms.memory.titans_parts import (
    broadcast_tokens,
    check_rotary,
    empty_past,
    filtered,
    filters_init,
    gate_by_memory,
    persistent_init,
    prefix_heads,
)
from jattn.mechanisms.mixer import Mixer, Parts


class SegmentState(NamedTuple):
    """State of MAC, of the size of a segment.

    Attributes:
        key: of the persistent tokens, the recalls and the tokens, `[b, n + recalls + C, h, d]`.
        value: likewise.
        memory: a `MemoryState` with leaves `[b, h, ...]`.
        recalled: M as it was before the segment, likewise.
        past: what the memory's filters still reach, `[b, width - 1, c]`, by name.
    """

    key: Float[Array, "b s h d"]
    value: Float[Array, "b s h e"]
    memory: MemoryState
    recalled: Any
    past: dict[str, Float[Array, "b before c"]]


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    segment: int = 16,
    persistent: int = 4,
    memory_tokens: int | None = None,
    rotary: bool = True,
    convolution: int = 4,
    depth: int = 2,
    expansion: int = 4,
    refresh: int | None = None,
    residual_norm: bool = True,
    forgetting: str = "head",
    momentum: bool = True,
    clip: float | None = None,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: heads h of attention and of memory, a divisor of m.
        causal: there is only a causal form.
        segment: tokens C a segment.
        persistent: number of persistent tokens.
        memory_tokens: number of tokens that the memory recalls for a segment; None: one for each
            token of it.
        rotary: whether attention has rotary positions; m / h is then even.
        convolution: tokens that the memory's filters see; 0 leaves them out.
        depth: as in `titans_memory`, and so are `expansion`, `residual_norm`, `forgetting`,
            `momentum` and `clip`.
        refresh: tokens that share one gradient point, a divisor of the segment; None: all of it.

    Returns:
        A `Mixer`; its state does not grow with the tokens.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, segment=3)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_count("segment", segment)
    check_count("persistent", persistent, least=0)
    check_count("convolution", convolution, least=0)
    check_rotary(rotary, dim, heads)
    if memory_tokens is not None:
        check_count("memory_tokens", memory_tokens)
    refresh = segment if refresh is None else refresh
    options = MemoryOptions(depth, expansion, refresh, residual_norm, forgetting, momentum, clip)
    options.check()
    if segment % refresh:
        raise ValueError(f"refresh: expected a divisor of segment={segment}, got {refresh}")
    recalls = segment if memory_tokens is None else memory_tokens
    first_own = persistent + recalls  # index of a segment's first token in `[P; h; s]`

    def init(key):
        attention, own, tokens, asking, filters = jax.random.split(key, 5)
        params = qkvo_init(attention, dim, heads) | {
            "memory": memory_init(own, dim, heads, options),
            "persistent": persistent_init(tokens, persistent, dim),
            "attention_scale": jnp.ones(dim),
            "memory_scale": jnp.ones(dim),
        }
        if memory_tokens is not None:
            params["recall"] = jax.random.normal(asking, (memory_tokens, dim))
        if convolution:
            params["filters"] = filters_init(filters, convolution, dim)
        return params

    def asking(params, x):
        """Queries of the recalls: of the tokens, or of as many learned ones."""
        tokens = x if memory_tokens is None else broadcast_tokens(params["recall"], x)
        return memory_queries(linear(tokens, params["memory"]["query"]), heads)

    def recalled(params, weights, query):
        """Keys and values of h, each head's read over its root mean square."""
        return prefix_heads(params, merge_heads(rms_norm(read_memory(weights, query))), heads)

    def near_attention(query, keys, values, index, mask):
        """Attention in `[P; h; s]` of the segment's tokens at an index."""
        if rotary:
            query, keys = rotate(query, first_own + index), rotate(keys)
        return attend(query, keys, values, mask=mask[:, None])

    def answer(params, told, far):
        """Reads of the memory, as a layer of its own gives them."""
        return project_output(params["memory"], gated_heads(params["memory"], told, far))

    def visible():
        """Marks what a token at each index of its segment sees of `[P; h; s]`."""
        index = jnp.arange(segment)
        own = index <= index[:, None]
        recall = own if memory_tokens is None else jnp.ones((segment, recalls), bool)
        return jnp.concatenate([jnp.ones((segment, persistent), bool), recall, own], 1)

    def apply(parts, params, given):
        x = given.x
        batch, length, _ = x.shape
        real = jnp.ones((batch, length), bool) if given.real is None else given.real
        first = prefix_heads(params, broadcast_tokens(params["persistent"], x), heads)
        arrays = split_qkv(parts.project(params, x, x), heads, heads)
        count = -(-length // segment)

        def split(x):
            x = jnp.pad(x, [(0, 0), (0, count * segment - length)] + [(0, 0)] * (x.ndim - 2))
            return jnp.moveaxis(x.reshape(batch, count, segment, *x.shape[2:]), 1, 0)

        def one(carry, inputs):
            weights, surprise, past = carry
            (query, key, value), real, x = inputs
            recall = recalled(params, weights, asking(params, x))
            keys, values = (
                jnp.concatenate(pair, 1) for pair in zip(first, recall, (key, value), strict=True)
            )
            always = jnp.ones((batch, persistent + (memory_tokens or 0)), bool)
            there = [always, real, real] if memory_tokens is None else [always, real]
            allowed = visible() & jnp.concatenate(there, 1)[:, None]
            near = near_attention(query, keys, values, jnp.arange(segment), allowed)
            told = merge_heads(near)
            maps, past = filtered(params, project_qkv(params["memory"], told, told), past)
            writes = memory_inputs(params["memory"], maps, told, heads, options, real)
            far, weights, surprise = run_memory(
                params["memory"]["memory"], writes, options, (weights, surprise)
            )
            merged = gate_by_memory(params, near, answer(params, told, far))
            return (weights, surprise, past), parts.output(params, merged, x)

        state = memory_start(params["memory"], batch)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        start = jax.tree.map(lambda x: x.astype(wide), (state.weights, state.momentum))
        step = jax.checkpoint(one, prevent_cse=False)
        inputs = jax.tree.map(split, (arrays, real, x))
        _, out = lax.scan(step, (*start, empty_past(params, batch, x.dtype)), inputs)
        return jnp.moveaxis(out, 0, 1).reshape(batch, -1, dim)[:, :length]

    def init_state(parts, params, batch_size, max_length, dtype):
        tokens = params["persistent"].astype(dtype)
        first = prefix_heads(params, jnp.broadcast_to(tokens, (batch_size, *tokens.shape)), heads)
        grow = lambda x: jnp.pad(x, ((0, 0), (0, recalls + segment), (0, 0), (0, 0)))
        memory = memory_start(params["memory"], batch_size)
        past = empty_past(params, batch_size, dtype)
        return SegmentState(grow(first[0]), grow(first[1]), memory, memory.weights, past)

    def step(parts, params, x, state):
        x = x[:, None]
        index = state.memory.count.reshape(-1)[0] % segment
        before = jax.tree.map(
            lambda new, old: jnp.where(index == 0, new, old), state.memory.weights, state.recalled
        )
        recall = recalled(params, before, asking(params, x))
        query, key, value = split_qkv(parts.project(params, x, x), heads, heads)

        def put(buffer, recall, own):
            at = persistent + (index if memory_tokens is None else 0)
            for start, tokens in ((at, recall), (first_own + index, own)):
                tokens = tokens.astype(buffer.dtype)
                buffer = lax.dynamic_update_slice_in_dim(buffer, tokens, start, axis=1)
            return buffer

        keys = put(state.key, recall[0], key)
        values = put(state.value, recall[1], value)
        allowed = lax.dynamic_slice_in_dim(visible(), index, 1, axis=0)
        near = near_attention(
            query, keys.astype(x.dtype), values.astype(x.dtype), index[None], allowed[None]
        )
        told = merge_heads(near)
        maps, past = filtered(params, project_qkv(params["memory"], told, told), state.past)
        memory, far = memory_token(params["memory"], maps, told, state.memory, heads, options)
        merged = gate_by_memory(params, near, answer(params, told, far))
        y = parts.output(params, merged, x)[:, 0]
        return y, SegmentState(keys, values, memory, before, past)

    return framed_parts(
        "titans_mac",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state,
        step=step,
        takes="row",
        causal=True,
    )


MECHANISM = Mechanism(
    name="titans_mac",
    title="Titans: memory as a context",
    arxiv="2501.00663",
    family="memory",
    equation="h = M(q(s)),  y = attend(s, [P; h; s]),  o = norm(y) * sigmoid(norm(M'(q(y))))",
    core=neural_memory,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="n*w",
    documents="never",
    parameters=("attention_scale", "filters", "memory", "memory_scale", "persistent"),
)
