"""Gather and excite (Hu et al. 2018, arXiv 1810.12348): what gathers may be learned.

    minus   y = x * sigmoid(mean(x))                                    no parameters
    theta   y = x * sigmoid(BN(sum_t w_tc x_tc))
    plus    y = x * sigmoid(W_up relu(W_down BN(sum_t w_tc x_tc)))

Distinctive: each channel has a weight for each place, so space must be of a known size; shorter
inputs meet the first of the weights.

Limits: weights 1 / T with averages 0 and variances 1 make of theta the form without parameters.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.affine import norm_init
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.layers.bottleneck import bottleneck, bottleneck_init
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.mechanism import Mechanism

FORMS = ("minus", "theta", "plus")


def gather_excite(
    params: dict,
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
    *,
    form: str = "plus",
    norm=running_norm,
) -> Float[Array, "b *one c"]:
    """A factor for each channel, from its mean or a learned weighted sum.

    Args:
        params: none for `"minus"`; else `gather` `[places, c]`, and `norm` and `statistics` of
            batch norm; for `"plus"` `down` and `up`, too.
        x: tokens `[b, t, c]`, real ones in front, or images `[b, y, x, c]`, whose places are
            counted row by row.
        real: False where x is padding; default none is.
        form: `"minus"`, `"theta"` or `"plus"`.
        norm: of the sums, `(params, sums) -> sums`.

    Returns:
        Factors in (0, 1), with axes of space 1 long.

    Raises:
        ValueError: more places than there are weights for.

    Reference:
        arXiv 1810.12348.

    Example:
        >>> gather_excite({}, jnp.zeros((1, 4, 2)), form="minus").tolist()
        [[[0.5, 0.5]]]
    """
    mean = mean_over_space(x, real)
    if form == "minus":
        return jax.nn.sigmoid(mean)
    places, known = math.prod(x.shape[1:-1]), len(params["gather"])
    if places > known:
        raise ValueError(f"x: expected at most extent={known} places, got {places}")
    weight = params["gather"][:places].astype(x.dtype)
    clean = x if real is None else jnp.where(real[..., None], x, 0)
    gathered = jnp.einsum("btc,tc->bc", clean.reshape(len(x), places, -1), weight)
    z = norm(params, gathered)
    z = bottleneck(params, z) if form == "plus" else z
    return jax.nn.sigmoid(z).reshape(mean.shape)


def make(*, dim: int, form: str = "plus", extent: int = 1024, reduction: int = 4) -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        form: `"minus"` has no parameters, `"theta"` weights for all places, `"plus"` a bottleneck
            behind them.
        extent: the most places there may be.
        reduction: by how much the hidden layer is narrower than m; it has one unit at least.

    Raises:
        ValueError: an unknown form, or a number below 1.

    Example:
        >>> gate = make(dim=8, form="theta", extent=6)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 8))).shape
        (2, 6, 8)
    """
    check_count("dim", dim)
    check_choice("form", form, FORMS)
    check_count("extent", extent)
    check_count("reduction", reduction)

    def init(key):
        if form == "minus":
            return {}
        gather, narrow = jax.random.split(key)
        bound = extent**-0.5
        params = {
            "gather": jax.random.uniform(gather, (extent, dim), minval=-bound, maxval=bound),
            "norm": norm_init(dim),
            "statistics": statistics_init(dim),
        }
        return params | (bottleneck_init(narrow, dim, reduction) if form == "plus" else {})

    def factors(params, x, real=None, norm=running_norm):
        return gather_excite(params, x, real, form=form, norm=norm)

    return framed_gate(
        "gather_excite",
        dim=dim,
        init=init,
        factors=factors,
        by_index=form != "minus",
        normed=form != "minus",
    )


MECHANISM = Mechanism(
    name="gather_excite",
    title="Gather-excite: exploiting feature context",
    arxiv="1810.12348",
    family="channel",
    equation="y = x * sigmoid(W_up relu(W_down BN(sum_t w_tc x_tc)))",
    core=gather_excite,
    make=make,
    cost="linear",
    kind="gate",
    parameters=("gather", "norm", "statistics", "down", "up"),
    statistics=("statistics",),
)
