"""Spatial gating on blocks and grids of an image, as MAXIM has it (arXiv 2201.02973).

A partition `[b, y, x, c] -> [b, cells, places, c]` cuts an image into cells of equal sizes.
A *block* fixes the size of a cell and mixes its places; a *grid* fixes the number of cells and
mixes cells, the same place in all of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.mechanisms.layers.affine import affine, affine_init, norm, norm_init

AXES = {"grid": -3, "block": -2}


def partition(x: Float[Array, "b y x c"], cell: tuple[int, int]) -> Float[Array, "b n p c"]:
    """Cells of `cell` rows and columns, row by row, and the places in each.

    Raises:
        ValueError: a size that the cell does not divide.

    Example:
        >>> partition(jnp.arange(8.0).reshape(1, 2, 4, 1), (2, 2))[0, 1, :, 0].tolist()
        [2.0, 3.0, 6.0, 7.0]
    """
    b, rows, columns, c = x.shape
    high, wide = cell
    if rows % high or columns % wide:
        raise ValueError(f"x: expected sides that are multiples of {cell}, got {rows} x {columns}")
    cells = x.reshape(b, rows // high, high, columns // wide, wide, c).swapaxes(2, 3)
    return cells.reshape(b, -1, high * wide, c)


def assemble(
    x: Float[Array, "b n p c"], shape: tuple[int, int], cell: tuple[int, int]
) -> Float[Array, "b y x c"]:
    """The image of given sides whose `partition` is x.

    Example:
        >>> image = jnp.arange(8.0).reshape(1, 2, 4, 1)
        >>> (assemble(partition(image, (2, 2)), (2, 4), (2, 2)) == image).all().item()
        True
    """
    (rows, columns), (high, wide) = shape, cell
    cells = x.reshape(len(x), rows // high, columns // wide, high, wide, x.shape[-1])
    return cells.swapaxes(2, 3).reshape(len(x), rows, columns, x.shape[-1])


def cell_of(along: str, sizes: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The cell of a partition along a `"grid"` of as many cells, or in `"block"`s of the sizes.

    Example:
        >>> cell_of("grid", (4, 4), (8, 12)), cell_of("block", (4, 4), (8, 12))
        ((2, 3), (4, 4))
    """
    if along == "block":
        return sizes
    return max(shape[0] // sizes[0], 1), max(shape[1] // sizes[1], 1)


def mix(
    params: dict[str, Array],
    x: Float[Array, "b n p c"],
    along: str,
    real: Bool[Array, "b n p"] | None = None,
) -> Float[Array, "b n p c"]:
    """An affine map along cells (`"grid"`) or places (`"block"`), the same for every channel.

    Args:
        params: `weight` `[k, k]` and `bias` `[k]`.
        x: partitioned features.
        along: `"grid"` or `"block"`.
        real: False where there is nothing, which counts as zero.
    """
    x = x if real is None else jnp.where(real[..., None], x, 0)
    return jnp.moveaxis(affine(params, jnp.moveaxis(x, AXES[along], -1)), -1, AXES[along])


def mix_init(key: jax.Array, size: int, bias: float) -> dict[str, Array]:
    """Weights of `mix`, N(0, 0.02^2), and a constant bias."""
    weight = 0.02 * jax.random.normal(key, (size, size))
    return {"weight": weight, "bias": jnp.full(size, bias)}


def gmlp_init(key: jax.Array, channels: int, size: int) -> dict[str, Any]:
    """Parameters of `gmlp`; the gate is about 1 at first."""
    inner, outer, spread = jax.random.split(key, 3)
    return {
        "norm": norm_init(channels),
        "inner": affine_init(inner, channels, 2 * channels),
        "gate_norm": norm_init(channels),
        "mix": mix_init(spread, size, 0.0),
        "outer": affine_init(outer, channels, channels),
    }


def gmlp(
    params: dict[str, Any],
    x: Float[Array, "b n p c"],
    along: str,
    real: Bool[Array, "b n p"] | None = None,
) -> Float[Array, "b n p c"]:
    """`x + (u * (1 + mix(LN(v)))) outer`, where `[u, v] = gelu(LN(x) inner)`.

    Args:
        params: of `gmlp_init`.
        x: partitioned features.
        along: `"grid"` or `"block"`, what `mix` goes along.
        real: False where there is nothing.

    Reference:
        arXiv 2201.02973; the unit, arXiv 2105.08050.
    """
    u, v = jnp.split(jax.nn.gelu(affine(params["inner"], norm(params["norm"], x))), 2, axis=-1)
    gate = mix(params["mix"], norm(params["gate_norm"], v), along, real)
    return x + affine(params["outer"], u * (gate + 1))
