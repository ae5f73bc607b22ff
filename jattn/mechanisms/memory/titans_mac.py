"""Titans with memory as a context (MAC): segments attend to what the memory recalls for them.

Paper: Titans, arXiv 2501.00663.

For each segment s of C tokens, with M the memory after the segments before it:

    h = M(q(s)),   y = attention of s to [P; h; s],   M' = M trained on y
    o = norm(y) * sigmoid(norm(M'(q(y))))

P are learned persistent tokens. The paper attends causally over the whole of `[P; h; s]`, where
the recall of a segment's last token is in front of its first one. Here token i sees P and
h_j, s_j of j <= i only, so that it can be trained on every token and be streamed; the last read,
too, is with the memory as it is after the token's own write.

Distinctive: attention stays within segments, and what it says is what is remembered.

Limits: one segment is attention with persistent tokens and recalls of the memory's beginning.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.mechanisms import projections as p
from jattn.mechanisms.linear.recurrent_mixer import head_output
from jattn.mechanisms.memory.networks import network
from jattn.mechanisms.memory.neural_memory import MemoryState, neural_memory
from jattn.mechanisms.memory.titans_memory import (
    memory_init,
    memory_inputs,
    memory_queries,
    memory_start,
    memory_token,
    read_memory,
)
from jattn.mechanisms.memory.titans_parts import (
    gated_output,
    persistent_init,
    prefix_heads,
    spread,
)
from jattn.mechanisms.mixer import Mechanism, Mixer


class SegmentState(NamedTuple):
    """What MAC remembers: its size is that of a segment.

    Attributes:
        key: of the persistent tokens, the recalls and the tokens, `[b, n + 2 C, h, d]`.
        value: likewise.
        memory: a `MemoryState` with leaves `[b, h, ...]`.
    """

    key: Float[Array, "b s h d"]
    value: Float[Array, "b s h e"]
    memory: MemoryState


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    segment: int = 16,
    persistent: int = 4,
    depth: int = 2,
    expansion: int = 2,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: heads h of attention and of memory, a divisor of m.
        causal: there is only a causal form.
        segment: tokens C a segment, which share one gradient point, too.
        persistent: number of persistent tokens, at least 1.
        depth: matrices of the memory's network; from 2 on it has a residual and a norm.
        expansion: its inner dimensions over m / h.

    Returns:
        A `Mixer`; its state does not grow with the tokens.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, segment=3)
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    p.check_heads(dim, heads)
    if segment < 1:
        raise ValueError(f"segment: expected at least 1, got {segment}")

    def init(key):
        attention, own, tokens = jax.random.split(key, 3)
        return p.qkvo_init(attention, dim, heads) | {
            "memory": memory_init(own, dim, heads, depth=depth, expansion=expansion),
            "persistent": persistent_init(tokens, persistent, dim),
            "attention_scale": jnp.ones(dim),
            "memory_scale": jnp.ones(dim),
        }

    def recalled(weights, query):
        """h as tokens: each head's read over its root mean square."""
        return p.merge_heads(p.rms_norm(read_memory(weights, query)))

    def visible():
        """Whether a token at each place of its segment sees `[P; h; s]`."""
        place = jnp.arange(segment)
        own = place <= place[:, None]
        return jnp.concatenate([jnp.ones((segment, persistent), bool), own, own], 1)

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("titans_mac", context)
        p.check_tokens(dim, x, None, positions)
        batch, length, _ = x.shape
        real = p.padding(mask, batch, length)
        real = jnp.ones((batch, length), bool) if real is None else real
        first = prefix_heads(params, spread(params["persistent"], x), heads)
        arrays = (memory_queries(params["memory"], x, heads), *p.qkv(params, x, x, heads, heads))
        count = -(-length // segment)

        def split(x):
            x = jnp.pad(x, [(0, 0), (0, count * segment - length)] + [(0, 0)] * (x.ndim - 2))
            return jnp.moveaxis(x.reshape(batch, count, segment, *x.shape[2:]), 1, 0)

        def one(carry, inputs):
            (asking, query, key, value), real = inputs
            recalls = prefix_heads(params, recalled(carry[0], asking), heads)
            keys, values = (
                jnp.concatenate([prefix, recall, own], 1)
                for prefix, recall, own in zip(first, recalls, (key, value), strict=True)
            )
            seen = jnp.concatenate([jnp.ones((batch, persistent), bool), real, real], 1)
            allowed = visible() & seen[:, None]
            near = attend(query, keys, values, mask=allowed[:, None])
            writes = memory_inputs(params["memory"], p.merge_heads(near), heads, real)
            far, *carry = neural_memory(
                params["memory"]["memory"], *writes, apply_fn=network, refresh=segment,
                initial=tuple(carry),
            )  # fmt: skip
            far = head_output(params["memory"], p.merge_heads(near), far)
            return tuple(carry), gated_output(params, near, far)

        state = memory_start(params["memory"], batch)
        step = jax.checkpoint(one, prevent_cse=False)
        inputs = jax.tree.map(split, (arrays, real))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        start = jax.tree.map(lambda x: x.astype(wide), (state.weights, state.momentum))
        _, out = lax.scan(step, start, inputs)
        return jnp.moveaxis(out, 0, 1).reshape(batch, -1, dim)[:, :length]

    def init_state(params, batch_size, max_length):
        tokens = params["persistent"]
        first = prefix_heads(params, jnp.broadcast_to(tokens, (batch_size, *tokens.shape)), heads)
        grow = lambda x: jnp.pad(x, ((0, 0), (0, 2 * segment), (0, 0), (0, 0)))
        return SegmentState(
            grow(first[0]), grow(first[1]), memory_start(params["memory"], batch_size)
        )

    def step(params, x, state):
        place = state.memory.count.reshape(-1)[0] % segment
        asking = memory_queries(params["memory"], x[:, None], heads)
        recalls = prefix_heads(params, recalled(state.memory.anchor, asking), heads)
        x_heads = {
            n: p.split_heads(p.linear(x, params[n]), heads)[:, None]
            for n in ("query", "key", "value")
        }

        def put(buffer, recall, own):
            for offset, token in ((0, recall), (segment, own)):
                buffer = lax.dynamic_update_slice_in_dim(
                    buffer, token.astype(buffer.dtype), persistent + offset + place, axis=1
                )
            return buffer

        keys = put(state.key, recalls[0], x_heads["key"])
        values = put(state.value, recalls[1], x_heads["value"])
        allowed = lax.dynamic_slice_in_dim(visible(), place, 1, axis=0)
        near = attend(
            x_heads["query"], keys.astype(x.dtype), values.astype(x.dtype),
            mask=allowed[None, None],
        )  # fmt: skip
        memory, far = memory_token(
            params["memory"], p.merge_heads(near)[:, 0], state.memory, heads, segment
        )
        far = head_output(params["memory"], p.merge_heads(near), far[:, None])
        return gated_output(params, near, far)[:, 0], SegmentState(keys, values, memory)

    return Mixer(init, apply, init_state, step)


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
    parameters=("attention_scale", "memory", "memory_scale", "persistent"),
)
