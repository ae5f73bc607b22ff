"""Miras: test-time memories by a rule, in chunks and token by token.

Paper: It's All Connected, arXiv 2504.13173.

    A_t = alpha_t A_{t-1} - eta_t grad loss(M(W_{t-1}, k_t) - v_t)
    W_t = f(A_t),     y_t = M(W_t, q_t)

The loss says which errors count ("attentional bias"), f and how A moves say how the past is kept
("retention"): together a `Rule`. `miras_scan` computes it in chunks, `miras_step` token by token.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice, check_shape
from jattn.mechanisms.memory.inner_loop import (
    decayed_sums,
    for_channels,
    for_leaves,
    over_blocks,
    per_head,
    times,
    token_gradients,
)
from jattn.mechanisms.memory.miras_rule import (
    LOSSES,
    PLAIN,
    RETENTIONS,
    Rule,
    slope,
    soft,
    softmax_axes,
    state_of,
    weights_of,
)
from jattn.mechanisms.memory.network_memory import network_memory
from jattn.mechanisms.memory.networks import network
from jattn.recurrence import recur


class MirasState(NamedTuple):
    """A memory between two tokens; its size does not grow with them.

    Attributes:
        state: A, or with momentum the pair of A and S.
        anchor: A at the last chunk's end, at whose weights gradients are taken.
        count: how many tokens.
    """

    state: Any
    anchor: Any
    count: Int[Array, ""]


def start(state: Any, momentum: bool = False) -> MirasState:
    """The state of a memory before the first token, from A_0."""
    first = (state, jax.tree.map(jnp.zeros_like, state)) if momentum else state
    return MirasState(first, state, jnp.zeros((), jnp.int32))


class Rates(NamedTuple):
    """What moves a memory at each token; leaves `[t, ...]`, with axes before that for many.

    Attributes:
        alpha: what is kept, a number, or one for each channel `[e]`.
        eta: step sizes of the error's channels, `[1]` or `[e]`.
        delta: thresholds of Huber's and the robust loss, likewise.
        momentum: what is left of earlier gradients; None: the learner is plain descent.
        scale: factors of the step size, a tree like the parameters; None: all are 1.
    """

    alpha: Any
    eta: Any
    delta: Any
    momentum: Any = None
    scale: Any = None


def _tokens(rule, apply_fn, state, anchor, query, key, value, rates: Rates):
    """A (and S) after some tokens whose gradients are taken at one point, and what they read."""

    def pull(error, own):
        eta, delta = own
        return -eta * slope(rule, error, delta)

    own = (rates.eta, rates.delta)
    pushes = token_gradients(apply_fn, weights_of(rule, anchor), key, value, pull, own)
    if rates.scale is not None:
        pushes = jax.tree.map(times, rates.scale, pushes)
    if rule.signed:
        pushes = jax.tree.map(lambda x: jnp.stack([x, -x], 1) if x.ndim > 2 else x, pushes)
    momenta = pushes
    if rates.momentum is not None:
        state, surprise = state
        momenta = decayed_sums(rates.momentum, pushes, surprise)
    # Rates of channels, of the values' number, are those of the leaves that have as many.
    channels = rates.alpha.shape[-1] if rates.alpha.ndim > 1 else None
    mean = rates.alpha if channels is None else rates.alpha.mean(-1)
    alpha = jax.tree.map(lambda a: rates.alpha if a.shape[-1] == channels else mean, state)
    if rule.retention == "elastic":

        def step(state, now):
            push, alpha, eta = now
            shrink = lambda keep, a, x: soft(keep * (a + x), keep * eta.mean() * rule.l1)
            state = jax.tree.map(shrink, alpha, state, push)
            return state, state

        _, states = lax.scan(step, state, (momenta, alpha, rates.eta))
    else:
        states = decayed_sums(alpha, momenta, state)
    out = jax.vmap(apply_fn)(jax.vmap(functools.partial(weights_of, rule))(states), query)
    last = jax.tree.map(lambda a: a[-1], states)
    if rule.retention == "kl":  # a constant more or less is the same weights; none may pile up
        last = jax.tree.map(
            lambda a: a if a.ndim < 2 else jax.nn.log_softmax(a, axis=softmax_axes(rule, a)), last
        )
    if rates.momentum is not None:
        last = last, jax.tree.map(lambda a: a[-1], momenta)
    return last, out


def miras_step(
    memory: MirasState,
    query: Float[Array, " d"],
    key: Float[Array, " d"],
    value: Float[Array, " e"],
    alpha: Float[Array, " ..."],
    eta: Float[Array, " #e"],
    delta: Float[Array, " #e"],
    momentum: Float[Array, ""] | None = None,
    scale: Any = None,
    *,
    apply_fn: Callable[[Any, Array], Array],
    rule: Rule,
    chunk: int = 1,
) -> tuple[MirasState, Float[Array, " e"]]:
    """One token of one memory, the streaming form of `miras_scan`.

    Args: as `miras_scan`, of one token.

    Returns:
        The next state, and what is read.

    Example:
        >>> e, one = jnp.array([1.0, 0.0]), jnp.ones(1)
        >>> product = lambda w, x: x @ w
        >>> memory = start(jnp.zeros((2, 2)))
        >>> miras_step(memory, e, e, 3 * e, one[0], one, one, apply_fn=product, rule=Rule())[1]
        Array([3., 0.], dtype=float32)
    """
    token = (query, key, value, Rates(alpha, eta, delta, momentum, scale))
    token = jax.tree.map(lambda x: x[None], token)
    state, out = _tokens(rule, apply_fn, memory.state, memory.anchor, *token)
    count = memory.count + 1
    border = count % chunk == 0
    moved = state if momentum is None else state[0]
    anchor = jax.tree.map(lambda new, old: jnp.where(border, new, old), moved, memory.anchor)
    return MirasState(state, anchor, count), out[0]


def miras_scan(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    *,
    params0: Any,
    alpha: Float[Array, "b t h"] | Float[Array, "b t h e"],
    eta: Float[Array, "b t h"] | Float[Array, "b t h e"],
    delta: Float[Array, "b t h"] | Float[Array, "b t h e"] | None = None,
    momentum: Float[Array, "b t h"] | None = None,
    scale: Any = None,
    apply_fn: Callable[[Any, Array], Array],
    rule: Rule = PLAIN,
    chunk: int = 1,
    initial: Any = None,
) -> tuple[Float[Array, "b t h e"], Any]:
    """A memory by a loss and a retention, trained while it is read.

        A_t = alpha_t A_{t-1} - eta_t grad loss(M(W°, k_t) - v_t),  W_t = f(A_t),  y_t = M(W_t, q_t)

    with W° the weights at the end of the chunk before; chunks of one token are the exact
    recurrence.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        params0: A_0, leaves `[h, ...]`; the weights for retentions whose f is the identity.
        alpha: what is kept, in [0, 1], `[b, t, h]`, or one for each channel of the values
            `[b, t, h, e]`; leaves whose last axis is of another size are kept by its mean.
        eta: step size, `[b, t, h]`, or one for each channel of the error `[b, t, h, e]`.
        delta: threshold of Huber's and the robust loss, likewise; default 1.
        momentum: the learner's, in [0, 1), `[b, t, h]`: A moves by S_t = momentum_t S_{t-1} minus
            the step in place of the step. None: plain descent.
        scale: factors of the step size for the leaves, a tree like params0 with leaves
            `[b, t, h]`; None: all are 1.
        apply_fn: M, `(params, x [d]) -> y [e]`.
        rule: the loss and the retention.
        chunk: tokens whose gradients are taken at one point.
        initial: A to go on from at a chunk's border, leaves `[b, h, ...]`; default params0. With
            momentum the pair of A and S.

    Returns:
        Reads `[b, t, h, e]` in the query's dtype, and A after the last token, leaves
        `[b, h, ...]`, float32 at least; with momentum the pair of A and S.

    Raises:
        ValueError: shapes or choices that do not fit.

    Reference:
        arXiv 2504.13173.

    Example:
        >>> from jattn.mechanisms.memory.networks import network
        >>> x, rate = jax.random.normal(jax.random.key(0), (1, 9, 2, 4)), jnp.full((1, 9, 2), 0.9)
        >>> params0 = {"weights": [jnp.zeros((2, 4, 4))]}
        >>> out, state = miras_scan(x, x, x, params0=params0, alpha=rate, eta=rate,
        ...                         apply_fn=network, rule=Rule("huber"), chunk=4)
        >>> out.shape, state["weights"][0].shape
        ((1, 9, 2, 4), (1, 2, 4, 4))
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b t h d", sizes)
    check_shape("value", value, "b t h e", sizes)
    delta = jnp.ones(query.shape[:3], query.dtype) if delta is None else delta
    for name, rates in (("alpha", alpha), ("eta", eta), ("delta", delta)):
        check_shape(name, rates, "b t h e" if rates.ndim == 4 else "b t h", sizes)
    for name, rates in (("momentum", momentum), ("scale", scale)):
        for rate in jax.tree.leaves(rates):
            check_shape(name, rate, "b t h", sizes)
    check_choice("rule.loss", rule.loss, LOSSES)
    check_choice("rule.retention", rule.retention, RETENTIONS)
    check_choice("rule.axis", rule.axis, (None, 0, 1, -1, -2))
    if rule.signed and rule.retention != "kl":
        raise ValueError(f"rule.signed: expected False with retention {rule.retention!r}, got True")
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    wide = jnp.promote_types(query.dtype, jnp.float32)
    by_channel = lambda x: x if x.ndim == 4 else x[..., None]
    rates = Rates(alpha, by_channel(eta), by_channel(delta), momentum, scale)
    arrays = jax.tree.map(lambda x: x.astype(wide), (query, key, value, rates))
    if initial is None:
        broadcast = lambda x: jnp.broadcast_to(x, (sizes["b"], *x.shape))
        initial = jax.tree.map(broadcast, state_of(rule, params0))
        if momentum is not None:
            initial = initial, jax.tree.map(jnp.zeros_like, initial)
    state = jax.tree.map(lambda x: x.astype(wide), initial)
    if apply_fn is network and rule.retention == "l2":
        return _as_network_memory(rule, chunk, query.dtype, state, *arrays)

    def sequence(state, *inputs):
        def block(state, inputs):
            anchor = state if momentum is None else state[0]
            return _tokens(rule, apply_fn, state, anchor, *inputs)

        return over_blocks(block, state, inputs, chunk, sizes["t"])

    state, out = per_head(sequence, shared=(0,))(state, *arrays)
    return out.astype(query.dtype), state


def _as_network_memory(rule, chunk, dtype, state, query, key, value, rates: Rates):
    """`miras_scan` where W = A: no weights a token."""
    state, surprise = state if rates.momentum is not None else (state, state)
    ones = jnp.ones(query.shape[:3], query.dtype)
    scale = for_leaves(ones, state) if rates.scale is None else rates.scale
    matrix = len(jax.tree.leaves(state)) == 1
    if chunk == 1 and matrix and rule.loss == "l2" and rates.momentum is None:
        # The delta rule with rates per value channel; its prediction is of the decayed memory, ours
        # of the memory before that. Where nothing is kept, a millionth is.
        by_channel = lambda x: jnp.broadcast_to(x if x.ndim == 4 else x[..., None], value.shape)
        keep = jnp.maximum(by_channel(rates.alpha), 1e-6)
        strength = by_channel(rates.eta) * jax.tree.leaves(scale)[0][..., None] / keep
        out, last = recur(
            query, key, keep * value, value_decay=jnp.log(keep), beta=strength,
            initial_state=state["weights"][0], return_state=True,
        )  # fmt: skip
        return out.astype(dtype), {"weights": [last]}
    forget = for_channels(1 - rates.alpha, state, value.shape[-1])
    out, state, surprise = network_memory(
        state, surprise, query, key, value, scale, forget, rates.momentum, (rates.eta, rates.delta),
        refresh=chunk, slope=lambda error, own: own[0] * slope(rule, error, own[1]),
    )  # fmt: skip
    return out.astype(dtype), state if rates.momentum is None else (state, surprise)
