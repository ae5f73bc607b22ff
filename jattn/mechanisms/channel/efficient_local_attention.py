"""Efficient local attention, ELA (Xu and Wan 2024, arXiv 2403.01123): rows and columns stand out.

    y = x * sigmoid(GN(conv(mean over columns of x))) * sigmoid(GN(conv(mean over rows of x)))

one convolution along the line and one group norm, shared by both axes, without a bottleneck.

Distinctive: a gate of rank one in space for each channel, that keeps where things are.

Limits: a norm of scale 0 gives sigmoid(shift)^2 everywhere. A sequence of tokens has one axis, and
one factor.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.frames.tokens import take_tokens
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.mechanism import Mechanism

EPSILON = 1e-5


def line_factors(
    params: dict[str, Array], line: Float[Array, "b n c"], real: Bool[Array, "b n"] | None = None,
    *, norm_groups: int,
) -> Float[Array, "b n c"]:  # fmt: skip
    """`sigmoid(GN(conv(line)))` of means along one axis.

    Args:
        params: `taps` `[width, c / groups, c]`, `scale` and `shift` `[c]`.
        line: means over the other axis.
        real: False where there was nothing to average; such places are zeros and not counted.
        norm_groups: groups of channels that are normalised together, over the line.

    Example:
        >>> params = {"taps": jnp.ones((3, 1, 2)), "scale": jnp.zeros(2), "shift": jnp.zeros(2)}
        >>> line_factors(params, jnp.ones((1, 4, 2)), norm_groups=1)[0, 0].tolist()
        [0.5, 0.5]
    """
    b, n, c = line.shape
    there = jnp.ones((b, n), bool) if real is None else real
    line = jnp.where(there[..., None], line, 0)
    groups = c // params["taps"].shape[1]
    mixed = _grouped_convolution(line, params["taps"].astype(line.dtype), groups)
    wide = jnp.promote_types(line.dtype, jnp.float32)
    parts = mixed.astype(wide).reshape(b, n, norm_groups, -1)
    counted = there[:, :, None, None]
    count = jnp.maximum(there.sum(1), 1)[:, None, None, None] * parts.shape[-1]
    mean = jnp.where(counted, parts, 0).sum((1, 3), keepdims=True) / count
    apart = jnp.where(counted, parts - mean, 0)
    variance = (apart**2).sum((1, 3), keepdims=True) / count
    normed = (apart * lax.rsqrt(variance + EPSILON)).reshape(b, n, c).astype(line.dtype)
    scale, shift = (params[name].astype(line.dtype) for name in ("scale", "shift"))
    return jax.nn.sigmoid(normed * scale + shift)


def _grouped_convolution(
    line: Float[Array, "b n c"], taps: Float[Array, "width k c"], groups: int
) -> Float[Array, "b n c"]:
    """A convolution along a line, zeros around, in which groups of channels see only themselves."""
    b, n, c = line.shape
    width, each, _ = taps.shape
    padded = jnp.pad(line, [(0, 0), ((width - 1) // 2, width // 2), (0, 0)])
    split = padded.reshape(b, -1, groups, each)
    weights = taps.reshape(width, each, groups, c // groups)
    shifted = (
        jnp.einsum("bngk,kgo->bngo", split[:, tap : tap + n], weights[tap]) for tap in range(width)
    )
    return sum(shifted, jnp.zeros((b, n, groups, c // groups), line.dtype)).reshape(b, n, c)


def efficient_local_attention(
    params: dict[str, Array],
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
    *,
    norm_groups: int = 16,
) -> Float[Array, "b *space c"]:
    """The factors of each place: those of its row times those of its column.

    Args:
        params: as for `line_factors`.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is.
        norm_groups: of the group norm, a divisor of c.

    Reference:
        arXiv 2403.01123.

    Example:
        >>> params = {"taps": jnp.ones((3, 1, 2)), "scale": jnp.zeros(2), "shift": jnp.zeros(2)}
        >>> x = jnp.ones((1, 3, 4, 2))
        >>> efficient_local_attention(params, x, norm_groups=1)[0, 0, 0, 0].item()
        0.25
    """
    if x.ndim == 3:
        # Padding takes no room on the line: real tokens come together, and go back.
        there = jnp.ones(x.shape[:2], bool) if real is None else real
        order = jnp.argsort(~there, axis=1, stable=True)
        together = take_tokens(x, order)
        ordered = jnp.take_along_axis(there, order, axis=1)
        along = line_factors(params, together, ordered, norm_groups=norm_groups)
        return take_tokens(along, jnp.argsort(order, axis=1))
    there = jnp.ones(x.shape[:-1], bool) if real is None else real
    clean = jnp.where(there[..., None], x, 0)
    axes, factors = x.ndim - 2, jnp.ones((), x.dtype)
    for axis in range(axes):
        others = tuple(1 + other for other in range(axes) if other != axis)
        count = there.sum(others)
        mean = clean.sum(others) / jnp.maximum(count, 1)[..., None].astype(x.dtype)
        along = line_factors(params, mean, count > 0, norm_groups=norm_groups)
        factors = factors * jnp.expand_dims(along, others)
    return factors


def make(
    *, dim: int, width: int = 7, groups: int | None = None, norm_groups: int | None = None
) -> Gate:
    """Makes the gate.

    The paper's variants: T is width 5, groups m, norm groups 32; B 7, m, 16; S 5, m / 8, 16;
    L 7, m / 8, 16.

    Args:
        dim: number of channels m.
        width: taps along a line, odd.
        groups: of the convolution, a divisor of m; default m, each channel by itself.
        norm_groups: of the group norm, a divisor of m; default 16, or fewer where m has fewer.

    Raises:
        ValueError: a number that does not divide m.

    Example:
        >>> gate = make(dim=32)
        >>> params = gate.init(jax.random.key(0))
        >>> gate.apply(params, jnp.ones((2, 8, 8, 32))).shape
        (2, 8, 8, 32)
    """
    check_count("dim", dim)
    check_count("width", width)
    groups = dim if groups is None else groups
    if norm_groups is None:
        norm_groups = next(n for n in (16, 8, 4, 2, 1) if dim % n == 0)
    for name, value in (("groups", groups), ("norm_groups", norm_groups)):
        check_count(name, value)
        if dim % value:
            raise ValueError(f"{name}: expected a divisor of dim={dim}, got {value}")

    def init(key):
        bound = (width * dim // groups) ** -0.5
        shape = (width, dim // groups, dim)
        taps = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        return {"taps": taps, "scale": jnp.ones(dim), "shift": jnp.zeros(dim)}

    def factors(params, x, real=None):
        return efficient_local_attention(params, x, real, norm_groups=norm_groups)

    return framed_gate("efficient_local_attention", dim=dim, init=init, factors=factors)


MECHANISM = Mechanism(
    name="efficient_local_attention",
    title="Efficient local attention",
    arxiv="2403.01123",
    family="channel",
    equation="y = x * sigmoid(GN(conv(mean_x))) * sigmoid(GN(conv(mean_y)))",
    core=efficient_local_attention,
    make=make,
    cost="linear",
    kind="gate",
    parameters=("taps", "scale", "shift"),
)
