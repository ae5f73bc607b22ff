"""From noise to images: steps of DDIM and DDPM, and the loop round them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.checks import check_count, check_number
from jattn.diffusion.schedules import Level, Schedule, clean_and_noise, cosine_schedule


def classifier_free(
    conditional: Float[Array, "*n"], unconditional: Float[Array, "*n"], weight: float | Array
) -> Array:
    """`u + w (c - u)`: w = 0 is without the condition, 1 with it, more is guided.

    Reference:
        arXiv 2207.12598.

    Example:
        >>> classifier_free(jnp.array([2.0]), jnp.array([1.0]), 3.0).tolist()
        [4.0]
    """
    return unconditional + weight * (conditional - unconditional)


def ddim_step(
    x: Float[Array, "*n"], predicted: Float[Array, "*n"], now: Level, then: Level,
    clip: float | None = 1.0,
) -> Array:  # fmt: skip
    """One deterministic step to less noise, `a' x_0 + s' eps`.

    Args:
        x: noisy images.
        predicted: their velocity.
        now, then: levels of noise before and behind the step.
        clip: bound of the clean images' values, or None; the noise follows from the clipped image.

    Reference:
        arXiv 2010.02502.

    Example:
        >>> now, then = Level(jnp.array(0.6), jnp.array(0.8)), Level(jnp.array(1.0), jnp.array(0.0))
        >>> x = 0.6 * jnp.array([0.5]) + 0.8 * jnp.array([2.0])
        >>> v = 0.6 * jnp.array([2.0]) - 0.8 * jnp.array([0.5])
        >>> ddim_step(x, v, now, then).round(4).tolist()
        [0.5]
    """
    clean, noise = _clipped(x, predicted, now, clip)
    return then.signal * clean + then.noise * noise


def ddpm_step(
    x: Float[Array, "*n"], predicted: Float[Array, "*n"], now: Level, then: Level, key: jax.Array,
    clip: float | None = 1.0,
) -> Array:  # fmt: skip
    """One step of ancestral sampling: from the Gaussian of x_then, given x_now and x_0.

    Its variance is `s'^2 / s^2 (1 - a^2 / a'^2)`; its mean keeps so much of the noise that x_then
    has the level's noise in all.

    Args:
        x: noisy images.
        predicted: their velocity.
        now, then: levels of noise before and behind the step.
        key: draws the noise.
        clip: bound of the clean images' values, or None.

    Reference:
        arXiv 2006.11239.

    Example:
        >>> now, then = Level(jnp.array(0.6), jnp.array(0.8)), Level(jnp.array(1.0), jnp.array(0.0))
        >>> ddpm_step(jnp.zeros(1), jnp.zeros(1), now, then, jax.random.key(0)).tolist()
        [0.0]
    """
    clean, noise = _clipped(x, predicted, now, clip)
    variance = (then.noise / now.noise) ** 2 * (1 - (now.signal / then.signal) ** 2)
    kept = jnp.sqrt(jnp.maximum(then.noise**2 - variance, 0))
    fresh = jax.random.normal(key, x.shape, x.dtype)
    return then.signal * clean + kept * noise + jnp.sqrt(jnp.maximum(variance, 0)) * fresh


def _clipped(x, predicted, now: Level, clip: float | None):
    clean, noise = clean_and_noise(x, predicted, now)
    if clip is None:
        return clean, noise
    clean = jnp.clip(clean, -clip, clip)
    return clean, (x - now.signal * clean) / jnp.maximum(now.noise, 1e-3)


def sample(
    predict: Callable[[Array, Array, Array], Array],
    start: Float[Array, "b ..."],
    *,
    steps: int,
    key: jax.Array | None = None,
    adjust: Callable[[Array, Array, Array, Any], tuple[Array, Any]] | None = None,
    memory: Any = None,
    schedule: Schedule = cosine_schedule,
    clip: float | None = 1.0,
) -> Float[Array, "b ..."]:
    """Images from noise, in one scan: DDIM, or with a key DDPM.

    Args:
        predict: `(x, time [b], step) -> v`; guidance is in here.
        start: noise of unit variance.
        steps: n; times are n/n, ..., 1/n.
        key: draws DDPM's noise.
        adjust: `(x, time [b], step, memory) -> (x, memory)`, what is done to noisy images before
            each step.
        memory: what the first of these is given, a pytree of arrays.
        schedule: of the noise.
        clip: bound of the clean images' values, or None.

    Raises:
        ValueError: fewer steps than one.

    Example:
        >>> noise = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
        >>> zero = lambda x, time, step: x * 0  # the image is x shrunk
        >>> sample(zero, noise, steps=5).shape
        (2, 4, 4, 1)
    """
    check_count("steps", steps)
    if clip is not None:
        check_number("clip", clip, above=0)

    def step(carry, number):
        x, memory = carry
        now, then = ((steps - number - done) / steps for done in (0, 1))
        time = jnp.full((x.shape[0],), now, x.dtype)
        if adjust is not None:
            x, memory = adjust(x, time, number, memory)
        predicted = predict(x, time, number)
        levels = schedule(jnp.asarray(now, x.dtype)), schedule(jnp.asarray(then, x.dtype))
        if key is None:
            x = ddim_step(x, predicted, *levels, clip)
        else:
            x = ddpm_step(x, predicted, *levels, jax.random.fold_in(key, number), clip)
        return (x, memory), None

    return lax.scan(step, (start, memory), jnp.arange(steps))[0][0]
