"""Sequence layers as regression at test time: what each one fits to the pairs that it has seen.

A layer that has seen keys k_j and values v_j answers a query q by a fit of values by keys. Each of
these is linear in the values, so it is a smoother: a matrix A of weights, out = A v.

    linear attention    one step of gradient descent from zero on sum_j |v_j - W k_j|^2 / 2
    delta rule          the same one pair at a time, online
    Mesa layer          ridge regression, the minimum itself
    softmax attention   a constant, fitted with weights exp(s_j): Nadaraya and Watson's estimate
    local linear        a line, fitted with the same weights, and read at q

Here are the definitions, solved as they stand, to compare the mechanisms with; and bias and
variance, which a smoother shows without any sampling. `leading_terms` has the classical expansion
for a narrow Gaussian kernel: at a boundary of the data a constant's bias is of order h, a line's of
order h^2, as both are inside.

Reference: arXiv 2510.01450; arXiv 2501.12352 (test-time regression); Fan and Gijbels, Local
Polynomial Modelling and Its Applications, 1996.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.checks import check_choice
from jattn.mechanisms.linear.local_linear_attention import eliminate

Number = float | Float[Array, ""]


def gradient_step(
    query: Float[Array, "m d"], key: Float[Array, "n d"], *, rate: Number
) -> Float[Array, "m n"]:
    """Weights of one step from zero: `a_j = rate q.k_j`, linear attention.

    Example:
        >>> gradient_step(jnp.eye(2), jnp.eye(2), rate=0.5).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    return rate * query @ key.T


def online_gradient_descent(
    query: Float[Array, "m d"], key: Float[Array, "n d"], *, rate: Number
) -> Float[Array, "m n"]:
    """Weights of one pass, a step for every pair: the delta rule.

        a_j = rate k_j^T (I - rate k_{j+1} k_{j+1}^T) ... (I - rate k_n k_n^T) q

    Example:
        >>> key = jnp.array([[1.0, 0.0], [1.0, 0.0]])  # The second write replaces the first.
        >>> online_gradient_descent(key[:1], key, rate=1.0).tolist()
        [[0.0, 1.0]]
    """

    def back(left, k):
        weight = rate * left @ k
        return left - weight[:, None] * k, weight

    return jax.lax.scan(back, query, key, reverse=True)[1].T


def ridge_regression(
    query: Float[Array, "m d"],
    key: Float[Array, "n d"],
    *,
    penalty: Number,
    intercept: bool = False,
) -> Float[Array, "m n"]:
    """Weights of ridge regression: `a = K (K^T K + penalty I)^-1 q`, the Mesa layer.

    Args:
        query: `[m, d]`.
        key: `[n, d]`.
        penalty: of the slopes; an intercept has none.
        intercept: fit a constant, too: then keys and queries are centred, and 1 / n is added.

    Example:
        >>> ridge_regression(jnp.eye(2), jnp.eye(2), penalty=1.0).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    if intercept:
        mean = key.mean(0)
        slopes = ridge_regression(query - mean, key - mean, penalty=penalty)
        return slopes + 1 / len(key)
    gram = key.T @ key + penalty * jnp.eye(key.shape[1], dtype=key.dtype)
    return eliminate(jnp.broadcast_to(gram, (len(query), *gram.shape)), query) @ key.T


def gaussian_scores(
    query: Float[Array, "m d"], key: Float[Array, "n d"], *, bandwidth: Number
) -> Float[Array, "m n"]:
    """`-|q - k|^2 / (2 bandwidth^2)`; for unit vectors q.k / bandwidth^2 and a constant."""
    gaps = query[:, None] - key
    return -(gaps**2).sum(-1) / (2 * bandwidth**2)


def local_constant(scores: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Weights of `min_b sum_j exp(s_j) |v_j - b|^2`: softmax of the scores."""
    return jax.nn.softmax(scores, -1)


def local_linear(
    query: Float[Array, "m d"],
    key: Float[Array, "n d"],
    scores: Float[Array, "m n"],
    *,
    ridge: Number,
) -> Float[Array, "m n"]:
    """Weights of the b in `min_{b, W} sum_j p_j |v_j - b - W (k_j - q)|^2 + ridge |W|^2`.

    Args:
        query: `[m, d]`.
        key: `[n, d]`.
        scores: s, `[m, n]`; p is their softmax.
        ridge: of the slopes, positive.

    Returns:
        `[m, n]`, rows sum to one: the first row of `(X^T P X + ridge D)^-1 X^T P`, where row j of X
        is `[1, k_j - q]` and D is the identity without its first entry.

    Example:
        >>> key = jnp.array([[0.0], [1.0]])  # Through two points, read at 2: extrapolation.
        >>> weights = local_linear(jnp.array([[2.0]]), key, jnp.zeros((1, 2)), ridge=1e-6)
        >>> weights.round(2).tolist()
        [[-1.0, 2.0]]
    """
    p = local_constant(scores)
    gaps = key - query[:, None]
    inputs = jnp.concatenate([jnp.ones_like(gaps[..., :1]), gaps], -1)
    penalty = ridge * jnp.eye(inputs.shape[-1], dtype=key.dtype).at[0, 0].set(0)
    gram = jnp.einsum("mn,mni,mnj->mij", p, inputs, inputs) + penalty
    first = jnp.zeros_like(inputs[:, 0]).at[:, 0].set(1)
    return p * jnp.einsum("mni,mi->mn", inputs, eliminate(gram, first))


class Errors(NamedTuple):
    """Expected squared error of a smoother at each query, summed over outputs.

    Attributes:
        bias: squared: what would be wrong without noise.
        variance: what the noise adds.
    """

    bias: Float[Array, "*batch m"]
    variance: Float[Array, "*batch m"]

    @property
    def total(self) -> Float[Array, "*batch m"]:
        """The expected squared error."""
        return self.bias + self.variance


def bias_and_variance(
    weights: Float[Array, "*batch m n"],
    clean: Float[Array, "n e"],
    target: Float[Array, "m e"],
    *,
    noise_variance: Number,
) -> Errors:
    """Errors of `weights @ (clean + noise)` as an estimate of the target, over the noise.

        bias^2 = |A f(K) - f(q)|^2,   variance = e sigma^2 sum_j a_j^2

    Args:
        weights: A `[..., m, n]`.
        clean: values at the keys without noise, `[n, e]`.
        target: the value at each query, `[m, e]`.
        noise_variance: sigma^2 of each number.

    Returns:
        `Errors`.

    Example:
        >>> mean = jnp.full((1, 4), 0.25)
        >>> errors = bias_and_variance(mean, jnp.ones((4, 1)), jnp.zeros((1, 1)), noise_variance=1.0)
        >>> float(errors.bias[0]), float(errors.variance[0])
        (1.0, 0.25)
    """  # noqa: E501
    bias = ((weights @ clean - target) ** 2).sum(-1)
    return Errors(bias, clean.shape[-1] * noise_variance * (weights**2).sum(-1))


class LeadingTerms(NamedTuple):
    """Bias and variance of a narrow kernel in one dimension, to leading order.

        bias = bias h^order f^(order),   variance = variance sigma^2 / (n h p)

    with f^(order) the slope (1) or the curvature (2) of the regression function at the query, and p
    the density of the keys there.
    """

    order: int
    bias: float
    variance: float


def leading_terms(fit: str, *, boundary: bool) -> LeadingTerms:
    """The classical expansion for a Gaussian kernel of bandwidth h, n keys of uniform density.

    Args:
        fit: `"constant"` (softmax) or `"linear"`.
        boundary: whether the query is at the end of the data, or inside.

    Returns:
        `LeadingTerms`.

    Raises:
        ValueError: an unknown fit.

    Reference:
        Fan and Gijbels 1996, section 3.2.5.

    Example:
        >>> leading_terms("constant", boundary=False)
        LeadingTerms(order=2, bias=0.5, variance=0.28209479177387814)
        >>> leading_terms("linear", boundary=True).order
        2
    """
    check_choice("fit", fit, ("constant", "linear"))
    root = math.sqrt(math.pi)
    if not boundary:  # Symmetry makes the line's weights those of the constant.
        return LeadingTerms(2, 0.5, 1 / (2 * root))
    if fit == "constant":
        return LeadingTerms(1, math.sqrt(2 / math.pi), 1 / root)
    # Moments of the half of the kernel that has data, and of its square.
    m = np.array([0.5, 1 / math.sqrt(2 * math.pi), 0.5, 2 / math.sqrt(2 * math.pi)])
    s = np.array([1 / (4 * root), 1 / (4 * math.pi), 1 / (8 * root)])
    within = m[0] * m[2] - m[1] ** 2
    bias = (m[2] ** 2 - m[1] * m[3]) / within / 2
    variance = (m[2] ** 2 * s[0] - 2 * m[1] * m[2] * s[1] + m[1] ** 2 * s[2]) / within**2
    return LeadingTerms(2, float(bias), float(variance))
