"""The rule of a Miras memory: which errors count, and how the past is kept.

Paper: It's All Connected, arXiv 2504.13173.

The loss ("attentional bias") is here as its derivative in what is predicted, `slope`; the retention
as the map from what moves, A, to weights, `weights_of`. `jattn.mechanisms.memory.miras` runs them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOSSES = ("l2", "lp", "huber", "huber_norm", "robust")
RETENTIONS = ("l2", "lq", "kl", "elastic", "sigmoid")


class Rule(NamedTuple):
    """The choices that make a mechanism of the family.

    Attributes:
        loss: what the error e = M(k) - v pulls with, of `LOSSES`; see `slope`.
        retention: of `RETENTIONS`; see `weights_of`. For `"elastic"`,
            `A_t = soft(alpha_t (A_{t-1} - eta_t grad), alpha_t eta_t l1)` instead, where
            `soft(z, g) = sign(z) max(0, |z| - g)`, and eta_t is the mean over channels.
        power: p of `"lp"`.
        sharpness: a of `"lp"`, where sign(e) is tanh(a e).
        norm: q of `"lq"`.
        total: c of `"kl"`, the sum of a weight matrix, or of each part that `axis` makes; None is
            the number of columns, so that a column sums to 1 on the average, and with an axis 1.
        axis: of `"kl"`, the axis of a matrix that the softmax is over; None: all entries.
        signed: of `"kl"`, W = W+ - W-, of which the second learns from the opposite gradient and
            both are one softmax; matrices of the state have a leading axis of the two.
        l1: strength of `"elastic"`'s pull to zero.
    """

    loss: str = "l2"
    retention: str = "l2"
    power: float = 3.0
    sharpness: float = 10.0
    norm: float = 4.0
    total: float | None = None
    axis: int | None = None
    signed: bool = False
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
        sigmoid      sigmoid(A)             kl  c softmax(A), over all entries or an axis

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
            total = a.shape[-1] if rule.axis is None else 1.0
            total = total if rule.total is None else rule.total
            weights = total * jax.nn.softmax(a, axis=softmax_axes(rule, a))
            return weights[0] - weights[1] if rule.signed else weights
        return jax.nn.sigmoid(a) if rule.retention == "sigmoid" else a

    return jax.tree.map(one, state)


def softmax_axes(rule: Rule, a: Array) -> tuple[int, ...]:
    """Axes of a state's leaf that one softmax is over."""
    if rule.axis is None:
        return tuple(range(a.ndim))
    # Counted from the end, the axis is the same with and without that of the signs.
    own = rule.axis if rule.axis < 0 else rule.axis - 2
    return (0, own) if rule.signed else (own,)


def state_of(rule: Rule, params0: Any) -> Any:
    """A_0 of initial parameters, which are A itself but where weights have signs: then both halves.

    Args:
        rule: the choices.
        params0: leaves `[..., d, e]` and vectors.
    """
    if not rule.signed:
        return params0
    # The first learns what the second does not have: halves that differ, as params0 say.
    return jax.tree.map(lambda a: jnp.stack([a, -a], -3) if a.ndim > 2 else a, params0)


def soft(z: Array, threshold: Array) -> Array:
    """`sign(z) max(0, |z| - threshold)`."""
    return jnp.sign(z) * jnp.maximum(0, jnp.abs(z) - threshold)
