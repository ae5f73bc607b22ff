"""Titans with memory as a layer (MAL): attention over what the memory makes of the tokens.

Paper: Titans, arXiv 2501.00663.

    o = SlidingWindow(M([P; x]))

with learned persistent tokens P in front, whose images every token sees, and M the layer of
`titans_memory`.

Distinctive: the memory compresses first, and attention sees nothing that it has not let through.

Limits: a window of one token without persistent ones would be the memory alone, projected.
"""

import jax
import jax.numpy as jnp

from jattn.mechanisms import projections as p
from jattn.mechanisms.memory import titans_memory
from jattn.mechanisms.memory.titans_mag import GatedState
from jattn.mechanisms.memory.titans_parts import (
    persistent_init,
    prefix_heads,
    prepend,
    read_prefix,
    spread,
)
from jattn.mechanisms.memory.window_attention import (
    check_window,
    empty_cache,
    window_attention,
    window_step,
)
from jattn.mechanisms.mixer import Mechanism, Mixer


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
        }

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("titans_mal", context)
        p.check_tokens(dim, x, None, positions)
        real = p.padding(mask, *x.shape[:2])
        both, whole = prepend(spread(params["persistent"], x), x, real)
        images = memory.apply(params["memory"], both, mask=whole)
        first, rest = images[:, :persistent], images[:, persistent:]
        out = window_attention(
            *p.qkv(params, rest, rest, heads, heads), *prefix_heads(params, first, heads),
            window=window, mask=real,
        )  # fmt: skip
        return p.output(params, out)

    def init_state(params, batch_size, max_length):
        first = params["persistent"]
        first = jnp.broadcast_to(first, (batch_size, *first.shape))
        images, state = read_prefix(memory, params["memory"], first)
        return GatedState(empty_cache(*prefix_heads(params, images, heads), window), state)

    def step(params, x, state):
        assert memory.step is not None
        image, after = memory.step(params["memory"], x, state.memory)
        arrays = (
            p.split_heads(p.linear(image, params[n]), heads) for n in ("query", "key", "value")
        )
        cache, out = window_step(state.cache, *arrays, window=window)
        return p.output(params, out), GatedState(cache, after)

    return Mixer(init, apply, init_state, step)


MECHANISM = Mechanism(
    name="titans_mal",
    title="Titans: memory as a layer",
    arxiv="2501.00663",
    family="memory",
    equation="o = SlidingWindow(M([P; x]))",
    core=window_attention,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="n*w",
    parameters=("memory", "persistent"),
)
