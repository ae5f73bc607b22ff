"""Dynamics of latents: a continuous-time recurrent network, and roll-outs of any one-step map.

    a_t = a_{t-1} + (dt / tau) (-a_{t-1} + W_hh h_{t-1} + W_x x_t + b),   h = max(tanh a, 0)

The network runs afresh from a_0 on every window of the last `n_past` latents; what it says last is
the next latent, which is appended to the window, whose oldest is dropped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.checks import check_count, check_shape


class ContinuousRNN(NamedTuple):
    """Parameters of a continuous-time recurrent network of n units.

    Attributes:
        wx, whh, b: of the units' input, `[n, m]`, `[n, n]`, `[n]`.
        a0: where they start, `[n]`.
        wy, by: of the output, `[n, n]`, `[n]`.
        wr, br: from the output to the next latent, `[m, n]`, `[m]`.
    """

    wx: Float[Array, "n m"]
    whh: Float[Array, "n n"]
    b: Float[Array, " n"]
    a0: Float[Array, " n"]
    wy: Float[Array, "o n"]
    by: Float[Array, " o"]
    wr: Float[Array, "m o"]
    br: Float[Array, " m"]


def init_continuous_rnn(key: jax.Array, latent: int, hidden: int) -> ContinuousRNN:
    """Recurrent weights of 1.5 / sqrt(n), others of one over the root of their inputs.

    Example:
        >>> init_continuous_rnn(jax.random.key(0), 4, 6).whh.shape
        (6, 6)
    """
    check_count("latent", latent)
    check_count("hidden", hidden)
    keys = jax.random.split(key, 4)
    draw = lambda k, rows, columns, gain: (
        gain * jax.random.normal(keys[k], (rows, columns)) / columns**0.5
    )
    zero = jnp.zeros(hidden)
    return ContinuousRNN(
        draw(0, hidden, latent, 1.0), draw(1, hidden, hidden, 1.5), zero, zero,
        draw(2, hidden, hidden, 1.0), zero, draw(3, latent, hidden, 1.0), jnp.zeros(latent),
    )  # fmt: skip


def run_continuous_rnn(
    params: ContinuousRNN, latents: Float[Array, "t m"], *, dt: float = 1.0, tau: float = 10.0
) -> tuple[Float[Array, "t n"], Float[Array, "t o"]]:
    """Hidden states and outputs at each latent, from a_0.

    Args:
        params: of the network.
        latents: in order.
        dt: how much time one latent stands for.
        tau: in how much time a unit forgets.

    Reference:
        arXiv 2305.11772.

    Example:
        >>> params = init_continuous_rnn(jax.random.key(0), 4, 6)
        >>> hidden, output = run_continuous_rnn(params, jnp.ones((3, 4)))
        >>> hidden.shape, bool((hidden >= 0).all())
        ((3, 6), True)
    """

    def step(a, x):
        h = rate(a)
        a = a + (dt / tau) * (-a + params.whh @ h + params.wx @ x + params.b)
        return a, rate(a)

    _, hidden = lax.scan(step, params.a0, latents)
    return hidden, hidden @ params.wy.T + params.by


def rate(a: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Firing rates, `max(tanh a, 0)`.

    Example:
        >>> rate(jnp.array([-1.0, 0.0])).tolist()
        [0.0, 0.0]
    """
    return jnp.maximum(jnp.tanh(a), 0.0)


def next_latent(
    params: ContinuousRNN, latents: Float[Array, "t m"], *, dt: float = 1.0, tau: float = 10.0
) -> Float[Array, " m"]:
    """What the network says comes after a window.

    Example:
        >>> params = init_continuous_rnn(jax.random.key(0), 4, 6)
        >>> next_latent(params, jnp.ones((3, 4))).shape
        (4,)
    """
    output = run_continuous_rnn(params, latents, dt=dt, tau=tau)[1]
    return params.wr @ output[-1] + params.br


def latent_rollout(
    step: Callable[[Float[Array, "n_past m"]], Float[Array, " m"]],
    latents: Float[Array, "t m"],
    n_past: int,
    steps: int,
) -> Float[Array, "steps m"]:
    """Latents that a one-step map goes on with, its own predictions appended.

    Args:
        step: from a window of the last `n_past` latents to the next one.
        latents: what was seen, at least `n_past`.
        n_past: length of the window.
        steps: latents to add.

    Raises:
        ValueError: fewer latents than a window has.

    Example:
        >>> straight = lambda window: 2 * window[-1] - window[-2]
        >>> latent_rollout(straight, jnp.array([[0.0], [1.0]]), 2, 3).ravel().tolist()
        [2.0, 3.0, 4.0]
    """
    check_shape("latents", latents, "t m", {})
    check_count("n_past", n_past)
    check_count("steps", steps)
    if latents.shape[0] < n_past:
        raise ValueError(f"latents: expected at least n_past={n_past}, got {latents.shape[0]}")

    def one(window, _):
        new = step(window)
        return jnp.concatenate([window[1:], new[None]]), new

    return lax.scan(one, latents[-n_past:], length=steps)[1]
