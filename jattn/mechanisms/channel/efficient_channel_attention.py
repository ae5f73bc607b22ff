"""Efficient channel attention, ECA-Net (Wang et al. 2019, arXiv 1910.03151).

    y = x * sigmoid(conv_k(mean(x)))

A short convolution along the channels of the mean over space, zeros around: a channel sees its k
neighbours, without a bottleneck and with k parameters.

Distinctive: the fewest parameters of all gates that learn; the order of channels counts.

Limits: k = 1 is a gate of each channel's own mean; taps of zero give 1/2.
"""

import math

import jax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.convolutions import depthwise
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.mechanism import Mechanism


def efficient_channel_attention(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *one c"]:
    """`sigmoid(conv(mean(x)))`, a factor for each channel.

    Args:
        params: `taps` `[k]`.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is.

    Returns:
        Factors in (0, 1), with axes of space 1 long.

    Reference:
        arXiv 1910.03151.

    Example:
        >>> import jax.numpy as jnp
        >>> efficient_channel_attention({"taps": jnp.zeros(3)}, jnp.ones((1, 4, 2))).tolist()
        [[[0.5, 0.5]]]
    """
    mean = mean_over_space(x, real)
    line = mean.reshape(len(x), x.shape[-1], 1)
    return jax.nn.sigmoid(depthwise(line, params["taps"][:, None])).reshape(mean.shape)


def make(*, dim: int, width: int | None = None) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        width: taps k, odd; default the odd number next to (log2 m + 1) / 2, as in the paper.

    Raises:
        ValueError: a width that is even, or a number below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> gate = make(dim=64)
        >>> params = gate.init(jax.random.key(0))
        >>> params["taps"].shape, gate.apply(params, jnp.ones((2, 8, 8, 64))).shape
        ((3,), (2, 8, 8, 64))
    """
    check_count("dim", dim)
    if width is None:
        near = int((math.log2(dim) + 1) / 2)
        width = near if near % 2 else near + 1
    check_count("width", width)
    if width % 2 == 0:
        raise ValueError(f"width: expected an odd number, got {width}")

    def init(key):
        bound = width**-0.5
        return {"taps": jax.random.uniform(key, (width,), minval=-bound, maxval=bound)}

    return framed_gate(
        "efficient_channel_attention", dim=dim, init=init, factors=efficient_channel_attention
    )


MECHANISM = Mechanism(
    name="efficient_channel_attention",
    title="ECA-Net: efficient channel attention",
    arxiv="1910.03151",
    family="channel",
    equation="y = x * sigmoid(conv_k(mean(x)))",
    core=efficient_channel_attention,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("taps",),
)
