"""Made neurons that follow a ball: linear mixtures of what is known of it, and noise on each trial.

What is known while the ball is hidden is what a model of the neurons has to explain: its true state
(they simulate), the last one that was seen (they remember), or nothing (they see).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count, check_number, check_shape

Kind = Literal["simulate", "freeze", "visual"]
KINDS = ("simulate", "freeze", "visual")
WIDTH, SPEED = 0.18, 10.0
FEATURES = 16


def state_features(state: Float[Array, "*n 4"]) -> Float[Array, "*n 16"]:
    """x, y, ten times both velocities, and twelve bumps over the square.

    Example:
        >>> state_features(jnp.zeros((2, 4))).shape
        (2, 16)
    """
    x, y = state[..., 0], state[..., 1]
    columns, rows = jnp.meshgrid((jnp.arange(4) + 0.5) / 4, (jnp.arange(3) + 0.5) / 3)
    apart = (x[..., None] - columns.ravel()) ** 2 + (y[..., None] - rows.ravel()) ** 2
    plain = jnp.stack([x, y, SPEED * state[..., 2], SPEED * state[..., 3]], -1)
    return jnp.concatenate([plain, jnp.exp(-apart / (2 * WIDTH**2))], -1)


def last_seen(values: Float[Array, "n t m"], visible: Bool[Array, "n t"]) -> Float[Array, "n t m"]:
    """Values while the ball is seen, and the last of those while it is not.

    Example:
        >>> values, visible = jnp.arange(3.0).reshape(1, 3, 1), jnp.array([[True, True, False]])
        >>> last_seen(values, visible).ravel().tolist()
        [0.0, 1.0, 1.0]
    """
    place = jnp.where(visible, jnp.arange(visible.shape[1]), 0)
    latest = jax.lax.cummax(place, axis=1)
    return jnp.take_along_axis(values, latest[..., None], axis=1)


def known(state: Float[Array, "n t 4"], visible: Bool[Array, "n t"], kind: Kind) -> Array:
    """Features of what neurons of a kind know in each frame, `[n, t, 16]`.

    Example:
        >>> known(jnp.ones((1, 2, 4)), jnp.array([[True, False]]), "visual")[0, 1].any().item()
        False
    """
    check_choice("kind", kind, KINDS)
    features = state_features(state)
    if kind == "freeze":
        return last_seen(features, visible)
    return jnp.where(visible[..., None], features, 0.0) if kind == "visual" else features


def neural_population(
    key: jax.Array,
    state: Float[Array, "n t 4"],
    visible: Bool[Array, "n t"],
    kind: Kind,
    *,
    units: int = 40,
    trials: int = 20,
    noise: float = 1.5,
) -> Float[Array, "trials n t units"]:
    """Responses of neurons to clips, on some trials.

    Args:
        key: of the mixtures and the noise.
        state: of the ball, x, y and its velocity.
        visible: whether it is seen.
        kind: what the neurons know; see the module.
        units: how many.
        trials: how often each clip is shown.
        noise: standard deviation on a trial, in units of each neuron's own over all frames.

    Raises:
        ValueError: an unknown kind, shapes that do not fit.

    Example:
        >>> state, seen = jnp.ones((3, 5, 4)), jnp.ones((3, 5), bool)
        >>> neural_population(jax.random.key(0), state, seen, "simulate", units=2, trials=4).shape
        (4, 3, 5, 2)
    """
    sizes: dict[str, int] = {}
    check_shape("state", state, "n t 4", sizes)
    check_shape("visible", visible, "n t", sizes)
    check_count("units", units)
    check_count("trials", trials)
    check_number("noise", noise, least=0)
    of_mix, of_noise = jax.random.split(key)
    features = known(state, visible, kind)
    spread = features.std((0, 1))
    features = (features - features.mean((0, 1))) / jnp.where(spread > 0, spread, 1.0)
    clean = features @ jax.random.normal(of_mix, (FEATURES, units))
    errors = jax.random.normal(of_noise, (trials, *clean.shape))
    return clean + noise * clean.std((0, 1)) * errors
