"""Titans with memory as a gate (MAG): attention looks close by, the memory says what counts.

Paper: Titans, arXiv 2501.00663.

    o = norm(SlidingWindow([P; x])) * sigmoid(norm(M([P; x])))

with learned persistent tokens P in front, which every token sees, learned scales of both norms,
and M the layer of `titans_memory`.

Distinctive: two branches over the same tokens, one exact and short, one lossy and long.

Limits: a gate that is always open leaves the norm of sliding-window attention. There are no
positions: order is known by the window, the memory, and `short_convolution` where it is used.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jattn.mechanisms import projections as p
from jattn.mechanisms.memory import titans_memory
from jattn.mechanisms.memory.titans_parts import (
    gated_output,
    persistent_init,
    prefix_heads,
    prepend,
    read_prefix,
    spread,
)
from jattn.mechanisms.memory.window_attention import (
    WindowCache,
    check_window,
    empty_cache,
    window_attention,
    window_step,
)
from jattn.mechanisms.mixer import Mechanism, Mixer


class GatedState(NamedTuple):
    """What the two branches remember.

    Attributes:
        cache: of the window.
        memory: a `MemoryState`.
    """

    cache: WindowCache
    memory: Any


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    window: int = 32,
    persistent: int = 4,
    depth: int = 2,
    expansion: int = 2,
    refresh: int = 16,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: heads h of attention and of memory, a divisor of m.
        causal: there is only a causal form.
        window: tokens that attention sees, the current one among them.
        persistent: number of persistent tokens, at least 1.
        depth: as in `titans_memory`, and so are `expansion` and `refresh`.

    Returns:
        A `Mixer`; its state does not grow with the tokens.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, window=3)
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    memory = titans_memory.make(
        dim=dim, heads=heads, depth=depth, expansion=expansion, refresh=refresh
    )
    check_window(window)

    def init(key):
        attention, own, tokens = jax.random.split(key, 3)
        return p.qkvo_init(attention, dim, heads) | {
            "memory": memory.init(own),
            "persistent": persistent_init(tokens, persistent, dim),
            "attention_scale": jnp.ones(dim),
            "memory_scale": jnp.ones(dim),
        }

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("titans_mag", context)
        p.check_tokens(dim, x, None, positions)
        real = p.padding(mask, *x.shape[:2])
        first = spread(params["persistent"], x)
        near = window_attention(
            *p.qkv(params, x, x, heads, heads), *prefix_heads(params, first, heads),
            window=window, mask=real,
        )  # fmt: skip
        both, real = prepend(first, x, real)
        far = memory.apply(params["memory"], both, mask=real)[:, persistent:]
        return gated_output(params, near, far)

    def init_state(params, batch_size, max_length):
        first = params["persistent"]
        first = jnp.broadcast_to(first, (batch_size, *first.shape))
        _, state = read_prefix(memory, params["memory"], first)
        return GatedState(empty_cache(*prefix_heads(params, first, heads), window), state)

    def step(params, x, state):
        assert memory.step is not None
        arrays = (p.split_heads(p.linear(x, params[n]), heads) for n in ("query", "key", "value"))
        cache, near = window_step(state.cache, *arrays, window=window)
        far, after = memory.step(params["memory"], x, state.memory)
        return gated_output(params, near, far), GatedState(cache, after)

    return Mixer(init, apply, init_state, step)


MECHANISM = Mechanism(
    name="titans_mag",
    title="Titans: memory as a gate",
    arxiv="2501.00663",
    family="memory",
    equation="o = norm(SlidingWindow([P; x])) * sigmoid(norm(M([P; x])))",
    core=window_attention,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="n*w",
    parameters=("attention_scale", "memory", "memory_scale", "persistent"),
)
