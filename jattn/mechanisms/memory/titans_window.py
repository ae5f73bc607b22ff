"""Titans with memory as a gate (MAG) or as a layer (MAL), beside sliding-window attention.

Paper: Titans, arXiv 2501.00663.

    MAG    o = norm(SlidingWindow([P; x])) * sigmoid(norm(M([P; x])))
    MAL    o = SlidingWindow(M([P; x]))

with learned persistent tokens P in front, which every token sees (MAL: their images), learned
scales of both norms, and M the layer of `titans_memory` with short convolutions. The window has
rotary positions.

Distinctive: MAG has two branches over the same tokens, one exact and short, one lossy and long. In
MAL the memory compresses first, and attention sees nothing that it has not let through.

Limits: a gate of MAG that is always open leaves the norm of sliding-window attention; a window of
one token without persistent ones would make MAL the memory alone, projected.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jattn.checks import check_count
from jattn.mechanisms.combinators.short_convolution import short_convolution
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.memory import titans_memory
from jattn.mechanisms.memory.titans_parts import (
    broadcast_tokens,
    check_rotary,
    gate_by_memory,
    persistent_init,
    prefix_heads,
    prepend,
    read_prefix,
)
from jattn.mechanisms.memory.window_attention import (
    WindowCache,
    empty_cache,
    window_attention,
    window_step,
)
from jattn.mechanisms.mixer import Mixer, Parts


class WindowState(NamedTuple):
    """State of attention and of the memory.

    Attributes:
        cache: of the window.
        memory: a `MemoryState`.
    """

    cache: WindowCache
    memory: Any


def _mixer(
    name: str,
    *,
    as_gate: bool,
    dim: int,
    heads: int,
    window: int,
    persistent: int,
    rotary: bool,
    convolution: int,
    **memory_options: Any,
) -> Mixer:
    """MAG or MAL: the memory reads tokens, and attention those or what the memory makes of them.

    Args:
        name: the mechanism's name, for messages.
        as_gate: MAG, else MAL.
        dim, heads, window, persistent, rotary, convolution, memory_options: as in the makers.
    """
    memory = titans_memory.make(dim=dim, heads=heads, **memory_options)
    check_count("window", window)
    check_count("persistent", persistent, least=0)
    check_rotary(rotary, dim, heads)
    check_count("convolution", convolution, least=0)
    if convolution:
        memory = short_convolution(memory, width=convolution)

    def init(key):
        attention, own, tokens = jax.random.split(key, 3)
        params = qkvo_init(attention, dim, heads) | {
            "memory": memory.init(own),
            "persistent": persistent_init(tokens, persistent, dim),
        }
        scales = {name: jnp.ones(dim) for name in ("attention_scale", "memory_scale")}
        return params | (scales if as_gate else {})

    def finish(parts, params, near, far, x):
        merged = gate_by_memory(params, near, far) if as_gate else merge_heads(near)
        return parts.output(params, merged, x)

    def apply(parts, params, given):
        x, real = given.x, given.real
        first = broadcast_tokens(params["persistent"], x)
        both, mask = prepend(first, x, real)
        images = memory.apply(params["memory"], both, mask=mask)
        far = images[:, persistent:]
        prefix, tokens = (first, x) if as_gate else (images[:, :persistent], far)
        near = window_attention(
            *split_qkv(parts.project(params, tokens, tokens), heads, heads),
            *prefix_heads(params, prefix, heads),
            window=window, mask=real, rotate=rotary,
        )  # fmt: skip
        return finish(parts, params, near, far, x)

    def init_state(parts, params, batch_size, max_length, dtype):
        first = params["persistent"].astype(dtype)
        first = jnp.broadcast_to(first, (batch_size, *first.shape))
        images, state = read_prefix(memory, params["memory"], first)
        prefix = prefix_heads(params, first if as_gate else images, heads)
        return WindowState(empty_cache(*prefix, window), state)

    def step(parts, params, x, state):
        assert memory.step is not None
        far, after = memory.step(params["memory"], x, state.memory)
        x, far = x[:, None], far[:, None]
        tokens = x if as_gate else far
        arrays = split_qkv(parts.project(params, tokens, tokens), heads, heads)
        token = (array[:, 0] for array in arrays)
        cache, near = window_step(state.cache, *token, window=window, rotate=rotary)
        y = finish(parts, params, near[:, None], far, x)
        return y[:, 0], WindowState(cache, after)

    return framed_parts(
        name,
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state,
        step=step,
        takes="row",
        causal=True,
    )


def make_gate(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    window: int = 32,
    persistent: int = 4,
    rotary: bool = True,
    convolution: int = 4,
    depth: int = 2,
    expansion: int = 4,
    refresh: int = 16,
    residual_norm: bool = True,
    forgetting: str = "head",
    momentum: bool = True,
    clip: float | None = None,
) -> Mixer:
    """Makes the mixer with memory as a gate.

    Args:
        dim: model dimension m.
        heads: heads h of attention and of memory, a divisor of m.
        causal: there is only a causal form.
        window: tokens that attention sees, the current one among them.
        persistent: number of persistent tokens.
        rotary: whether the window has rotary positions; m / h is then even.
        convolution: tokens that the memory's filters see; 0 leaves them out.
        depth: as in `titans_memory`, and so are `expansion`, `refresh`, `residual_norm`,
            `forgetting`, `momentum` and `clip`.

    Returns:
        A `Mixer`; its state does not grow with the tokens.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make_gate(dim=8, heads=2, window=3)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    return _mixer(
        "titans_mag", as_gate=True,
        dim=dim, heads=heads, window=window, persistent=persistent, rotary=rotary,
        convolution=convolution, depth=depth, expansion=expansion, refresh=refresh,
        residual_norm=residual_norm, forgetting=forgetting, momentum=momentum, clip=clip,
    )  # fmt: skip


def make_layer(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    window: int = 32,
    persistent: int = 4,
    rotary: bool = True,
    convolution: int = 4,
    depth: int = 2,
    expansion: int = 4,
    refresh: int = 16,
    residual_norm: bool = True,
    forgetting: str = "head",
    momentum: bool = True,
    clip: float | None = None,
) -> Mixer:
    """Makes the mixer with memory as a layer.

    Args:
        dim: model dimension m.
        heads: heads h of attention and of memory, a divisor of m.
        causal: there is only a causal form.
        window: tokens that attention sees, the current one among them.
        persistent: number of persistent tokens.
        rotary: whether the window has rotary positions; m / h is then even.
        convolution: tokens that the memory's filters see; 0 leaves them out.
        depth: as in `titans_memory`, and so are `expansion`, `refresh`, `residual_norm`,
            `forgetting`, `momentum` and `clip`.

    Returns:
        A `Mixer`; its state does not grow with the tokens.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make_layer(dim=8, heads=2, window=3)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    return _mixer(
        "titans_mal", as_gate=False,
        dim=dim, heads=heads, window=window, persistent=persistent, rotary=rotary,
        convolution=convolution, depth=depth, expansion=expansion, refresh=refresh,
        residual_norm=residual_norm, forgetting=forgetting, momentum=momentum, clip=clip,
    )  # fmt: skip


MAG = Mechanism(
    name="titans_mag",
    title="Titans: memory as a gate",
    arxiv="2501.00663",
    family="memory",
    equation="o = norm(SlidingWindow([P; x])) * sigmoid(norm(M([P; x])))",
    core=window_attention,
    make=make_gate,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    documents="never",
    cost="n*w",
    parameters=("attention_scale", "memory", "memory_scale", "persistent"),
)


MAL = Mechanism(
    name="titans_mal",
    title="Titans: memory as a layer",
    arxiv="2501.00663",
    family="memory",
    equation="o = SlidingWindow(M([P; x]))",
    core=window_attention,
    make=make_layer,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    documents="never",
    cost="n*w",
    parameters=("memory", "persistent"),
)
