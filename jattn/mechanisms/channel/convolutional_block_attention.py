"""Convolutional block attention, CBAM (Woo et al. 2018, arXiv 1807.06521): channels, then places.

    x' = x * sigmoid(MLP(mean_t x) + MLP(max_t x)),   y = x' * sigmoid(conv([mean_c x', max_c x']))

Distinctive: a maximum besides each mean, and a factor for each place behind that for each channel.

Limits: taps and bias of zero leave half of the channels' part; with the maximum's share zero, that
is squeeze and excitation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.extremes import largest
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.convolutions import convolution
from jattn.mechanisms.layers.means import max_over_space, mean_over_space
from jattn.mechanisms.mechanism import Mechanism


def channel_factors(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *one c"]:
    """`sigmoid(MLP(mean) + MLP(max))`, the first half.

    Args:
        params: `down` and `up`.
        x: tokens or images.
        real: False where x is padding.
    """
    statistics = mean_over_space(x, real), max_over_space(x, real)
    return jax.nn.sigmoid(sum(bottleneck(params, z) for z in statistics))


def convolutional_block_attention(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *space c"]:
    """The factor of each channel times that of each place.

    Args:
        params: `down` and `up` of the bottleneck; `taps` `[..., 2, 1]` and `bias` `[1]` of the
            convolution over the mean and the maximum of channels.
        x: tokens `[b, t, c]`, real ones in front, or images `[b, y, x, c]`.
        real: False where x is padding; default none is.

    Reference:
        arXiv 1807.06521.

    Example:
        >>> params = make(dim=2).init(jax.random.key(0))
        >>> params |= {"up": jnp.zeros((1, 2)), "taps": jnp.zeros((7, 2, 1))}
        >>> convolutional_block_attention(params, jnp.ones((1, 2, 2))).tolist()
        [[[0.25, 0.25], [0.25, 0.25]]]
    """
    of_channel = channel_factors(params, x, real)
    y = x * of_channel
    both = jnp.concatenate([y.mean(-1, keepdims=True), largest(y, -1)], axis=-1)
    both = both if real is None else jnp.where(real[..., None], both, 0)
    return of_channel * jax.nn.sigmoid(convolution(both, params["taps"], params["bias"]))


def make(*, dim: int, reduction: int = 4, width: int = 7, axes: int = 1) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        reduction: by how much the hidden layer is narrower than m; it has one unit at least.
        width: of the convolution, along each of its axes.
        axes: how many of the last axes of space it goes along: 1 or 2, for images.

    Raises:
        ValueError: a number that does not fit.

    Example:
        >>> gate = make(dim=8, axes=2)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 6, 8))).shape
        (2, 6, 6, 8)
    """
    for name, number in (("dim", dim), ("reduction", reduction), ("width", width)):
        check_count(name, number)
    check_choice("axes", axes, (1, 2))

    def init(key):
        narrow, taps = jax.random.split(key)
        shape, bound = (*[width] * axes, 2, 1), (2 * width**axes) ** -0.5
        return bottleneck_init(narrow, dim, reduction) | {
            "taps": jax.random.uniform(taps, shape, minval=-bound, maxval=bound),
            "bias": jnp.zeros(1),
        }

    return framed_gate(
        "convolutional_block_attention",
        dim=dim,
        init=init,
        factors=convolutional_block_attention,
        by_index=True,
    )


MECHANISM = Mechanism(
    name="convolutional_block_attention",
    title="CBAM: convolutional block attention module",
    arxiv="1807.06521",
    family="channel",
    equation="x' = x * sigmoid(MLP(mean) + MLP(max)), y = x' * sigmoid(conv([mean_c, max_c] x'))",
    core=convolutional_block_attention,
    make=make,
    cost="linear",
    kind="gate",
    parameters=("down", "up", "taps", "bias"),
)
