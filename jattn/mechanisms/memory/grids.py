"""Stencils, pooling and interpolation on grids of cells, for partial differential equations."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape


def shifted(u: Float[Array, "*shape"], distance: int, axis: int) -> Float[Array, "*shape"]:
    """The array whose entry i is entry i - distance; beyond an edge, the edge's.

    Args:
        u: any array.
        distance: how far back to look; negative, ahead.
        axis: along which.

    Example:
        >>> shifted(jnp.array([1.0, 2.0, 3.0]), 2, 0).tolist()
        [1.0, 1.0, 1.0]
        >>> shifted(jnp.array([1.0, 2.0, 3.0]), -1, 0).tolist()
        [2.0, 3.0, 3.0]
    """
    length = u.shape[axis]
    part = lambda start, stop: lax.slice_in_dim(u, start, stop, axis=axis)
    outside = min(abs(distance), length)
    if distance >= 0:
        pieces = [part(0, 1)] * outside + [part(0, length - outside)]
    else:
        pieces = [part(outside, length)] + [part(length - 1, length)] * outside
    return jnp.concatenate(pieces, axis)


def laplacian1d(
    u: Float[Array, "b t c"],
    coefficients: Float[Array, "n c"],
    dilations: Sequence[int],
    *,
    causal: bool = False,
) -> Float[Array, "b t c"]:
    """Second differences of a sequence at several distances d, weighted and summed.

        sum_n D_n (u[t - d] - 2 u[t] + u[t + d]),   causally u[t - 2d] - 2 u[t - d] + u[t]

    Args:
        u: `[b, t, c]`; its edges go on without end.
        coefficients: D, a row for each distance, `[n, c]`.
        dilations: n distances d.
        causal: look back only.

    Returns:
        `[b, t, c]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2603.21315.

    Example:
        >>> u = jnp.array([0.0, 0.0, 1.0, 0.0])[None, :, None]
        >>> laplacian1d(u, jnp.ones((1, 1)), (1,))[0, :, 0].tolist()
        [0.0, 1.0, -2.0, 1.0]
    """
    _check(u, "b t c", coefficients, dilations)
    total = jnp.zeros_like(u)
    for d, weight in zip(dilations, coefficients, strict=True):
        back = shifted(u, d, 1)
        if causal:
            total += weight * (u - 2 * back + shifted(u, 2 * d, 1))
        else:
            total += weight * (back - 2 * u + shifted(u, -d, 1))
    return total


def laplacian2d(
    u: Float[Array, "b h w c"], coefficients: Float[Array, "n c"], dilations: Sequence[int]
) -> Float[Array, "b h w c"]:
    """The five-point Laplacian of images at several distances d, weighted and summed.

        sum_n D_n (u[y-d, x] + u[y+d, x] + u[y, x-d] + u[y, x+d] - 4 u[y, x])

    Args:
        u: `[b, h, w, c]`; its edges go on without end.
        coefficients: D, a row for each distance, `[n, c]`.
        dilations: n distances d.

    Returns:
        `[b, h, w, c]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2603.21315.

    Example:
        >>> u = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0)
        >>> laplacian2d(u, jnp.ones((1, 1)), (1,))[0, 1, :, 0].tolist()
        [1.0, -4.0, 1.0]
    """
    _check(u, "b h w c", coefficients, dilations)
    total = jnp.zeros_like(u)
    for d, weight in zip(dilations, coefficients, strict=True):
        around = sum((shifted(u, sign * d, axis) for axis in (1, 2) for sign in (1, -1)), -4 * u)
        total += weight * around
    return total


def _check(u: Array, axes: str, coefficients: Array, dilations: Sequence[int]) -> None:
    sizes = {"n": len(dilations)}
    check_shape("u", u, axes, sizes)
    check_shape("coefficients", coefficients, "n c", sizes)
    if any(d < 1 for d in dilations):
        raise ValueError(f"dilations: expected at least 1 each, got {tuple(dilations)}")


def pool_weights(
    index: Int[Array, "b t"], length: Int[Array, "b 1"], cells: int
) -> Float[Array, "b n t"]:
    """Weights of the mean of each of n cells that a line of tokens is cut into.

    Cell i is from floor(i length / n) to ceil((i + 1) length / n), so that cells overlap where n
    does not divide the length, and repeat where it is larger.

    Args:
        index: 0, 1, ..., length - 1, or others where there is nothing to be pooled.
        length: how many tokens there are.
        cells: n.

    Example:
        >>> pool_weights(jnp.arange(3)[None], jnp.full((1, 1), 3), 2)[0].tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    cell = jnp.arange(cells)
    start = cell * length // cells
    stop = -(-(cell + 1) * length // cells)
    inside = (index[:, None] >= start[..., None]) & (index[:, None] < stop[..., None])
    return inside / jnp.maximum(stop - start, 1)[..., None]


def interpolation_weights(
    index: Int[Array, "b t"], length: Int[Array, "b 1"], cells: int
) -> Float[Array, "b t n"]:
    """Weights that interpolate n cells linearly between their centres; beyond the last, its own.

    Args:
        index: 0, 1, ..., length - 1.
        length: how many tokens there are.
        cells: n.

    Example:
        >>> interpolation_weights(jnp.arange(4)[None], jnp.full((1, 1), 4), 2)[0].tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    centre = (index + 0.5) * cells / jnp.maximum(length, 1) - 0.5
    centre = jnp.clip(centre, 0, cells - 1)
    return jnp.maximum(1 - jnp.abs(centre[..., None] - jnp.arange(cells)), 0)
