"""How much noise there is at a time, and what follows from a predicted velocity.

x_t = a x_0 + s eps,   v = a eps - s x_0,   a^2 + s^2 = 1
x_0 = a x_t - s v,     eps = s x_t + a v
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

SMALLEST = 1e-4  # share of the signal that is left at time 1: what is divided by stays above 0


class Level(NamedTuple):
    """How much of a noisy image is signal and how much noise.

    Attributes:
        signal: a, the factor of the clean image.
        noise: s, the factor of noise of unit variance.
    """

    signal: Float[Array, "*n"]
    noise: Float[Array, "*n"]


Schedule = Callable[[Array], Level]


def cosine_schedule(time: Float[Array, "*n"], offset: float = 0.008) -> Level:
    """`a^2 = cos^2(pi/2 (t + o) / (1 + o)) / cos^2(pi/2 o / (1 + o))`.

    Args:
        time: in [0, 1].
        offset: o, keeps noise at time 0 from growing too slowly.

    Reference:
        arXiv 2102.09672.

    Example:
        >>> level = cosine_schedule(jnp.array([0.0, 1.0]))
        >>> level.signal.round(2).tolist(), level.noise.round(2).tolist()
        ([1.0, 0.009999999776482582], [0.0, 1.0])
    """
    at = lambda t: jnp.cos(0.5 * jnp.pi * (t + offset) / (1 + offset)) ** 2
    return _level(at(time) / at(jnp.zeros(())))


def linear_schedule(
    time: Float[Array, "*n"], first: float = 1e-4, last: float = 0.02, steps: int = 1000
) -> Level:
    """`a^2 = prod_{i <= t n} (1 - b_i)`, b_i from first to last, as the integral of its logarithm.

    Args:
        time: in [0, 1].
        first, last: shares of noise added in the first and the last of n steps.
        steps: n.

    Reference:
        arXiv 2006.11239.

    Example:
        >>> linear_schedule(jnp.array(0.0)).noise.tolist()
        0.0
    """
    return _level(jnp.exp(-steps * (first * time + 0.5 * (last - first) * time**2)))


def _level(square: Array) -> Level:
    square = jnp.clip(square, SMALLEST, 1.0)
    return Level(jnp.sqrt(square), jnp.sqrt(1 - square))


def _wide(level: Level, x: Array) -> Level:
    """Factors with as many axes as an image has, the first ones."""
    more = (1,) * (x.ndim - level.signal.ndim)
    return Level(*(factor.reshape(*factor.shape, *more).astype(x.dtype) for factor in level))


def noised(clean: Float[Array, "*n"], noise: Float[Array, "*n"], level: Level) -> Array:
    """`a x_0 + s eps`; the level has the first axes of the image, or none.

    Example:
        >>> noised(jnp.ones(2), jnp.zeros(2), Level(jnp.array(0.6), jnp.array(0.8))).tolist()
        [0.6000000238418579, 0.6000000238418579]
    """
    a, s = _wide(level, clean)
    return a * clean + s * noise


def velocity(clean: Float[Array, "*n"], noise: Float[Array, "*n"], level: Level) -> Array:
    """`v = a eps - s x_0`, what a model learns to predict.

    Reference:
        arXiv 2202.00512.

    Example:
        >>> velocity(jnp.ones(1), jnp.zeros(1), Level(jnp.array(0.6), jnp.array(0.8))).tolist()
        [-0.800000011920929]
    """
    a, s = _wide(level, clean)
    return a * noise - s * clean


def clean_and_noise(
    x: Float[Array, "*n"], predicted: Float[Array, "*n"], level: Level
) -> tuple[Array, Array]:
    """The clean image and the noise that a velocity amounts to, `(x_0, eps)`.

    Example:
        >>> level = Level(jnp.array(0.6), jnp.array(0.8))
        >>> clean, noise = jnp.array([2.0]), jnp.array([-1.0])
        >>> x, v = noised(clean, noise, level), velocity(clean, noise, level)
        >>> [float(y[0].round(4)) for y in clean_and_noise(x, v, level)]
        [2.0, -1.0]
    """
    a, s = _wide(level, x)
    return a * x - s * predicted, s * x + a * predicted


def velocity_loss(
    predict: Callable[[Array, Array], Array],
    clean: Float[Array, "b ..."],
    noise: Float[Array, "b ..."],
    time: Float[Array, " b"],
    schedule: Schedule = cosine_schedule,
) -> Float[Array, ""]:
    """Mean squared error of the velocity of noised images.

    Args:
        predict: `(x [b, ...], time [b]) -> v`.
        clean: images.
        noise: of unit variance.
        time: of each image, in [0, 1].
        schedule: of the noise.

    Example:
        >>> images, noise = jnp.zeros((2, 4)), jnp.ones((2, 4))
        >>> velocity_loss(lambda x, t: x * 0, images, noise, jnp.zeros(2)).round(3).tolist()
        1.0
    """
    level = schedule(time)
    error = predict(noised(clean, noise, level), time) - velocity(clean, noise, level)
    return jnp.mean(error**2)
