"""Frequency channel attention, FcaNet (Qin et al. 2021, arXiv 2012.11879).

    d_c = sum_t x_tc B_f(t),  B_f(t) = cos(pi f (t + 1/2) / T) sqrt((1 + [f > 0]) / T)
    y = x * sigmoid(W_up relu(W_down d))

A mean is the lowest term of the discrete cosine transform; channels are divided among terms, so
that a gate sees how features change over time, too.

Distinctive: no parameters beyond those of squeeze and excitation.

Limits: frequency 0 alone is squeeze and excitation with W_down times sqrt(T); the terms are
orthonormal. The study of gates for EEG (arXiv 2310.11198) has one term for all channels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.means import count_over_space
from jattn.mechanisms.mechanism import Mechanism


def cosine_basis(
    frequency: Float[Array, " c"], length: Float[Array, "b 1"], places: int
) -> Float[Array, "b n c"]:
    """The cosine of each channel's frequency at places 0 to n - 1 of sequences of given lengths.

    Args:
        frequency: f of each channel.
        length: T of each row.
        places: n; those behind a row's length are not zero, and have to be hidden.

    Example:
        >>> cosine_basis(jnp.zeros(1), jnp.full((1, 1), 4.0), 2).ravel().tolist()
        [0.5, 0.5]
    """
    place = jnp.arange(places, dtype=length.dtype)[:, None] + 0.5
    waves = jnp.cos(jnp.pi * frequency * place / length[..., None])
    return waves * jnp.sqrt((1 + (frequency > 0)) / length[..., None])


def frequency_channel_attention(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
    *,
    frequencies: Sequence[int] = (0, 1, 2, 3),
) -> Float[Array, "b *one c"]:
    """`sigmoid(relu(d down) up)` of cosine terms d, a factor for each channel.

    Args:
        params: `down` `[c, c / reduction]` and `up` `[c / reduction, c]`.
        x: tokens `[b, t, c]`, real ones in front; of images `[b, y, x, c]` the terms are along the
            last axis, and constant along others.
        real: False where x is padding; default none is.
        frequencies: one for each group of neighbouring channels.

    Returns:
        Factors in (0, 1), with axes of space 1 long.

    Reference:
        arXiv 2012.11879.

    Example:
        >>> params = {"down": jnp.eye(2), "up": jnp.zeros((2, 2))}
        >>> frequency_channel_attention(params, jnp.ones((1, 4, 2))).tolist()
        [[[0.5, 0.5]]]
    """
    channels, last = x.shape[-1], x.shape[-2]
    of_channel = [frequencies[i * len(frequencies) // channels] for i in range(channels)]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    lines = x.ndim == 3
    length = count_over_space(x.astype(wide), real)[:, 0] if lines else jnp.full((1, 1), last, wide)
    basis = cosine_basis(jnp.asarray(of_channel, wide), length, last)
    basis = basis.reshape(len(basis), *[1] * (x.ndim - 3), last, channels)
    clean = x if real is None else jnp.where(real[..., None], x, 0)
    space = tuple(range(1, x.ndim - 1))
    term = (clean * basis).sum(space, keepdims=True)
    # Other axes are those of a mean, times the root of their length: a term of frequency 0.
    term = term if lines else term * (last / count_over_space(x.astype(wide))) ** 0.5
    return jax.nn.sigmoid(bottleneck(params, term.astype(x.dtype)))


def make(*, dim: int, reduction: int = 4, frequencies: Sequence[int] = (0, 1, 2, 3)) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        reduction: by how much the hidden layer is narrower than m; it has one unit at least.
        frequencies: of the cosine terms; channels are divided among them, in order.

    Raises:
        ValueError: a number below 1, or a frequency below 0.

    Example:
        >>> gate = make(dim=8, frequencies=(2,))
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 8))).shape
        (2, 6, 8)
    """
    check_count("dim", dim)
    check_count("reduction", reduction)
    if not isinstance(frequencies, Sequence) or not frequencies:
        raise ValueError(f"frequencies: expected numbers, got {frequencies!r}")
    for frequency in frequencies:
        check_count("frequencies", frequency, 0)

    def factors(params, x, real=None):
        return frequency_channel_attention(params, x, real, frequencies=frequencies)

    return framed_gate(
        "frequency_channel_attention",
        dim=dim,
        init=lambda key: bottleneck_init(key, dim, reduction),
        factors=factors,
        by_index=True,
    )


MECHANISM = Mechanism(
    name="frequency_channel_attention",
    title="FcaNet: frequency channel attention",
    arxiv="2012.11879",
    family="channel",
    equation="y = x * sigmoid(W_up relu(W_down DCT_f(x)))",
    core=frequency_channel_attention,
    make=make,
    cost="linear",
    kind="gate",
    parameters=("down", "up"),
)
