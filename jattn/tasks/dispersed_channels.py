"""Series of several channels of which the one that fluctuates most decides.

Each channel has a mean of +-0.5 and little noise, but one, drawn anew each time, has much; the
label is the sign of that channel's mean. Who sees means alone cannot know which one that is.

Reference: the setting of arXiv 2310.11198, made.
"""

from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count

MEAN, LITTLE, MUCH = 0.5, 0.3, 1.0


class Dispersed(NamedTuple):
    """A series.

    Attributes:
        series: `[t, c]`.
        label: 1 where the mean of the noisy channel is positive.
        noisy: which channel that is.
    """

    series: Float[Array, "t c"]
    label: Int[Array, ""]
    noisy: Int[Array, ""]


def dispersed_channels(key: jax.Array, *, length: int = 64, channels: int = 8) -> Dispersed:
    """Draws a series.

    Args:
        key: a PRNG key.
        length: t.
        channels: c.

    Example:
        >>> found = dispersed_channels(jax.random.key(0), length=1000)
        >>> int(found.series.std(0).argmax()) == int(found.noisy)
        True
    """
    check_count("length", length, 2)
    check_count("channels", channels, 2)
    of_sign, of_place, of_noise = jax.random.split(key, 3)
    sign = jax.random.rademacher(of_sign, (channels,))
    noisy = jax.random.randint(of_place, (), 0, channels)
    scale = jnp.where(jnp.arange(channels) == noisy, MUCH, LITTLE)
    series = MEAN * sign + scale * jax.random.normal(of_noise, (length, channels))
    return Dispersed(series, (sign[noisy] > 0).astype(int), noisy)


def blind_accuracy(channels: int) -> float:
    """Accuracy of the majority of all signs, the best that means alone allow.

    The sign of one channel tips the majority where the others cancel, or nearly do.

    Example:
        >>> blind_accuracy(8), blind_accuracy(2)
        (0.63671875, 0.75)
    """
    return 0.5 + comb(channels - 1, (channels - 1) // 2) / 2**channels
