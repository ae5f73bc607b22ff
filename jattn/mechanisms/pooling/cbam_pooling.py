"""Pooling behind a gate over channels and places, CBAM (Woo et al. 2018, arXiv 1807.06521).

    x1 = x * sigmoid(MLP(mean_n x) + MLP(max_n x)), x2 = x1 * sigmoid(BN(conv([mean_c, max_c] x1)))
    y = mean_n relu(x + x2)

As a probe of frozen encoders (arXiv 2506.10178): the gate, a residual, and a plain mean.

Distinctive: neighbours of a token decide on it; tokens have an order, or, with `grid`, a place.

Limits: factors of 0 leave the mean of relu(x).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.extremes import largest
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import norm_init
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.convolutions import convolution
from jattn.mechanisms.layers.means import max_over_space, mean_over_space
from jattn.mechanisms.layers.size_checks import check_grid
from jattn.mechanisms.mechanism import Mechanism


def cbam_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    grid: tuple[int, int] | None = None,
    norm=running_norm,
) -> Float[Array, "b 1 m"]:
    """The mean of tokens with their gated selves added.

    Args:
        params: `down` and `up`; `taps` `[..., 2, 1]`; `norm` and `statistics` of batch norm.
        x: the tokens, real ones in front.
        real: False where x is padding; default none is. Zeros come out where none is real.
        grid: rows and columns that the tokens come from; default they are a line.
        norm: of the convolution, `(params, z, real) -> z`.

    Raises:
        ValueError: another number of tokens than the grid has.

    Reference:
        arXiv 1807.06521, 2506.10178.

    Example:
        >>> params = make(dim=4).init(jax.random.key(0)) | {"up": jnp.zeros((1, 4))}
        >>> cbam_pooling(params, jnp.ones((1, 3, 4))).shape
        (1, 1, 4)
    """
    statistics = mean_over_space(x, real), max_over_space(x, real)
    y = x * jax.nn.sigmoid(sum(bottleneck(params, z) for z in statistics))
    both = jnp.concatenate([y.mean(-1, keepdims=True), largest(y, -1)], axis=-1)
    both = both if real is None else jnp.where(real[..., None], both, 0)
    if grid is not None:
        if x.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"x: expected {grid[0]} x {grid[1]} tokens, got {x.shape[1]}")
        both = both.reshape(len(x), *grid, 2)
    logits = convolution(both, params["taps"]).reshape(*x.shape[:2], 1)
    y = y * jax.nn.sigmoid(norm(params, logits, real))
    return mean_over_space(jax.nn.relu(x + y), real)


def make(
    *, dim: int, reduction: int = 16, width: int = 7, grid: tuple[int, int] | None = None
) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        reduction: by how much the hidden layer is narrower than m; it has one unit at least.
        width: of the convolution, along each axis.
        grid: rows and columns that the tokens come from; default they are a line.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, grid=(2, 3))
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 6, 8))).shape
        (1, 1, 8)
    """
    for name, number in (("dim", dim), ("reduction", reduction), ("width", width)):
        check_count(name, number)
    place = None if grid is None else check_grid(grid)
    axes = 1 if place is None else 2

    def init(key):
        narrow, taps = jax.random.split(key)
        shape, bound = (*[width] * axes, 2, 1), (2 * width**axes) ** -0.5
        return bottleneck_init(narrow, dim, reduction) | {
            "taps": jax.random.uniform(taps, shape, minval=-bound, maxval=bound),
            "norm": norm_init(1),
            "statistics": statistics_init(1),
        }

    def apply(params, x, real, norm=running_norm):
        return cbam_pooling(params, x, real, grid=place, norm=norm)

    by_index = place is None  # on a grid each token has its place
    return framed_pool(
        "cbam_pooling", dim=dim, init=init, apply=apply, by_index=by_index, normed=True
    )


MECHANISM = Mechanism(
    name="cbam_pooling",
    title="CBAM before a mean, as a probe",
    arxiv="1807.06521",
    family="pooling",
    equation="y = mean_n relu(x + CBAM(x))",
    core=cbam_pooling,
    make=make,
    cost="linear",
    kind="pool",
    parameters=("down", "up", "taps", "norm", "statistics"),
    statistics=("statistics",),
)
