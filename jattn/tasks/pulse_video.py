"""Small videos of skin that reddens with the pulse, moves about, and stands in changing light.

    pixel = light(t) (background + skin (1 + amplitude pulse(t))) + noise

A square of skin drifts over a fixed textured ground; the light changes slowly and by far more than
the pulse. After the setting of arXiv 2507.07795.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_number

SKIN = 3  # side of the patch of skin
SLOWEST, FASTEST = 0.8, 2.5  # heart beats a second
OF_COLORS = (0.3, 1.0, 0.5)  # how much of the pulse is in red, green and blue


class PulseVideo(NamedTuple):
    """Videos.

    Attributes:
        frames: about 0 to 1, `[*b, t, side, side, 3]`.
        pulse: the wave, of amplitude one.
        rate: heart beats a second.
        skin: where the skin is, of how much of each pixel, 0 to 1.
    """

    frames: Float[Array, "*b t side side 3"]
    pulse: Float[Array, "*b t"]
    rate: Float[Array, "*b"]
    skin: Float[Array, "*b t side side"]


def pulse_video(
    key: jax.Array,
    *,
    frames: int = 96,
    side: int = 8,
    per_second: float = 20.0,
    amplitude: float = 0.005,
    light: float = 0.1,
    noise: float = 0.002,
) -> PulseVideo:
    """Draws a video.

    Args:
        key: a PRNG key.
        frames: t.
        side: of a frame, in pixels, more than 3.
        per_second: frames.
        amplitude: of the pulse, in green, as a share of the skin's brightness.
        light: how much the light changes at most, as a share.
        noise: standard deviation of each value.

    Example:
        >>> video = pulse_video(jax.random.key(0), noise=0.0, light=0.0)
        >>> video.frames.shape, bool(jnp.allclose(video.skin.sum((1, 2)), 9.0, atol=1e-4))
        ((96, 8, 8, 3), True)
    """
    check_count("frames", frames, 2)
    check_count("side", side, SKIN + 1)
    for name, value in (("per_second", per_second), ("amplitude", amplitude), ("light", light)):
        check_number(name, value, least=0)
    of_rate, of_phase, of_place, of_light, of_ground, of_noise = jax.random.split(key, 6)
    seconds = jnp.arange(frames) / per_second
    rate = jax.random.uniform(of_rate, minval=SLOWEST, maxval=FASTEST)
    pulse = jnp.sin(2 * jnp.pi * (rate * seconds + jax.random.uniform(of_phase)))
    skin = _skin(of_place, seconds, side)
    slow = _wave(of_light, seconds, 0.1, 0.5)
    ground = jax.random.uniform(of_ground, (side, side, 3), minval=0.2, maxval=0.6)
    red = amplitude * pulse[:, None, None, None] * jnp.array(OF_COLORS)
    shown = skin[..., None]
    pixels = (1 + light * slow)[:, None, None, None] * (
        (1 - shown) * ground + shown * jnp.array([0.7, 0.5, 0.4]) * (1 + red)
    )
    pixels = pixels + noise * jax.random.normal(of_noise, pixels.shape)
    return PulseVideo(pixels, pulse, rate, skin)


def _wave(key: jax.Array, seconds: Array, slowest: float, fastest: float) -> Float[Array, " t"]:
    of_rate, of_phase = jax.random.split(key)
    rate = jax.random.uniform(of_rate, minval=slowest, maxval=fastest)
    return jnp.sin(2 * jnp.pi * (rate * seconds + jax.random.uniform(of_phase)))


def _skin(key: jax.Array, seconds: Array, side: int) -> Float[Array, "t side side"]:
    """How much of each pixel the square covers as it drifts along both axes."""
    room = side - SKIN
    starts = [room * (0.5 + 0.5 * _wave(k, seconds, 0.05, 0.3)) for k in jax.random.split(key)]
    pixel = jnp.arange(side)

    def cover(start):
        low = jnp.maximum(pixel, start[:, None])
        high = jnp.minimum(pixel + 1, start[:, None] + SKIN)
        return jnp.clip(high - low, 0, 1)

    rows, columns = (cover(start) for start in starts)
    return rows[:, :, None] * columns[:, None, :]
