"""Made recordings of somebody who imagines a movement: which rhythm of four fades.

Each of four places of the motor cortex hums a mu rhythm of 8 to 12 Hz, of a phase and strength of
its own; where the imagined limb lies it is much weaker (event-related desynchronisation). Noise
that falls with frequency is everywhere, and each electrode hears all places, near ones best.

Reference: the setting of arXiv 2310.11198 (BCIC IV 2a), made.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number

LIMBS = ("left hand", "right hand", "feet", "tongue")
PLACES = (0.85, 0.15, 0.5, 0.35)  # of their places, from the left ear to the right one
SAMPLES_A_SECOND = 100.0
REACH = 0.25  # how far an electrode hears


def motor_imagery(
    key: jax.Array, *, electrodes: int = 8, length: int = 200, faded: float = 0.3,
    noise: float = 1.0,
) -> tuple[Float[Array, "t c"], Int[Array, ""]]:  # fmt: skip
    """Draws a recording, of 100 samples a second, and which of `LIMBS` is imagined.

    Args:
        key: a PRNG key.
        electrodes: c, in a line over the head.
        length: t.
        faded: strength of the rhythm of the imagined limb; the others' is 1.
        noise: its standard deviation at an electrode.

    Example:
        >>> series, limb = motor_imagery(jax.random.key(0))
        >>> series.shape, int(limb) in range(4)
        ((200, 8), True)
    """
    check_count("electrodes", electrodes)
    check_count("length", length, 2)
    check_number("faded", faded, least=0)
    check_number("noise", noise, least=0)
    of_limb, of_strength, of_pitch, of_phase, of_noise = jax.random.split(key, 5)
    count = len(LIMBS)
    limb = jax.random.randint(of_limb, (), 0, count)
    strength = jax.random.uniform(of_strength, (count,), minval=0.7, maxval=1.3)
    strength = strength * jnp.where(jnp.arange(count) == limb, faded, 1.0)
    pitch = jax.random.uniform(of_pitch, (count,), minval=8.0, maxval=12.0)
    phase = jax.random.uniform(of_phase, (count,), maxval=2 * jnp.pi)
    second = jnp.arange(length)[:, None] / SAMPLES_A_SECOND
    rhythm = strength * jnp.sin(2 * jnp.pi * pitch * second + phase)
    place = jnp.linspace(0, 1, electrodes)
    heard = jnp.exp(-(((jnp.asarray(PLACES)[:, None] - place) / REACH) ** 2))
    return rhythm @ heard + noise * falling_noise(of_noise, length, electrodes), limb


def falling_noise(key: jax.Array, length: int, channels: int) -> Float[Array, "t c"]:
    """Gaussian noise whose power falls as 1 / frequency, of variance 1.

    Example:
        >>> noise = falling_noise(jax.random.key(0), 4096, 1)[:, 0]
        >>> power = jnp.abs(jnp.fft.rfft(noise)) ** 2
        >>> bool(power[8:16].mean() > 4 * power[128:256].mean())
        True
    """
    frequency = np.fft.rfftfreq(length)
    amplitude = np.where(frequency > 0, np.maximum(frequency, 1 / length) ** -0.5, 0)
    response = np.fft.irfft(amplitude, n=length)
    response = response / np.sqrt((response**2).sum())
    # A product with all shifts: XLA on a CPU refuses some layouts of batched Fourier transforms.
    index = np.arange(length)
    filters = jnp.asarray(response[(index[:, None] - index) % length], jnp.float32)
    return filters @ jax.random.normal(key, (length, channels))
