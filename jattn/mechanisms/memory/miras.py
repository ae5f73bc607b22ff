"""Miras: test-time memories by four choices, of which two are here to be made freely.

Paper: It's All Connected, arXiv 2504.13173.

    A_t = alpha_t A_{t-1} - eta_t grad loss(M(W_{t-1}, k_t) - v_t)
    W_t = f(A_t),     y_t = M(W_t, q_t)

The loss says which errors count ("attentional bias"), f and how A moves say how the past is kept
("retention"). `miras_scan` computes it in chunks, `miras_step` token by token.
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
    over_blocks,
    per_head,
    token_gradients,
)

LOSSES = ("l2", "lp", "huber", "huber_norm", "robust")
RETENTIONS = ("l2", "lq", "kl", "elastic", "sigmoid")


class Rule(NamedTuple):
    """The choices that make a member of the family.

    Attributes:
        loss: what the error e = M(k) - v pulls with, of `LOSSES`; see `slope`.
        retention: of `RETENTIONS`; see `weights_of`. For `"elastic"`,
            `A_t = soft(alpha_t (A_{t-1} - eta_t grad), alpha_t eta_t l1)` instead, where
            `soft(z, g) = sign(z) max(0, |z| - g)`, and eta_t is the mean over channels.
        power: p of `"lp"`.
        sharpness: a of `"lp"`, where sign(e) is tanh(a e).
        norm: q of `"lq"`.
        total: c of `"kl"`, the sum of a weight matrix; None is its number of columns, so that a
            column sums to 1 on the average.
        l1: strength of `"elastic"`'s pull to zero.
    """

    loss: str = "l2"
    retention: str = "l2"
    power: float = 3.0
    sharpness: float = 10.0
    norm: float = 4.0
    total: float | None = None
    l1: float = 0.0


PLAIN = Rule()


def slope(rule: Rule, error: Float[Array, " e"], delta: Array) -> Float[Array, " e"]:
    """The derivative of the loss in M(k).

        l2          e                                   lp      p tanh(a e) |e|^(p - 1)
        huber       clip(e, -delta, delta)              robust  e (1 + delta / |e|_2)
        huber_norm  e min(1, delta / |e|_2)

    Args:
        rule: with a loss of `LOSSES`.
        error: e = M(k) - v.
        delta: a threshold, or one for each channel; for `"huber_norm"` and `"robust"` their mean.

    Example:
        >>> slope(Rule("huber"), jnp.array([-3.0, 0.5]), jnp.array(1.0)).tolist()
        [-1.0, 0.5]
    """
    if rule.loss == "l2":
        return error
    if rule.loss == "lp":
        size = (error**2 + 1e-6) ** ((rule.power - 1) / 2)
        return rule.power * jnp.tanh(rule.sharpness * error) * size
    if rule.loss == "huber":
        return jnp.clip(error, -delta, delta)
    ratio = jnp.mean(delta) / jnp.sqrt((error**2).sum() + 1e-12)
    return error * (jnp.minimum(1, ratio) if rule.loss == "huber_norm" else 1 + ratio)


def weights_of(rule: Rule, state: Any) -> Any:
    """Weights W = f(A), each matrix by itself; vectors, as gains are, stay as they are.

        l2, elastic  A                      lq  A / |A|_q^(q - 2), the norm of all entries
        sigmoid      sigmoid(A)             kl  c softmax(A), over all entries

    Example:
        >>> weights_of(Rule(retention="kl", total=2.0), jnp.zeros((2, 2))).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """

    def one(a):
        if a.ndim < 2:
            return a
        if rule.retention == "lq":
            norm = ((jnp.abs(a) ** rule.norm).sum() + 1e-12) ** (1 / rule.norm)
            return a / norm ** (rule.norm - 2)
        if rule.retention == "kl":
            total = a.shape[-1] if rule.total is None else rule.total
            return total * jax.nn.softmax(a, axis=range(a.ndim))
        return jax.nn.sigmoid(a) if rule.retention == "sigmoid" else a

    return jax.tree.map(one, state)


def soft(z: Array, threshold: Array) -> Array:
    """`sign(z) max(0, |z| - threshold)`."""
    return jnp.sign(z) * jnp.maximum(0, jnp.abs(z) - threshold)


class MirasState(NamedTuple):
    """A memory between two tokens; its size does not grow with them.

    Attributes:
        state: A.
        anchor: A at the last chunk's end, at whose weights gradients are taken.
        count: how many tokens.
    """

    state: Any
    anchor: Any
    count: Int[Array, ""]


def start(params0: Any) -> MirasState:
    """The state of a memory before the first token."""
    return MirasState(params0, params0, jnp.zeros((), jnp.int32))


def _tokens(rule, apply_fn, state, anchor, query, key, value, alpha, eta, delta):
    """A after some tokens whose gradients are taken at one point, and what they read."""

    def pull(error, own):
        eta, delta = own
        return -eta * slope(rule, error, delta)

    pushes = token_gradients(apply_fn, weights_of(rule, anchor), key, value, pull, (eta, delta))
    if rule.retention == "elastic":

        def step(state, now):
            push, alpha, eta = now
            threshold = alpha * eta.mean() * rule.l1
            state = jax.tree.map(lambda a, x: soft(alpha * (a + x), threshold), state, push)
            return state, state

        _, states = lax.scan(step, state, (pushes, alpha, eta))
    else:
        states = decayed_sums(alpha, pushes, state)
    out = jax.vmap(apply_fn)(jax.vmap(functools.partial(weights_of, rule))(states), query)
    last = jax.tree.map(lambda a: a[-1], states)
    if rule.retention == "kl":  # a constant more or less is the same weights; none may pile up
        last = jax.tree.map(
            lambda a: a if a.ndim < 2 else jax.nn.log_softmax(a, axis=range(a.ndim)), last
        )
    return last, out


def miras_step(
    memory: MirasState,
    query: Float[Array, " d"],
    key: Float[Array, " d"],
    value: Float[Array, " e"],
    alpha: Float[Array, ""],
    eta: Float[Array, " #e"],
    delta: Float[Array, " #e"],
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
    token = (x[None] for x in (query, key, value, alpha, eta, delta))
    state, out = _tokens(rule, apply_fn, memory.state, memory.anchor, *token)
    count = memory.count + 1
    border = count % chunk == 0
    anchor = jax.tree.map(lambda new, old: jnp.where(border, new, old), state, memory.anchor)
    return MirasState(state, anchor, count), out[0]


def miras_scan(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    *,
    params0: Any,
    alpha: Float[Array, "b t h"],
    eta: Float[Array, "b t h"] | Float[Array, "b t h e"],
    delta: Float[Array, "b t h"] | Float[Array, "b t h e"] | None = None,
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
        alpha: what is kept, in [0, 1], `[b, t, h]`.
        eta: step size, `[b, t, h]`, or one for each channel of the error `[b, t, h, e]`.
        delta: threshold of Huber's and the robust loss, likewise; default 1.
        apply_fn: M, `(params, x [d]) -> y [e]`.
        rule: the loss and the retention.
        chunk: tokens whose gradients are taken at one point.
        initial: A to go on from at a chunk's border, leaves `[b, h, ...]`; default params0.

    Returns:
        Reads `[b, t, h, e]` in the query's dtype, and A after the last token, leaves
        `[b, h, ...]`, float32 at least.

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
    check_shape("alpha", alpha, "b t h", sizes)
    delta = jnp.ones_like(alpha) if delta is None else delta
    for name, rates in (("eta", eta), ("delta", delta)):
        check_shape(name, rates, "b t h e" if rates.ndim == 4 else "b t h", sizes)
    check_choice("rule.loss", rule.loss, LOSSES)
    check_choice("rule.retention", rule.retention, RETENTIONS)
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    wide = jnp.promote_types(query.dtype, jnp.float32)
    arrays = [x.astype(wide) for x in (query, key, value, alpha, eta, delta)]
    arrays[4:] = [x if x.ndim == 4 else x[..., None] for x in arrays[4:]]
    if initial is None:
        spread = lambda x: jnp.broadcast_to(x, (sizes["b"], *x.shape))
        initial = jax.tree.map(spread, params0)
    state = jax.tree.map(lambda x: x.astype(wide), initial)

    def sequence(state, *inputs):
        block = lambda state, inputs: _tokens(rule, apply_fn, state, state, *inputs)
        return over_blocks(block, state, inputs, chunk, sizes["t"])

    state, out = per_head(sequence, shared=(0,))(state, *arrays)
    return out.astype(query.dtype), state
