"""Collaboration of channel and spatial attention, CAT (Wu et al. 2022, arXiv 2212.06335).

    S_c = sigmoid(a_1 MLP(mean_t x) + a_2 MLP(max_t x') + a_3 MLP(entropy_t x))
    S_t = sigmoid(conv(-s_1 mean_c x + s_2 max_t x' + s_3 entropy_c x))
    y = x * (w_1 S_c + w_2 S_t),   w = softmax of two learned numbers

x' is x blurred along time; entropies are those of a softmax, scaled to 0..1 over channels, or over
time. One MLP serves all three.

Distinctive: how concentrated a channel is over time counts, and all shares are learned; they begin
at 0, where the gate is 1/2.

Limits: without S_t (`space=False`) it is CATLite of the study for EEG (arXiv 2310.11198), whose
implementation this follows: the blurred maximum is one number a channel, and the convolution mixes
channels. Where all entropies are equal they are 0 here; there they are not a number.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count, check_flag
from jattn.extremes import largest, least
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.convolutions import convolution, depthwise
from jattn.mechanisms.layers.means import max_over_space, mean_over_space
from jattn.mechanisms.mechanism import Mechanism

BLUR = np.exp(-(np.arange(-2.0, 3.0) ** 2) / 2)  # of width 1, over 5 places
BLUR /= BLUR.sum()


def entropy(
    x: Float[Array, "..."], axes: tuple[int, ...], there: Bool[Array, "..."] | None
) -> Float[Array, "..."]:
    """Entropy of `softmax(x)` over axes, which stay, 1 long.

    Args:
        x: any numbers.
        axes: over which they are a distribution.
        there: False where they are none.
    """
    shown = x if there is None else jnp.where(there, x, -jnp.inf)
    offset = jax.lax.stop_gradient(shown.max(axes, keepdims=True, initial=-1e30))
    weight = jnp.exp(shown - offset)
    total = jnp.maximum(weight.sum(axes, keepdims=True), 1e-30)
    apart = x - offset if there is None else jnp.where(there, x - offset, 0)
    return jnp.log(total) - (weight * apart).sum(axes, keepdims=True) / total


def scaled(
    x: Float[Array, "..."], axes: tuple[int, ...], there: Bool[Array, "..."] | None
) -> Float[Array, "..."]:
    """`(x - min) / (max - min)` over axes, 0 where all are equal.

    Example:
        >>> scaled(jnp.array([1.0, 2.0, 5.0]), (0,), None).tolist()
        [0.0, 0.25, 1.0]
    """
    low = least(x, axes, there)
    width = largest(x, axes, there) - low
    some = width > 0
    return jnp.where(some, (x - low) / jnp.where(some, width, 1), 0)


def collaborative_attention(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
) -> Float[Array, "b *space_or_one c"]:
    """The factor of each channel and place.

    Args:
        params: `down`, `up` and `channel_shares` `[3]`; with S_t `taps` `[..., c, c]`,
            `space_shares` `[3]` and `branches` `[2]`.
        x: tokens `[b, t, c]`, real ones in front, or images `[b, y, x, c]`, which are blurred and
            convolved along as many of their last axes as the taps have.
        real: False where x is padding; default none is.

    Returns:
        Factors in (0, 1), of x's shape with S_t.

    Reference:
        arXiv 2212.06335.

    Example:
        >>> params = make(dim=2).init(jax.random.key(0))
        >>> collaborative_attention(params, jnp.ones((1, 1, 2))).tolist()
        [[[0.5, 0.5]]]
    """
    space = tuple(range(1, x.ndim - 1))
    there = None if real is None else real[..., None]
    axes = params["taps"].ndim - 2 if "taps" in params else 1
    share = lambda name: params[name].astype(x.dtype)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    highest = max_over_space(_blurred(x, axes), real)
    over_time = scaled(entropy(wide, space, there), (x.ndim - 1,), None).astype(x.dtype)
    seen = mean_over_space(x, real), highest, over_time
    mixed = (a * bottleneck(params, z) for a, z in zip(share("channel_shares"), seen, strict=True))
    of_channel = jax.nn.sigmoid(sum(mixed))
    if "taps" not in params:
        return of_channel
    over_channels = scaled(entropy(wide, (x.ndim - 1,), None), space, there).astype(x.dtype)
    s = share("space_shares")
    line = -s[0] * x.mean(-1, keepdims=True) + s[1] * highest + s[2] * over_channels
    line = line if there is None else jnp.where(there, line, 0)
    of_place = jax.nn.sigmoid(convolution(line, params["taps"]))
    weights = jax.nn.softmax(share("branches"))
    return weights[0] * of_channel + weights[1] * of_place


def _blurred(x: Float[Array, "b *space c"], axes: int) -> Float[Array, "b *space c"]:
    """x, blurred along its last axes of space, zeros around."""
    for axis in range(x.ndim - 1 - axes, x.ndim - 1):
        line = jnp.moveaxis(x, axis, -2)
        flat = line.reshape(-1, *line.shape[-2:])
        taps = jnp.broadcast_to(jnp.asarray(BLUR, x.dtype)[:, None], (len(BLUR), x.shape[-1]))
        x = jnp.moveaxis(depthwise(flat, taps).reshape(line.shape), -2, axis)
    return x


def make(
    *,
    dim: int,
    reduction: int = 4,
    width: int = 7,
    axes: int = 1,
    space: bool = True,
    bias: bool = False,
) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        reduction: by how much the hidden layer is narrower than m; it has one unit at least.
        width: of the convolution, along each of its axes.
        axes: how many of the last axes of space it goes along: 1, or 2 for images.
        space: whether there is S_t; without it, CATLite.
        bias: whether the MLP has biases.

    Raises:
        ValueError: a number that does not fit.

    Example:
        >>> gate = make(dim=8, space=False)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 8)))[0, 0, 0].item()
        0.5
    """
    for name, number in (("dim", dim), ("reduction", reduction), ("width", width)):
        check_count(name, number)
    check_choice("axes", axes, (1, 2))
    check_flag("space", space)
    check_flag("bias", bias)

    def init(key):
        narrow, taps = jax.random.split(key)
        params = bottleneck_init(narrow, dim, reduction, bias=bias)
        params |= {"channel_shares": jnp.zeros(3)}
        if not space:
            return params
        shape, bound = (*[width] * axes, dim, dim), (dim * width**axes) ** -0.5
        return params | {
            "taps": jax.random.uniform(taps, shape, minval=-bound, maxval=bound),
            "space_shares": jnp.zeros(3),
            "branches": jnp.zeros(2),
        }

    return framed_gate(
        "collaborative_attention",
        dim=dim,
        init=init,
        factors=collaborative_attention,
        by_index=True,
    )


MECHANISM = Mechanism(
    name="collaborative_attention",
    title="CAT: collaboration of channel and spatial attention",
    arxiv="2212.06335",
    family="channel",
    equation="y = x * (w_1 S_c(mean, max, entropy) + w_2 S_t(mean, max, entropy))",
    core=collaborative_attention,
    make=make,
    cost="linear",
    kind="gate",
    parameters=("down", "up", "channel_shares", "taps", "space_shares", "branches"),
    idle=("down", "up", "taps", "branches"),
)
