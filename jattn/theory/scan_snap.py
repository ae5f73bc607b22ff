"""Closed forms of scan-and-snap training dynamics, and its reduced dynamics.

K sequence classes, a vocabulary of M tokens, learning rates eta_y of the decoder Y and eta_z of the
attention Z, eta_y >> eta_z. While the decoder learns, the gradient that reaches attention has one
envelope gamma(t) for everything: it rises (*scan*: frequent distinct tokens win, common tokens
lose), peaks, and dies out (*snap*: attention freezes).

Everything is NumPy in float64: these are curves to compare runs with.

Reference: arXiv 2305.16380.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import lambertw, wrightomega


def decoder_growth(visits, *, vocabulary: int, eta_y: float):
    """The decoder's scale h after so many visits of each class, in continuous time.

    The solution of `exp(M h) + (M - 1) M h = M eta_y t + 1`, h(0) = 0, in terms of the Wright omega
    function. With K classes visited in turn, visits = t / K.

    Example:
        >>> h = decoder_growth(50.0, vocabulary=100, eta_y=1.0)
        >>> abs(float(np.exp(100 * h) + 99 * 100 * h - 5001)) < 1e-6
        True
    """
    M = vocabulary
    share = (M * eta_y * np.asarray(visits, np.float64) + 1) / (M - 1)
    return (share - wrightomega(share - np.log(M - 1))) / M


def decoder_growth_discrete(
    visits: int, *, vocabulary: int, eta_y: float
) -> Float[np.ndarray, " steps"]:
    """h* after 0, 1, ..., visits gradient steps on one class.

    `h*(s) = h*(s-1) + eta_y / (M - 1 + exp(M h*(s-1)))`; it stays within `2 eta_y / M` above the
    continuous h, and the gap closes.
    """
    h = np.zeros(visits + 1)
    for s in range(visits):
        h[s + 1] = h[s] + eta_y / (vocabulary - 1 + np.exp(vocabulary * h[s]))
    return h


def gradient_envelope(time, *, vocabulary: int, classes: int, eta_y: float):
    """gamma(t), the size of the gradient that reaches attention (theorem 1).

    gamma(t) = (M - 1)^2 h / (M - 1 + exp(M h)),   h = h(t / K)
    """
    M = vocabulary
    h = decoder_growth(np.asarray(time) / classes, vocabulary=M, eta_y=eta_y)
    return (M - 1) ** 2 * h / (M - 1 + np.exp(M * h))


def envelope_peak(*, vocabulary: int, classes: int, eta_y: float) -> tuple[float, float]:
    """The largest gamma and when it occurs, exact: with x = M h = 1 + W((M-1)/e), (derived)

        gamma_max = (1 - 1/M) W((M-1)/e),   t_peak = K / (M eta_y) (exp(x) + (M-1) x - 1).

    Example:
        >>> peak, time = envelope_peak(vocabulary=1000, classes=10, eta_y=0.5)
        >>> round(peak, 5), round(time, 1)
        (4.41608, 112.8)
    """
    M = vocabulary
    w = float(lambertw((M - 1) / np.e).real)
    x = 1 + w
    return (1 - 1 / M) * w, float(classes / (M * eta_y) * (np.exp(x) + (M - 1) * x - 1))


def snap_time(*, vocabulary: int, classes: int, eta_y: float) -> float:
    """t0 = 2 K ln M / eta_y, from when on gamma decays and attention freezes."""
    return 2 * classes * np.log(vocabulary) / eta_y


def envelope_integral(time, *, vocabulary: int, classes: int, eta_y: float, eta_z: float):
    """`eta_z int_0^t gamma = (eta_z / eta_y) K (M-1)^2 h(t/K)^2 / 2`, exactly."""
    h = decoder_growth(np.asarray(time) / classes, vocabulary=vocabulary, eta_y=eta_y)
    return eta_z / eta_y * classes * (vocabulary - 1) ** 2 * h**2 / 2


def attention_growth(
    time, *, vocabulary: int, classes: int, eta_y: float, eta_z: float, c0: float = 1.0
):
    """B(t), the log growth of attention to the leading token (theorem 4).

        B(t) = 1/4 ln( 1 + 2 (eta_z / eta_y) K (M-1)^2 h(t/K)^2 / C0 ),   B(0) = 0

    The paper drops the constant `-1/4 ln C0`; C0 = rho_0^4 / K is not given there.
    """
    total = 2 * envelope_integral(
        time, vocabulary=vocabulary, classes=classes, eta_y=eta_y, eta_z=eta_z
    )
    return np.log1p(2 * total / c0) / 4


# --- reduced dynamics ----------------------------------------------------------------------------


class ReducedPath(NamedTuple):
    """The reduced dynamics of one query token's attention logits.

    Attributes:
        z: logits `[times, M]`.
        f: normalised attention of each class `[times, K, M]`.
        xi: growth rate of each class `[times, K]`.
    """

    z: Float[Array, "times M"]
    f: Float[Array, "times K M"]
    xi: Float[Array, "times K"]


def normalised_attention(
    z: Float[Array, " M"], probabilities: Float[Array, "K M"]
) -> Float[Array, "K M"]:
    """f_n = c_n / |c_n|, c_n proportional to `P(l|n) exp(z_l)`."""
    c = probabilities * jnp.exp(z)
    return c / jnp.linalg.norm(c, axis=-1, keepdims=True)


def reduced_dynamics(
    probabilities: Float[Array, "K M"],
    envelope: Float[Array, " times"],
    *,
    eta_z: float,
    step: float,
) -> ReducedPath:
    """Integrates, by Euler steps, the attention of a query token that all K classes share:

        dz/dt = eta_z gamma(t) sum_n f_n o (f_n f_n^T - I) sum_{n'!=n} beta_{nn'} f_n',
        beta = I - (F^T F)^-1 off its diagonal,   xi_n = gamma sum_{n'!=n} beta_{nn'} f_n.f_n'.

    Args:
        probabilities: P(l|n), `[K, M]`.
        envelope: gamma at each step.
        eta_z: learning rate.
        step: length of an Euler step.

    Returns:
        The path, at the beginning of each step.
    """
    classes = len(probabilities)

    def advance(z, gamma):
        f = normalised_attention(z, probabilities)
        gram = f @ f.T
        beta = jnp.eye(classes) - jnp.linalg.inv(gram)
        beta = beta * (1 - jnp.eye(classes))
        others = beta @ f
        along = (f * others).sum(-1)
        direction = f * (f * along[:, None] - others)
        return z + step * eta_z * gamma * direction.sum(0), (z, f, gamma * along)

    start = jnp.zeros(probabilities.shape[1], probabilities.dtype)
    return ReducedPath(*jax.lax.scan(advance, start, envelope)[1])


def relative_gap(f, leader, others):
    """r = f_leader^2 / f_l^2 - 1 for the other distinct tokens l of the class (theorem 3)."""
    return f[..., leader, None] ** 2 / f[..., others] ** 2 - 1
