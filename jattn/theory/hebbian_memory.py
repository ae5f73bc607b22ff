"""Attention as conditioning: a memory of stimulus pairs, and the rules that write it.

    conditioned stimulus (CS)     what a token is filed under    key     k = f(Y W_K)
    unconditioned stimulus (US)   what follows it                value   v = g(Z W_V)
    test stimulus                 what asks                      query   q = f(X W_Q)
    conditioned response          what is expected               read    r = q S

With row vectors, and S `[d, e]`, a pair (k, v) is written by

    hebb    S += alpha k^T v                      contiguity: linear attention
    decay   S  = gamma S + alpha k^T v            a fading trace: retention
    delta   S += alpha k^T (v - k S)              surprise (Rescorla-Wagner): DeltaNet
    oja     S += alpha (k^T v - S diag(v^2))      growth that limits itself
    bcm     S += alpha k^T [v (v - theta)]        theta a running average of v^2

All are `jattn.recur`. Self-attention presents every token as all three stimuli.

Reference: arXiv 2508.08289.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_shape
from jattn.recurrence import recur

RULES = ("hebb", "decay", "delta", "oja", "bcm")


def condition(
    test: Float[Array, "b t h d"],
    cs: Float[Array, "b t h d"],
    us: Float[Array, "b t h e"],
    *,
    rule: str = "hebb",
    alpha: float | Float[Array, ""] = 1.0,
    gamma: float | Float[Array, ""] = 1.0,
    tau: float = 10.0,
    initial_state: Float[Array, "b h d e"] | None = None,
    mode: Literal["scan", "chunk", "parallel"] | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"]]:
    """Presents pairs one after the other, and asks for a response after each.

    The response to `test` at t is `r_t = q_t S_t`, S_t holding the pairs up to and including t,
    written by the rule (see the module).

    Args:
        test: queries, `[b, t, h, d]`.
        cs: keys, `[b, t, h, d]`.
        us: values, `[b, t, h, e]`.
        rule: how a pair is written, one of `RULES`.
        alpha: learning rate. The delta rule wants `alpha |k|^2 < 2`, Oja's `alpha v^2 < 2`.
        gamma: what a trial leaves of the memory, in (0, 1]; of rule `"decay"` only.
        tau: trials over which `"bcm"` averages its threshold.
        initial_state: the memory before the first trial, `[b, h, d, e]`; None is empty. The
            threshold of `"bcm"` starts at 0 all the same.
        mode: as in `jattn.recur`; the numbers are the same.

    Returns:
        The responses `[b, t, h, e]`, and the memory after the last trial `[b, h, d, e]`.

    Raises:
        ValueError: an unknown rule, or shapes that do not fit.

    Reference: arXiv 2508.08289, sections 3 and 4.

    Example:
        >>> cs = jnp.ones((1, 3, 1, 1))
        >>> response, memory = condition(cs, cs, cs, rule="delta", alpha=0.5)
        >>> response.ravel().tolist()
        [0.5, 0.75, 0.875]
    """
    check_choice("rule", rule, RULES)
    sizes: dict[str, int] = {}
    check_shape("test", test, "b t h d", sizes)
    check_shape("cs", cs, "b t h d", sizes)
    check_shape("us", us, "b t h e", sizes)
    if initial_state is not None:
        check_shape("initial_state", initial_state, "b h d e", sizes)
    if rule == "oja":
        return _oja(test, cs, us, alpha, initial_state, mode)
    options: dict[str, Any] = {}
    if rule == "delta":
        options["beta"] = jnp.full(cs.shape[:3], alpha, cs.dtype)
    elif rule == "bcm":
        us = alpha * bcm_modulation(us, sliding_threshold(us, tau))
    else:
        us = alpha * us
    if rule == "decay":
        options["decay"] = jnp.full(cs.shape[:3], jnp.log(gamma), cs.dtype)
    return recur(test, cs, us, initial_state=initial_state, mode=mode, return_state=True, **options)


def _oja(test, cs, us, alpha, initial_state, mode):
    """Column c of the memory keeps 1 - alpha v_c^2 of itself: each column is a head of its own."""
    batch, length, heads, columns = us.shape
    kept = 1 - alpha * us**2
    # A factor below zero has no logarithm; the sign that columns have gathered is kept apart.
    sign = jnp.cumprod(jnp.where(kept < 0, -1, 1).astype(us.dtype), axis=1)
    flat = lambda x: x.reshape(batch, length, heads * columns)
    if initial_state is not None:
        initial_state = initial_state.mT.reshape(batch, heads * columns, -1, 1)
    response, state = recur(
        jnp.repeat(test, columns, axis=2),
        cs,
        flat(alpha * sign * us)[..., None],
        decay=flat(jnp.log(jnp.abs(kept))),
        initial_state=initial_state,
        mode=mode,
        return_state=True,
    )
    response = sign * response.reshape(us.shape)
    return response, sign[:, -1, :, None] * state.reshape(batch, heads, columns, -1).mT


def recall(
    memory: Float[Array, "b h d e"], test: Float[Array, "b t h d"]
) -> Float[Array, "b t h e"]:
    """Responses `r = q S` of a memory that is no longer written.

    Example:
        >>> recall(2 * jnp.eye(3)[None, None], jnp.ones((1, 1, 1, 3))).ravel().tolist()
        [2.0, 2.0, 2.0]
    """
    return jnp.einsum("bhde,bthd->bthe", memory, test)


def sliding_threshold(us: Float[Array, "b t h e"], tau: float) -> Float[Array, "b t h e"]:
    """Running average of recent activity: `theta_t = (1 - 1/tau) theta_{t-1} + v_t^2 / tau`.

    The paper leaves the average open; this one starts at theta_0 = 0 and counts v_t itself.

    Example:
        >>> sliding_threshold(jnp.ones((1, 3, 1, 1)), tau=2.0).ravel().tolist()
        [0.5, 0.75, 0.875]
    """

    def step(theta, active):
        theta = theta + (active - theta) / tau
        return theta, theta

    squares = jnp.moveaxis(us**2, 1, 0)
    return jnp.moveaxis(jax.lax.scan(step, jnp.zeros_like(squares[0]), squares)[1], 0, 1)


def bcm_modulation(us: Float[Array, "*shape"], theta: Float[Array, "*shape"]):
    """`phi(v, theta) = v (v - theta)`: activity above the threshold strengthens, below weakens."""
    return us * (us - theta)


def nearest(read: Float[Array, "n e"], items: Float[Array, "m e"]) -> Any:
    """Clean-up: the index of the item with the largest inner product, `[n]`.

    Example:
        >>> nearest(jnp.array([[0.9, 0.2]]), jnp.eye(2)).tolist()
        [0]
    """
    return jnp.argmax(read @ items.T, axis=-1)


def protocol_strength(
    cs: Float[np.ndarray, "trials stimuli"],
    us: Float[np.ndarray, " trials"],
    *,
    alpha: float,
) -> Float[np.ndarray, "trials stimuli"]:
    """Associative strengths by the Rescorla-Wagner rule, stimulus by stimulus.

        V_s += alpha x_s (lambda - sum_s' x_s' V_s')

    What the delta rule must do if every stimulus has a key of its own, orthonormal to the others.

    Args:
        cs: which stimuli a trial presents, `[trials, stimuli]`, 0 or 1.
        us: lambda, the strength of what follows, `[trials]`.
        alpha: learning rate.

    Returns:
        V after each trial, `[trials, stimuli]`.

    Reference: Rescorla and Wagner 1972; arXiv 2508.08289.

    Example:
        >>> protocol_strength(np.ones((2, 1)), np.ones(2), alpha=0.5).ravel().tolist()
        [0.5, 0.75]
    """
    strength, path = np.zeros(cs.shape[1]), []
    for present, outcome in zip(cs, us, strict=True):
        strength = strength + alpha * present * (outcome - present @ strength)
        path.append(strength)
    return np.array(path)
