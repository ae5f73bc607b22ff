"""Cross gating of MAXIM (Tu et al. 2022, arXiv 2201.02973): each of two streams gates the other.

    x1 = gelu(LN(x) W_x),   y1 = gelu(LN(y) W_y)
    y' = (y1 * g(x1)) V_y + y,   x' = (x1 * g(y1)) V_x + y' + x

g mixes half of its channels over a grid, half in blocks, and begins near 1.

Distinctive: multiplication in the place of cross-attention; both streams must be of one size.

Limits: V zero leaves y' = y and x' = x + y.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape
from jattn.mechanisms.layers.affine import affine, affine_init, norm, norm_init
from jattn.mechanisms.layers.grid_mlp import assemble, cell_of, mix, mix_init, partition

Sizes = tuple[int, int]


def multi_axis_gate(
    params: dict[str, Any], x: Float[Array, "b y x c"], *, block: Sizes, grid: Sizes
) -> Float[Array, "b y x c"]:
    """g: features mixed over a grid and in blocks, to multiply another stream with.

    Args:
        params: `norm`, `inner`, `grid`, `block` and `outer`.
        x: features, whose sides are multiples of both sizes.
        block: sides of a block.
        grid: numbers of cells.
    """
    shape, sizes = (x.shape[1], x.shape[2]), {"grid": grid, "block": block}
    hidden = jax.nn.gelu(affine(params["inner"], norm(params["norm"], x)))
    mixed = []
    for along, half in zip(("grid", "block"), jnp.split(hidden, 2, axis=-1), strict=True):
        cell = cell_of(along, sizes[along], shape)
        mixed.append(assemble(mix(params[along], partition(half, cell), along), shape, cell))
    return affine(params["outer"], jnp.concatenate(mixed, axis=-1))


def cross_gating(
    params: dict[str, Any],
    x: Float[Array, "b h w m"],
    y: Float[Array, "b h w n"],
    *,
    block: Sizes,
    grid: Sizes,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Both streams, each gated by the other; x takes in what becomes of y, too.

    Args:
        params: of `cross_gating_init`.
        x, y: two streams of one size.
        block: sides of a block.
        grid: numbers of cells.

    Returns:
        x' and y'.

    Raises:
        ValueError: streams of different sizes, or sides that do not fit.

    Reference:
        arXiv 2201.02973.

    Example:
        >>> params = cross_gating_init(jax.random.key(0), (4, 4), 4, grid=4, block=4)
        >>> x = jnp.ones((1, 4, 4, 4))
        >>> [out.shape for out in cross_gating(params, x, x, block=(2, 2), grid=(2, 2))]
        [(1, 4, 4, 4), (1, 4, 4, 4)]
    """
    check_shape("y", y, "b h w n", {"b": x.shape[0], "h": x.shape[1], "w": x.shape[2]})
    streams = {"x": affine(params["x"]["enter"], x), "y": affine(params["y"]["enter"], y)}
    opened, gates = {}, {}
    for name, stream in streams.items():
        own = params[name]
        opened[name] = jax.nn.gelu(affine(own["inner"], norm(own["norm"], stream)))
        gates[name] = multi_axis_gate(own["gate"], opened[name], block=block, grid=grid)
    y = affine(params["y"]["outer"], opened["y"] * gates["x"]) + streams["y"]
    x = affine(params["x"]["outer"], opened["x"] * gates["y"]) + y + streams["x"]
    return x, y


def cross_gating_init(
    key: jax.Array, inputs: tuple[int, int], channels: int, *, grid: int, block: int
) -> dict[str, Any]:
    """Parameters of two streams of so many channels, for as many cells, and places in a block."""

    def stream(key, size):
        enter, inner, outer, *own = jax.random.split(key, 7)
        return {
            "enter": affine_init(enter, size, channels),
            "norm": norm_init(channels),
            "inner": affine_init(inner, channels, channels),
            "outer": affine_init(outer, channels, channels),
            "gate": {
                "norm": norm_init(channels),
                "inner": affine_init(own[0], channels, 2 * channels),
                "grid": mix_init(own[1], grid, 1.0),
                "block": mix_init(own[2], block, 1.0),
                "outer": affine_init(own[3], 2 * channels, channels),
            },
        }

    keys = jax.random.split(key)
    return {name: stream(k, size) for name, k, size in zip("xy", keys, inputs, strict=True)}
