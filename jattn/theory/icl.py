"""Closed forms for in-context linear regression by one attention layer.

Notation: d coordinates, L demonstrations, label noise variance s2, `c = (1 + s2) / L`. The layer
reduces to one number per head in each circuit, `KQ_h ~ omega_h I` and `OV_h ~ mu_h e_y`, and then

    yhat(omega, mu) = sum_h mu_h < y, softmax(omega_h X x_q) >.

Statements marked (derived) are not in the paper; tests check them against Monte Carlo. What holds
at finite L, by quadrature, is in `icl_exact`, several tasks' dynamics are in `icl_multitask`.

Reference: arXiv 2503.12734.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jattn.theory.icl_exact import exact_reduced_risk as exact_reduced_risk


def approximate_risk(
    omega: Float[Array, " h"],
    mu: Float[Array, " h"],
    *,
    dim: int,
    length: int,
    noise_variance: float,
) -> Float[Array, ""]:
    """Mean squared error of the reduced model in the large-L approximation.

        A = 1 + s2 - 2 mu.omega + mu^T ( omega omega^T + c exp(d omega omega^T) ) mu

    Args:
        omega: key-query scale of each head `[h]`.
        mu: output-value scale of each head `[h]`.
        dim, length, noise_variance: d, L, s2.

    Reference:
        arXiv 2503.12734, section 4.

    Example:
        >>> zero = jnp.zeros(2)
        >>> round(float(approximate_risk(zero, zero, dim=5, length=40, noise_variance=0.1)), 3)
        1.1
    """
    outer = jnp.outer(omega, omega)
    gram = outer + (1 + noise_variance) / length * jnp.exp(dim * outer)
    return 1 + noise_variance - 2 * mu @ omega + mu @ gram @ mu


def best_output(
    omega: Float[Array, " h"], *, dim: int, length: int, noise_variance: float
) -> Float[Array, " h"]:
    """The minimiser of the approximate risk in mu: `(omega omega^T + c E)^-1 omega`."""
    outer = jnp.outer(omega, omega)
    gram = outer + (1 + noise_variance) / length * jnp.exp(dim * outer)
    return jnp.linalg.solve(gram, omega)


def single_head_optimum(
    *, dim: int, length: int, noise_variance: float
) -> tuple[float, float, float]:
    """`(omega, mu, risk)` of one head at its best.

    `1/sqrt(d)`, `sqrt(d) / (1 + e d c)` and `1 + s2 - 1 / (1 + e d c)`.

    Example:
        >>> [round(v, 3) for v in single_head_optimum(dim=5, length=40, noise_variance=0.1)]
        [0.447, 1.628, 0.372]
    """
    shrink = 1 + np.e * dim * (1 + noise_variance) / length
    return dim**-0.5, dim**0.5 / shrink, 1 + noise_variance - 1 / shrink


def manifold_output(
    gamma: ArrayLike, *, dim: int, length: int, noise_variance: float
) -> Float[Array, "*batch"]:
    """Total positive output scale on the solution manifold of two or more heads.

    `omega_h = gamma sign(mu_h)` and `sum_{mu>0} mu = -sum_{mu<0} mu = mu_gamma`, with

        mu_gamma = gamma / ( 2 (gamma^2 + c sinh(d gamma^2)) ).
    """
    c, gamma = (1 + noise_variance) / length, jnp.asarray(gamma)
    return gamma / (2 * (gamma**2 + c * jnp.sinh(dim * gamma**2)))


def manifold_risk(
    gamma: ArrayLike, *, dim: int, length: int, noise_variance: float
) -> Float[Array, "*batch"]:
    """Approximate risk on the manifold: `1 + s2 - 1 / (1 + c sinh(d gamma^2) / gamma^2)`.

    It increases with gamma; its infimum at gamma -> 0 is `1 + s2 - effective_step`.
    """
    c, gamma = (1 + noise_variance) / length, jnp.asarray(gamma)
    return 1 + noise_variance - 1 / (1 + c * jnp.sinh(dim * gamma**2) / gamma**2)


def effective_step(*, dim: int, length: int, noise_variance: float) -> float:
    """The step size of the gradient descent that trained heads implement.

        eta* = 1 / (1 + c d) = L / (L + d + d s2),

    which is also the exact best step of debiased gradient descent at finite L.

    Example:
        >>> round(effective_step(dim=5, length=40, noise_variance=0.1), 4)
        0.8791
    """
    return length / (length + dim + dim * noise_variance)


def gradient_descent_risk(eta, *, dim: int, length, noise_variance: float):
    """Exact risk of one gradient step from zero, `(eta/L) sum_l y_l <x_l, x_q>`. (derived)

    `1 + s2 - 2 eta + eta^2 (1 + (d + 1 + d s2) / L)`; best at `eta = L / (L + d + 1 + d s2)`.
    """
    spread = (dim + 1 + dim * noise_variance) / length
    return 1 + noise_variance - 2 * eta + eta**2 * (1 + spread)


def debiased_gradient_descent_risk(eta, *, dim: int, length, noise_variance: float):
    """Exact risk of the debiased step `(eta/L) sum_l y_l <x_l - mean(x), x_q>`. (derived)

    With n = L - 1: `1 + s2 - 2 eta n/L + eta^2 n (n + d + 1 + d s2) / L^2`. This is also the risk
    of the two-head softmax model used at length L: its weights sum to one at every length.

    Example:
        >>> eta = effective_step(dim=5, length=40, noise_variance=0.1)
        >>> problem = dict(dim=5, length=40, noise_variance=0.1)
        >>> round(debiased_gradient_descent_risk(eta, **problem), 4)
        0.2429
    """
    n = length - 1
    return (
        1
        + noise_variance
        - 2 * eta * n / length
        + eta**2 * n * (n + dim + 1 + dim * noise_variance) / length**2
    )


def linear_attention_risk(eta, *, dim: int, train_length: int, length, noise_variance: float):
    """Exact risk at `length` of linear attention that divides by `train_length`. (derived)

    With r = length / train_length it is the gradient-descent risk at step `eta r`, so a longer
    prompt makes the step too long.
    """
    return gradient_descent_risk(
        eta * length / train_length, dim=dim, length=length, noise_variance=noise_variance
    )


def bayes_risk_limit(ratio: float, noise_variance: float) -> float:
    """Bayes risk (ridge, lambda = d s2) as d, L -> infinity with d / L -> `ratio` (xi).

    ( s2 + (xi-1)/xi + sqrt( 4 s2 + (s2 + (1-xi)/xi)^2 ) ) / 2
    """
    gap = (1 - ratio) / ratio
    root = (4 * noise_variance + (noise_variance + gap) ** 2) ** 0.5
    return (noise_variance - gap + root) / 2


def bayes_ratio_bound(ratio: float, noise_variance: float) -> float:
    """Upper bound on (best gradient-descent risk) / (Bayes risk) in the same limit.

    `1 + 1 / ( s2 (1 + xi s2) (1 + s2 + 1/xi) )`, valid for `s2 + 1/xi > 1`.

    Raises:
        ValueError: outside that range.
    """
    if noise_variance + 1 / ratio <= 1:
        raise ValueError(
            f"ratio, noise_variance: the bound needs noise_variance + 1/ratio > 1, "
            f"got {noise_variance} + {1 / ratio}"
        )
    return 1 + 1 / (
        noise_variance * (1 + ratio * noise_variance) * (1 + noise_variance + 1 / ratio)
    )


def preconditioner(
    covariance: Float[np.ndarray, "d d"], *, length: int, noise_variance: float
) -> Float[np.ndarray, "d d"]:
    """The gain `sum_h mu_h KQ_h` of trained heads for inputs N(0, Sigma). (derived)

        W* = ( Sigma + (tr Sigma + d s2)/L I )^-1,

    the best preconditioner of debiased gradient descent; it tends to Sigma^-1 only as L grows.

    Example:
        >>> gain = preconditioner(np.eye(5), length=40, noise_variance=0.1)
        >>> round(float(gain[0, 0]), 4)
        0.8791
    """
    dim = len(covariance)
    shrink = (np.trace(covariance) + dim * noise_variance) / length
    return np.linalg.inv(covariance + shrink * np.eye(dim))


def preconditioned_risk(
    covariance: Float[np.ndarray, "d d"], *, length: int, noise_variance: float
) -> float:
    """Exact risk of debiased gradient descent with the best preconditioner. (derived)

    `s2 + tr(Sigma)/d - (n/L) tr(Sigma W* Sigma)/d`, n = L - 1.
    """
    dim = len(covariance)
    gain = preconditioner(covariance, length=length, noise_variance=noise_variance)
    explained = (length - 1) / length * np.trace(covariance @ gain @ covariance)
    return float(noise_variance + (np.trace(covariance) - explained) / dim)


def multitask_gain(
    tasks: Sequence[Sequence[int]], dim: int, *, length: int, noise_variance: float
) -> Float[np.ndarray, "n d"]:
    """The ideal gain `G[n, j] = sum_h mu_{h,n} omega_{h,j}` with enough heads. (derived)

    `eta_s = 1 / (1 + (1 + s2) s / L)` on the s coordinates of task n, zero off them. N + 1 heads
    suffice for N tasks: the rows of mu must be independent and sum to zero.
    """
    gain = np.zeros((len(tasks), dim))
    for row, coordinates in zip(gain, tasks, strict=True):
        row[list(coordinates)] = 1 / (1 + (1 + noise_variance) * len(coordinates) / length)
    return gain


def multitask_risk(size: int, *, length: int, noise_variance: float) -> float:
    """Exact risk per task over `size` coordinates with enough heads. (derived)

    `1 + s2 - (L-1) / (L + s + s s2)`.

    Example:
        >>> round(multitask_risk(4, length=40, noise_variance=0.1), 4)
        0.2216
    """
    return 1 + noise_variance - (length - 1) / (length + size + size * noise_variance)


def shared_pair_gain(
    tasks: Sequence[Sequence[int]], dim: int, *, length: int, noise_variance: float
) -> Float[np.ndarray, " d"]:
    """Per-coordinate gain when one pair of heads serves N tasks of equal size s. (derived)

    A coordinate used by k of the N tasks gets `w = 1 / (1 + (N/k) (1 + s2) s / L)`.
    """
    size = len(tasks[0])
    uses = np.array([sum(j in coordinates for coordinates in tasks) for j in range(dim)])
    with np.errstate(divide="ignore"):
        return 1 / (1 + len(tasks) / uses * (1 + noise_variance) * size / length)


def shared_pair_risk(
    tasks: Sequence[Sequence[int]], dim: int, *, length: int, noise_variance: float
) -> float:
    """Risk averaged over tasks when one pair of heads serves them all. (derived)

    `1 + s2 - (1/N) sum_j (1 - 1/L) (k_j / s) w_j`.

    Example:
        >>> tasks = [(0, 1, 2, 3), (2, 3, 4, 5)]
        >>> round(shared_pair_risk(tasks, 6, length=40, noise_variance=0.1), 4)
        0.2612
    """
    size = len(tasks[0])
    gain = shared_pair_gain(tasks, dim, length=length, noise_variance=noise_variance)
    uses = np.array([sum(j in coordinates for coordinates in tasks) for j in range(dim)])
    explained = (1 - 1 / length) * np.sum(uses / size * gain) / len(tasks)
    return float(1 + noise_variance - explained)
