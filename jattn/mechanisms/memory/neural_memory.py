"""Titans' memory: a network that learns at test time, with momentum and forgetting.

Paper: Titans, arXiv 2501.00663.

    S_t = eta_t S_{t-1} - theta_t grad |M_{t-1}(k_t) - v_t|^2
    M_t = (1 - a_t) M_{t-1} + S_t,        y_t = M_t(q_t)

`neural_memory` computes it in blocks, `memory_step` token by token. Where the network is that of
`jattn.mechanisms.memory.networks`, a block needs no weights a token: `network_memory`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice, check_shape
from jattn.mechanisms.memory.inner_loop import (
    BLOCK,
    decayed_sums,
    for_leaves,
    over_blocks,
    per_head,
    times,
    token_gradients,
)
from jattn.mechanisms.memory.network_memory import network_memory
from jattn.mechanisms.memory.networks import network

READS = ("inclusive", "completed")
Network = Callable[[Any, Array], Array]


def squared_slope(error: Array, inputs: Any = None) -> Array:
    """Derivative of |e|^2."""
    return 2 * error


class MemoryState(NamedTuple):
    """A memory between two tokens; its size does not grow with them.

    Attributes:
        weights: M, after the last whole update.
        momentum: S, likewise.
        pending: sum of -theta times gradient of the tokens of an update that is not whole yet.
        anchor: the weights at which gradients are taken.
        count: how many tokens.
    """

    weights: Any
    momentum: Any
    pending: Any
    anchor: Any
    count: Int[Array, ""]


def start(params0: Any) -> MemoryState:
    """The state of a memory, or of a tree of them, before the first token."""
    zeros = jax.tree.map(jnp.zeros_like, params0)
    return MemoryState(params0, zeros, zeros, params0, jnp.zeros((), jnp.int32))


def _pick(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def memory_step(
    state: MemoryState,
    query: Float[Array, " d"],
    key: Float[Array, " d"],
    value: Float[Array, " e"],
    step_size: Any,
    forget: Any,
    momentum: Float[Array, ""],
    *,
    apply_fn: Network,
    chunk: int = 1,
    refresh: int | None = 1,
    read: str = "inclusive",
    clip: float | None = None,
) -> tuple[MemoryState, Float[Array, " e"]]:
    """One token of one memory: the definition of `neural_memory`, and its streaming form.

    Args: as `neural_memory`, of one token.

    Returns:
        The next state, and what is read.

    Example:
        >>> state = start(jnp.zeros((2, 2)))
        >>> e, half, zero = jnp.array([1.0, 0.0]), jnp.array(0.5), jnp.array(0.0)
        >>> product = lambda w, x: x @ w
        >>> memory_step(state, e, e, 3 * e, half, zero, zero, apply_fn=product)[1].tolist()
        [3.0, 0.0]
    """
    gradient = token_gradients(
        apply_fn, state.anchor, key[None], value[None], squared_slope, None, clip
    )
    of_leaves = lambda rates: for_leaves(rates, state.weights)
    push = lambda rate, x, g: x - rate * g[0]
    pending = jax.tree.map(push, of_leaves(step_size), state.pending, gradient)
    surprise = jax.tree.map(lambda s, x: momentum * s + x, state.momentum, pending)
    keep = lambda a, w, s: (1 - a) * w + s
    moved = jax.tree.map(keep, of_leaves(forget), state.weights, surprise)
    count = state.count + 1
    whole = count % chunk == 0
    weights = _pick(whole, moved, state.weights)
    out = apply_fn(moved if read == "inclusive" else weights, query)
    anchor = state.anchor if refresh is None else _pick(count % refresh == 0, weights, state.anchor)
    return MemoryState(
        weights,
        _pick(whole, surprise, state.momentum),
        _pick(whole, jax.tree.map(jnp.zeros_like, pending), pending),
        anchor,
        count,
    ), out


def neural_memory(
    params0: Any,
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    step_size: Any,
    forget: Any,
    momentum: Float[Array, "b n h"],
    *,
    apply_fn: Network,
    chunk: int = 1,
    refresh: int | None = 1,
    read: str = "inclusive",
    clip: float | None = None,
    initial: tuple[Any, Any] | None = None,
) -> tuple[Float[Array, "b t h e"], Any, Any]:
    """A memory that learns while it reads, any network, many tokens at a time.

    With updates of `chunk` tokens each, numbered u, and M° the weights at the last multiple of
    `refresh` tokens,

        S_u = eta_u S_{u-1} - sum_{t in u} theta_t grad |M°(k_t) - v_t|^2
        M_u = (1 - a_u) M_{u-1} + S_u

    and token t reads with what M is if its update ends with it (`"inclusive"`), or with M of the
    updates that are whole, its own if it is the last of it (`"completed"`). `chunk=1, refresh=1`
    is the exact recurrence; a larger `refresh` is the paper's parallel form.

    Args:
        params0: M_0, leaves `[h, ...]`: a network for each head.
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`; of unit norm, for the step sizes to mean the same at all tokens.
        value: `[b, t, h, e]`.
        step_size: theta >= 0, `[b, t, h]`, or a tree of such, one for each leaf of params0. One
            half, for keys of unit norm and a linear memory, stores the value whole.
        forget: a in [0, 1], one an update, `[b, n, h]`, n = t / chunk rounded up; or a tree of
            such for the leaves of params0, each `[b, n, h]` or `[b, n, h, c]` for the channels of
            the leaf's last axis.
        momentum: eta in [0, 1), `[b, n, h]`.
        apply_fn: `(params, x [d]) -> y [e]`.
        chunk: tokens an update.
        refresh: tokens that share one gradient point, a multiple of chunk; None: the gradient
            stays at params0.
        read: `"inclusive"` or `"completed"`.
        clip: the largest norm of a token's gradient, over all leaves together; None: there is none.
        initial: M and S to go on from, leaves `[b, h, ...]`, after tokens whose number is a
            multiple of chunk and refresh; default params0 and zeros.

    Returns:
        Reads `[b, t, h, e]` in the query's dtype, and M and S after the last whole update, leaves
        `[b, h, ...]`, float32 at least.

    Raises:
        ValueError: shapes or numbers that do not fit.

    Reference:
        arXiv 2501.00663, section 3.

    Example:
        >>> from jattn.mechanisms.memory.networks import network, network_init
        >>> params0 = jax.vmap(lambda k: network_init(k, 4))(jax.random.split(jax.random.key(0), 2))
        >>> x, rate = jax.random.normal(jax.random.key(1), (1, 9, 2, 4)), jnp.full((1, 9, 2), 0.1)
        >>> out, weights, surprise = neural_memory(
        ...     params0, x, x, x, rate, rate, rate, apply_fn=network, refresh=4)
        >>> out.shape, weights["gain"].shape
        ((1, 9, 2, 4), (1, 2, 4))
    """
    sizes = check_inputs(query, key, value)
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    if refresh is not None and (refresh < 1 or refresh % chunk):
        raise ValueError(f"refresh: expected None or a multiple of chunk={chunk}, got {refresh}")
    check_choice("read", read, READS)
    updates = {**sizes, "n": -(-sizes["t"] // chunk)}
    step_size, forget = (
        _rates(name, rates, params0)
        for name, rates in (("step_size", step_size), ("forget", forget))
    )
    for rate in jax.tree.leaves(step_size):
        check_shape("step_size", rate, "b t h", sizes)
    for rate, leaf in zip(*map(jax.tree.leaves, (forget, params0)), strict=True):
        axes = "b n h c" if rate.ndim == 4 else "b n h"
        check_shape("forget", rate, axes, {**updates, "c": leaf.shape[-1]})
    check_shape("momentum", momentum, "b n h", updates)
    dtype, arrays = widen(query, key, value, step_size, forget, momentum)
    params0, (weights, surprise) = beginning(params0, initial, sizes["b"], arrays[0].dtype)

    if apply_fn is network and chunk == 1 and refresh is not None:
        query, key, value, step_size, forget, momentum = arrays
        out, weights, surprise = network_memory(
            weights, surprise, query, key, value, step_size, forget, momentum, None,
            refresh=refresh, slope=squared_slope, clip=clip,
        )  # fmt: skip
        return out.astype(dtype), weights, surprise

    size = (BLOCK // chunk or 1) * chunk
    if refresh is not None:
        size = chunk * max(n for n in range(1, size // chunk + 1) if refresh % (n * chunk) == 0)

    def sequence(params0, weights, surprise, query, key, value, step_size, forget, momentum):
        fresh = jnp.zeros(sizes["t"], bool)
        if refresh is not None:
            fresh = jnp.arange(sizes["t"]) % refresh == 0
        repeat = lambda x: jnp.repeat(x, chunk, 0, total_repeat_length=updates["n"] * chunk)
        tokens = (query, key, value, step_size)
        rates = jax.tree.map(lambda x: repeat(x)[: sizes["t"]], (forget, momentum))

        def block(carry, inputs):
            weights, surprise, anchor = carry
            (query, key, value, step_size), (forget, momentum), fresh = inputs
            anchor = weights if size == refresh else _pick(fresh[0], weights, anchor)
            gradients = token_gradients(apply_fn, anchor, key, value, squared_slope, None, clip)
            pushes = jax.tree.map(lambda rate, g: -times(rate, g), step_size, gradients)
            keep = jax.tree.map(lambda a: 1 - a, forget)
            weights, surprise, seen = _advance(
                weights, surprise, pushes, keep, momentum, chunk, read
            )
            return (weights, surprise, anchor), jax.vmap(apply_fn)(seen, query)

        (weights, surprise, _), out = over_blocks(
            block, (weights, surprise, params0), (tokens, rates, fresh), size, sizes["t"]
        )
        return (weights, surprise), out

    (weights, surprise), out = per_head(sequence, shared=(0, 1, 2))(
        params0, weights, surprise, *arrays
    )
    return out.astype(dtype), weights, surprise


def _advance(weights, surprise, pushes, keep, momentum, chunk, read):
    """M and S after a block's updates, and the weights that each token reads with."""
    tokens = len(momentum)
    keep, momentum = jax.tree.map(lambda x: x[::chunk], (keep, momentum))
    whole = tokens // chunk  # a last update may be short of tokens, and is then not carried out
    if chunk == 1:
        groups = pushes
    else:
        spare = -tokens % chunk
        pad = lambda x: jnp.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1))
        grouped = jax.tree.map(lambda x: pad(x).reshape(-1, chunk, *x.shape[1:]), pushes)
        groups = jax.tree.map(lambda x: x.sum(1), grouped)
    momenta = decayed_sums(momentum, groups, surprise)
    stages = decayed_sums(keep, momenta, weights)
    prepend = lambda one, many: jnp.concatenate([one[None], many])
    momenta = jax.tree.map(prepend, surprise, momenta)
    stages = jax.tree.map(prepend, weights, stages)
    last = tuple(jax.tree.map(lambda x: x[whole], tree) for tree in (stages, momenta))
    if chunk == 1:
        seen = jax.tree.map(lambda x: x[1:], stages)
    elif read == "completed":
        index = (jnp.arange(tokens) + 1) // chunk
        seen = jax.tree.map(lambda x: x[index], stages)
    else:

        def partial(keep, stage, moment, pushed):
            sums = jnp.cumsum(pushed, 1)
            entering = times(keep, stage[:-1]) + times(momentum, moment[:-1])
            return (entering[:, None] + sums).reshape(-1, *stage.shape[1:])[:tokens]

        seen = jax.tree.map(partial, keep, stages, momenta, grouped)
    return *last, seen


def _rates(name: str, rates: Any, params0: Any) -> Any:
    """A tree of rates like that of the parameters."""
    rates = for_leaves(rates, params0)
    if jax.tree.structure(rates) != jax.tree.structure(params0):
        raise ValueError(
            f"{name}: expected an array, or a tree like params0, "
            f"{jax.tree.structure(params0)}; got {jax.tree.structure(rates)}"
        )
    return rates


def check_inputs(query: Array, key: Array, value: Array) -> dict[str, int]:
    """Checks what a memory is given a token, and returns the sizes of axes.

    Raises:
        ValueError: a shape that does not fit.
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b t h d", sizes)
    check_shape("value", value, "b t h e", sizes)
    return sizes


def widen(*arrays: Any) -> tuple[Any, list[Any]]:
    """The first one's dtype, and all of them, which may be trees, in float32 at least."""
    wide = jnp.promote_types(arrays[0].dtype, jnp.float32)
    return arrays[0].dtype, [jax.tree.map(lambda x: x.astype(wide), tree) for tree in arrays]


def beginning(params0: Any, initial: Any, batch: int, dtype: Any) -> tuple[Any, Any]:
    """params0, and the pair to start from; leaves `[b, h, ...]`."""
    broadcast = lambda x: jnp.broadcast_to(x.astype(dtype), (batch, *x.shape))
    params0 = jax.tree.map(broadcast, params0)
    if initial is None:
        initial = params0, jax.tree.map(jnp.zeros_like, params0)
    return params0, jax.tree.map(lambda x: x.astype(dtype), initial)
