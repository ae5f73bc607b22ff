"""Kernels of infinitely wide random-feature layers, for tokens on the unit sphere.

With g, g' standard normal of correlation r, and s = sqrt(1 - r^2):

    k1(r)      = E relu(g) relu(g')         = (s + r (pi - arccos r)) / (2 pi)
    k(a, b, r) = E relu(a + g) relu(b + g') = (r + a b) Phi2(a, b; r) + a pdf(b) Phi((a - r b) / s)
                                              + b pdf(a) Phi((b - r a) / s) + s^2 pdf2(a, b; r)

A layer's features, divided by the square root of their number, have inner products that converge
to its kernel at the rate (number of heads)^-1/2. The forms are derived from the layer's definition.

Reference: arXiv 2307.11353 (the layers); Cho and Saul 2009 (k1).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from jattn.checks import check_shape

QUADRATURE_NODES = 32


def arc_cosine_kernel(r: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`k1(r) = E relu(g) relu(g') = (sqrt(1 - r^2) + r (pi - arccos r)) / (2 pi)`.

    Args:
        r: correlation of g and g', in [-1, 1].

    Returns:
        Of r's shape and dtype.

    Reference:
        Cho and Saul, Kernel methods for deep learning, 2009.

    Example:
        >>> round(float(arc_cosine_kernel(jnp.array(1.0))), 6)
        0.5
    """
    r = jnp.clip(r, -1.0, 1.0)
    return (jnp.sqrt(1 - r**2) + r * (jnp.pi - jnp.arccos(r))) / (2 * jnp.pi)


def bivariate_normal_cdf(
    a: Float[Array, "*batch"], b: Float[Array, "*batch"], r: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """`Phi2(a, b; r) = P(g <= a, g' <= b)` for standard normals of correlation r.

    Plackett's identity, d Phi2 / dr = pdf2(a, b; r), with r = sin(t):

        Phi2(a, b; r) = Phi2(a, b; r0) + (1/2pi) int exp(-((a - b sin t)^2 / cos^2 t + b^2) / 2) dt

    over t from arcsin(r0) to arcsin(r), by Gauss-Legendre quadrature. It starts from r0 = 0, and
    near |r| = 1, where the integrand is steep, from r0 = +-1; both values are known. The error is
    below 1e-6 for all |r| <= 1.

    Args:
        a, b: upper bounds.
        r: correlation, in [-1, 1].

    Returns:
        Probabilities of the same shape.

    Reference:
        Plackett 1954; Drezner and Wesolowsky 1990.

    Example:
        >>> round(float(bivariate_normal_cdf(jnp.zeros(()), jnp.zeros(()), jnp.array(0.5))), 6)
        0.333333
    """
    nodes, gains = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    r = jnp.clip(r, -1.0, 1.0)
    end = jnp.arcsin(r)
    steep = jnp.abs(r) > 0.9999
    begin = jnp.where(steep, jnp.sign(r) * jnp.pi / 2, 0)
    together = jnp.where(
        r > 0, norm.cdf(jnp.minimum(a, b)), jnp.maximum(norm.cdf(a) - norm.cdf(-b), 0)
    )
    known = jnp.where(steep, together, norm.cdf(a) * norm.cdf(b))

    def add(total, node):
        position, gain = node
        angle = begin + (end - begin) * position
        distance = (a - b * jnp.sin(angle)) / jnp.maximum(jnp.cos(angle), 1e-7)
        return total + gain * jnp.exp(-(distance**2 + b**2) / 2), None

    positions = jnp.asarray((nodes + 1) / 2, end.dtype)
    total, _ = lax.scan(add, jnp.zeros_like(end), (positions, jnp.asarray(gains, end.dtype)))
    return known + total * (end - begin) / (4 * jnp.pi)


def biased_arc_cosine_kernel(
    a: Float[Array, "*batch"], b: Float[Array, "*batch"], r: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """`k(a, b, r) = E relu(a + g) relu(b + g')`; the module's docstring has the closed form.

    Args:
        a, b: means of the two pre-activations.
        r: correlation of their unit-variance noises, in [-1, 1].

    Returns:
        Of the same shape and dtype.

    Reference:
        Derived; `k(0, 0, r)` is `arc_cosine_kernel(r)`.

    Example:
        >>> zero, r = jnp.zeros(()), jnp.array(0.3)
        >>> bool(jnp.allclose(biased_arc_cosine_kernel(zero, zero, r), arc_cosine_kernel(r), atol=1e-5))
        True
    """  # noqa: E501
    r = jnp.clip(r, -1.0, 1.0)
    variance = jnp.maximum(1 - r**2, 1e-10)  # s^2; the limits at |r| = 1 are finite
    deviation = jnp.sqrt(variance)
    density = jnp.exp(-(((b - r * a) / deviation) ** 2 + a**2) / 2) / (2 * jnp.pi * deviation)
    return (
        (r + a * b) * bivariate_normal_cdf(a, b, r)
        + a * norm.pdf(b) * norm.cdf((a - r * b) / deviation)
        + b * norm.pdf(a) * norm.cdf((b - r * a) / deviation)
        + variance * density
    )


def attention_kernel(
    query: Float[Array, "b d"],
    keys: Float[Array, "b s d"],
    other_query: Float[Array, "c d"],
    other_keys: Float[Array, "c t d"],
    *,
    bias_scale: float = 0.0,
) -> Float[Array, "b c"]:
    """The kernel of (biased) random-feature attention with infinitely many heads.

        K(x, x') = (1/(N N')) sum_ij k(a_i, b_j, r_ij) <x~_i, x~'_j>,
        a_i = bias_scale <x_0, x_i>,  b_j = bias_scale <x'_0, x'_j>,
        r_ij = <x~_0, x~'_0> <x~_i, x~'_j> / 4

    Args:
        query, keys: `[b, d]` and `[b, s, d]`, all of unit norm.
        other_query, other_keys: `[c, d]` and `[c, t, d]`, all of unit norm.
        bias_scale: strength of the mean of the query-key matrices; 0 uses the cheaper k1.

    Returns:
        K `[b, c]`. Rows are computed one by one: memory is c s t numbers, not b c s t.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        Derived from the layer of arXiv 2307.11353.

    Example:
        >>> x = jnp.eye(3)[None]
        >>> round(float(attention_kernel(x[:, 0], x[:, 1:2], x[:, 0], x[:, 1:2])[0, 0]), 4)
        1.0
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b d", sizes)
    check_shape("keys", keys, "b s d", sizes)
    check_shape("other_query", other_query, "c d", sizes)
    check_shape("other_keys", other_keys, "c t d", sizes)
    other_mean = bias_scale * jnp.einsum("cd,ctd->ct", other_query, other_keys)

    def row(token):
        query, keys = token
        between = jnp.einsum("sd,ctd->cst", keys, other_keys) + 1
        r = (other_query @ query + 1)[:, None, None] * between / 4
        if bias_scale == 0:
            each = arc_cosine_kernel(r)
        else:
            mean = jnp.broadcast_to((bias_scale * keys @ query)[None, :, None], r.shape)
            each = biased_arc_cosine_kernel(
                mean, jnp.broadcast_to(other_mean[:, None, :], r.shape), r
            )
        return jnp.mean(each * between, axis=(1, 2))

    return lax.map(row, (query, keys))


def network_kernel(
    query: Float[Array, "b d"],
    keys: Float[Array, "b s d"],
    other_query: Float[Array, "c d"],
    other_keys: Float[Array, "c s d"],
) -> Float[Array, "b c"]:
    """The kernel of the two-layer network: `k1((sum_{i=0}^N <x_i, x'_i> + 1) / (N + 2))`.

    Args:
        query, keys: `[b, d]` and `[b, s, d]`, all of unit norm.
        other_query, other_keys: `[c, d]` and `[c, s, d]`, all of unit norm.

    Returns:
        K `[b, c]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2307.11353 (the baseline); Cho and Saul 2009.

    Example:
        >>> x = jnp.eye(3)[None]
        >>> float(network_kernel(x[:, 0], x[:, 1:], x[:, 0], x[:, 1:])[0, 0])
        0.5
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b d", sizes)
    check_shape("keys", keys, "b s d", sizes)
    check_shape("other_query", other_query, "c d", sizes)
    check_shape("other_keys", other_keys, "c s d", sizes)
    overlap = query @ other_query.T + jnp.einsum("bsd,csd->bc", keys, other_keys) + 1
    return arc_cosine_kernel(overlap / (keys.shape[1] + 2))


def relative_gram_error(gram: Float[Array, "n n"], kernel: Float[Array, "n n"]) -> Float[Array, ""]:
    """`||gram - kernel|| / ||kernel||` in the Frobenius norm.

    Example:
        >>> float(relative_gram_error(2 * jnp.eye(3), jnp.eye(3)))
        1.0
    """
    return jnp.linalg.norm(gram - kernel) / jnp.linalg.norm(kernel)
