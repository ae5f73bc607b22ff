"""Positions: sinusoids, rotary embedding of queries and keys, and relative scores by skewing."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape


def sinusoids(
    positions: Int[Array, "*batch"], dim: int, *, base: float = 10000.0
) -> Float[Array, "*batch m"]:
    """Vectors of positions: sin and cos of position * base^(-2 i / m), i = 0 .. m/2 - 1.

    Args:
        positions: of any shape.
        dim: m, even; the sines are the first half of channels, the cosines the second.
        base: the longest wavelength is about 2 pi base.

    Returns:
        `[..., m]`, float32.

    Raises:
        ValueError: m is odd.

    Reference:
        arXiv 1706.03762, section 3.5.

    Example:
        >>> sinusoids(jnp.zeros(1, int), 4).tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim: expected an even number of channels, got {dim}")
    angle = positions[..., None] * base ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def rotary(
    x: Float[Array, "b t h d"],
    positions: Int[Array, "*b t"] | None = None,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
) -> Float[Array, "b t h d"]:
    """Rotates pairs of channels by angles position * base^(-2 i / d), i = 0 .. d/2 - 1.

    Applied to queries and keys, their product depends on the difference of positions only.

    Args:
        x: queries or keys `[b, t, h, d]`, d even.
        positions: `[t]` or `[b, t]`; default 0, 1, 2, ...
        base: the longest wavelength is about 2 pi base.
        interleaved: pair channels (2i, 2i + 1) as in the paper; default pairs (i, i + d/2) as
            in Llama.

    Returns:
        `[b, t, h, d]`, in x's dtype; the angles are computed in float32.

    Raises:
        ValueError: d is odd, or positions do not fit.

    Reference:
        RoFormer, arXiv 2104.09864.

    Example:
        >>> rotary(jnp.ones((1, 3, 2, 8))).shape
        (1, 3, 2, 8)
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "b t h d", sizes)
    if sizes["d"] % 2:
        raise ValueError(f"x: expected an even number of channels, got {sizes['d']}")
    positions = jnp.arange(sizes["t"]) if positions is None else positions
    check_shape("positions", positions, "t" if positions.ndim == 1 else "b t", sizes)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    half = sizes["d"] // 2
    frequency = base ** (-jnp.arange(half, dtype=dtype) / half)
    angle = (positions[..., None].astype(dtype) * frequency)[..., None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    wide = x.astype(dtype)
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
    else:
        first, second = wide[..., :half], wide[..., half:]
    rotated = (first * cos - second * sin, first * sin + second * cos)
    if interleaved:
        return jnp.stack(rotated, axis=-1).reshape(x.shape).astype(x.dtype)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def skew(relative: Float[Array, "b h t n"]) -> Float[Array, "b h t s"]:
    """From scores by distance to scores by key, for a bias: out[i, j] = relative[i, j - i + t - 1].

    Column c of `relative` is the score of the key at distance c - (t - 1) from the query, so the
    columns run from distance -(t - 1) to t - 1. A reshape does it; nothing is gathered.

    Args:
        relative: `[b, h, t, 2 t - 1]`, e.g. the products of each query with an embedding of each
            distance.

    Returns:
        `[b, h, t, t]`, a `bias` for `attend`.

    Raises:
        ValueError: the last axis is not 2 t - 1.

    Reference:
        Music Transformer, arXiv 1809.04281.

    Example:
        >>> skew(jnp.arange(3.0)[None, None, None] * jnp.ones((1, 1, 2, 1)))[0, 0].tolist()
        [[1.0, 2.0], [0.0, 1.0]]
    """
    check_shape("relative", relative, "b h t n", {})
    b, h, t, n = relative.shape
    if n != 2 * t - 1:
        raise ValueError(f"relative: expected 2 t - 1 = {2 * t - 1} columns, got {n}")
    # One column more makes rows of 2 t. Read as rows of 2 t - 1, each starts one place earlier
    # than the one before; what is wanted then stands in the same columns of all rows.
    padded = jnp.pad(relative, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(b, h, -1)
    rows = padded[..., : t * (2 * t - 1)].reshape(b, h, t, 2 * t - 1)
    return rows[..., t - 1 :]
