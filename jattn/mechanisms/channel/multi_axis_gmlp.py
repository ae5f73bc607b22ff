"""Multi-axis gated MLP, MAXIM (Tu et al. 2022, arXiv 2201.02973).

    [g, l] = gelu(LN(x) W_in)
    y = [gMLP over a grid of d x d cells (g); gMLP in blocks of b x b (l)] W_out

A gated MLP whose gate mixes places: over a grid the same place of all cells, which is far apart; in
blocks all places of a block. Weights are tied to d and b, not to the size of the image, and cost is
linear in it.

Distinctive: every place hears from all others in two layers, without a map of attention.

Limits: mixing weights and biases of zero make the gate 1, and plain MLPs; with W_out zero nothing
is added. Blocks do not see each other; a grid mixes only places of equal offset in their cells.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.layers.affine import affine, affine_init, norm, norm_init
from jattn.mechanisms.layers.grid_mlp import assemble, cell_of, gmlp, gmlp_init, partition
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def multi_axis_gmlp(
    params: dict[str, Any],
    x: Float[Array, "b y x c"],
    *,
    block: tuple[int, int],
    grid: tuple[int, int],
) -> Float[Array, "b y x c"]:
    """What the block adds to an image's features; the authors' block returns x with it.

    Args:
        params: `norm`, `inner`, `grid`, `block` and `outer`, as `multi_axis_gmlp_init` makes them.
        x: features, whose sides are multiples of both sizes.
        block: sides of a block.
        grid: numbers of cells.

    Raises:
        ValueError: sides that do not fit.

    Reference:
        arXiv 2201.02973.

    Example:
        >>> params = multi_axis_gmlp_init(jax.random.key(0), 4, grid=4, block=4)
        >>> multi_axis_gmlp(params, jnp.ones((1, 4, 8, 4)), block=(2, 2), grid=(2, 2)).shape
        (1, 4, 8, 4)
    """
    shape, sizes = (x.shape[1], x.shape[2]), {"grid": grid, "block": block}

    def mixed(along, z):
        cell = cell_of(along, sizes[along], shape)
        return assemble(gmlp(params[along], partition(z, cell), along), shape, cell)

    return _through(params, x, mixed)


def _through(params, x, mixed):
    """Both halves of what comes in, each mixed along its axis, and put together."""
    hidden = jax.nn.gelu(affine(params["inner"], norm(params["norm"], x)))
    halves = zip(("grid", "block"), jnp.split(hidden, 2, axis=-1), strict=True)
    return affine(params["outer"], jnp.concatenate([mixed(*half) for half in halves], axis=-1))


def multi_axis_gmlp_init(key: jax.Array, channels: int, *, grid: int, block: int) -> dict[str, Any]:
    """Parameters for as many cells of the grid, and places in a block."""
    inner, outer, far, near = jax.random.split(key, 4)
    return {
        "norm": norm_init(channels),
        "inner": affine_init(inner, channels, 2 * channels),
        "grid": gmlp_init(far, channels, grid),
        "block": gmlp_init(near, channels, block),
        "outer": affine_init(outer, 2 * channels, channels),
    }


def on_a_line(
    params: dict[str, Any], x: Float[Array, "b t c"], real: Any, *, block: int, grid: int
) -> Float[Array, "b t c"]:
    """The same on a sequence: cells are stretches of it, the last ones perhaps not full.

    Args:
        params: of `multi_axis_gmlp_init`.
        x: tokens, real ones in front.
        real: False where x is padding; None: none is.
        block: tokens of a block.
        grid: number of cells that the real tokens are cut into.
    """
    b, length, _ = x.shape
    count = jnp.full(b, length) if real is None else real.sum(1)

    def mixed(along, z):
        if along == "block":
            cells, places = -(-length // block), block
            stride = jnp.full(b, block)
        else:
            cells, places = grid, -(-length // grid)
            stride = jnp.maximum(-(-count // grid), 1)
        offset, number = jnp.arange(places), jnp.arange(cells)
        token = number[:, None] * stride[:, None, None] + offset
        there = (offset < stride[:, None, None]) & (token < count[:, None, None])
        index = jnp.minimum(token, length - 1).reshape(b, -1, 1)
        laid = jnp.take_along_axis(z, index, axis=1).reshape(b, cells, places, -1)
        out = gmlp(params[along], laid, along, there).reshape(b, cells * places, -1)
        position = jnp.broadcast_to(jnp.arange(length), (b, length))
        cell = jnp.minimum(position // stride[:, None], cells - 1)
        back = jnp.minimum(cell * places + position % stride[:, None], cells * places - 1)
        return jnp.take_along_axis(out, back[..., None], axis=1)

    return _through(params, x, mixed)


def make(*, dim: int, heads: int, causal: bool = False, block: int = 4, grid: int = 4) -> Mixer:
    """Makes the mixer of tokens, on a line; the residual is the block's around it.

    Args:
        dim: model dimension m.
        heads: there are none; a divisor of m, as everywhere.
        causal: False; the gate sees all tokens.
        block: tokens of a block.
        grid: cells of the grid.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=1)
        >>> mixer.apply(mixer.init(jax.random.key(0)), jnp.ones((1, 12, 8))).shape
        (1, 12, 8)
    """
    if causal is not False:
        raise ValueError("causal: multi_axis_gmlp mixes all tokens; pass causal=False")
    check_heads(dim, heads)
    check_count("block", block)
    check_count("grid", grid)

    return framed(
        "multi_axis_gmlp",
        dim=dim,
        init=lambda key: multi_axis_gmlp_init(key, dim, grid=grid, block=block),
        apply=lambda params, given: on_a_line(params, given.x, given.real, block=block, grid=grid),
        takes="row",
        causal=False,
    )


MECHANISM = Mechanism(
    name="multi_axis_gmlp",
    title="MAXIM: multi-axis gated MLP",
    arxiv="2201.02973",
    family="channel",
    equation="y = [gMLP_grid(g); gMLP_block(l)] W_out, [g, l] = gelu(LN(x) W_in)",
    core=multi_axis_gmlp,
    make=make,
    bidirectional=True,
    documents="never",
    cost="linear",
    parameters=("norm", "inner", "grid", "block", "outer"),
    absent=("query", "key", "value", "output"),
)
