"""Global second-order pooling, GSoP (Gao et al. 2018, arXiv 1811.12006).

    z = x W_reduce + b,   S = cov_t(z),   r_i = BN(S)_i R_i + b_i  in R^4
    y = x * sigmoid(r W + b)

The covariance of a few mixed channels over space, row by row, decides on all channels.

Distinctive: correlations of channels, where other gates see one channel at a time.

Limits: S is symmetric and positive semidefinite, whatever the order of tokens. The implementation
in arXiv 2310.11198 leaves the sigmoid out: `activation="none"`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.mechanisms.frames.kinds import framed_gate
from jattn.mechanisms.kinds import Gate
from jattn.mechanisms.layers.affine import affine, affine_init, norm_init
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.layers.means import count_over_space, mean_over_space
from jattn.mechanisms.mechanism import Mechanism

ACTIVATIONS = ("sigmoid", "none")
EACH = 4  # numbers that a row of the covariance becomes


def covariance(
    z: Float[Array, "b *space k"], real: Bool[Array, " b *space"] | None = None
) -> Float[Array, "b k k"]:
    """Covariances of channels over space, of n - 1 places; 0 of a single one.

    Example:
        >>> covariance(jnp.array([[[1.0, 0.0], [3.0, 2.0]]])).tolist()
        [[[2.0, 2.0], [2.0, 2.0]]]
    """
    apart = z - mean_over_space(z, real)
    apart = apart if real is None else jnp.where(real[..., None], apart, 0)
    apart = apart.reshape(len(z), -1, z.shape[-1])
    count = count_over_space(z, real).reshape(len(z), 1, 1)
    return jnp.einsum("bti,btj->bij", apart, apart) / jnp.maximum(count - 1, 1)


def second_order_pooling(
    params: dict,
    x: Float[Array, "b *space c"],
    real: Bool[Array, " b *space"] | None = None,
    *,
    activation: str = "sigmoid",
    norm=running_norm,
) -> Float[Array, "b *one c"]:
    """A factor for each channel, from covariances.

    Args:
        params: `reduce` `[c, k]` and `expand` `[4 k, c]` with biases; `rows` `[k, k, 4]` and
            `rows_bias` `[k, 4]`, what each row becomes; `norm` and `statistics` `[k]` of batch
            norm, over rows' numbers.
        x: tokens `[b, t, c]` or images `[b, y, x, c]`.
        real: False where x is padding; default none is.
        activation: `"sigmoid"` or `"none"`.
        norm: of the covariance, `(params, [b, column, row]) -> the same`.

    Returns:
        Factors, with axes of space 1 long.

    Reference:
        arXiv 1811.12006.

    Example:
        >>> params = make(dim=8).init(jax.random.key(0))
        >>> second_order_pooling(params, jnp.ones((2, 6, 8))).shape
        (2, 1, 8)
    """
    found = covariance(affine(params["reduce"], x), real)
    normed = norm(params, found)  # symmetric: its last axis may as well be that of rows
    rows = jnp.einsum("bji,ijk->bik", normed, params["rows"].astype(x.dtype))
    rows = rows + params["rows_bias"].astype(x.dtype)
    z = affine(params["expand"], rows.reshape(len(x), -1))
    z = jax.nn.sigmoid(z) if activation == "sigmoid" else z
    return z.reshape(len(x), *[1] * (x.ndim - 2), -1)


def make(*, dim: int, reduction: int = 4, activation: str = "sigmoid") -> Gate:
    """Makes the gate.

    Args:
        dim: number of channels m.
        reduction: the covariance is of m / reduction mixed channels, two at least.
        activation: of the factors, `"sigmoid"` or `"none"`.

    Raises:
        ValueError: an unknown activation, or a number below 1.

    Example:
        >>> gate = make(dim=8)
        >>> gate.apply(gate.init(jax.random.key(0)), jnp.ones((2, 6, 8))).shape
        (2, 6, 8)
    """
    check_count("dim", dim)
    check_count("reduction", reduction)
    check_choice("activation", activation, ACTIVATIONS)
    few = max(dim // reduction, 2)

    def init(key):
        reduce, rows, expand = jax.random.split(key, 3)
        bound = few**-0.5
        return {
            "reduce": affine_init(reduce, dim, few),
            "norm": norm_init(few),
            "statistics": statistics_init(few),
            "rows": jax.random.uniform(rows, (few, few, EACH), minval=-bound, maxval=bound),
            "rows_bias": jnp.zeros((few, EACH)),
            "expand": affine_init(expand, EACH * few, dim),
        }

    def factors(params, x, real=None, norm=running_norm):
        return second_order_pooling(params, x, real, activation=activation, norm=norm)

    return framed_gate("second_order_pooling", dim=dim, init=init, factors=factors, normed=True)


MECHANISM = Mechanism(
    name="second_order_pooling",
    title="GSoP: global second-order pooling",
    arxiv="1811.12006",
    family="channel",
    equation="y = x * sigmoid(W rows(BN(cov(x W_reduce))))",
    core=second_order_pooling,
    make=make,
    cost="linear",
    kind="gate",
    equivariant=True,
    parameters=("reduce", "norm", "statistics", "rows", "rows_bias", "expand"),
    statistics=("statistics",),
    idle=("reduce/bias",),  # a covariance does not see it: its gradient is rounding, or exactly 0
)
