"""Gradient flow on the approximate risk of the reduced in-context regression model.

    d mu / dt = -dA/dmu,   d omega / dt = -dA/domega,   A from `jattn.theory.icl.approximate_risk`.

Reference: arXiv 2503.12734, section 4; the late-time law is derived here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from jattn.theory import icl


class Trajectory(NamedTuple):
    """A solution of the flow.

    Attributes:
        omega, mu: `[times, h]`, float64.
    """

    omega: Float[np.ndarray, "times h"]
    mu: Float[np.ndarray, "times h"]


def risk_gradients(
    omega: Float[np.ndarray, " h"],
    mu: Float[np.ndarray, " h"],
    *,
    dim: int,
    length: int,
    noise_variance: float,
) -> tuple[Float[np.ndarray, " h"], Float[np.ndarray, " h"]]:
    """`(dA/domega, dA/dmu)` in closed form, E = exp(d omega omega^T):

        dA/dmu    = -2 omega + 2 (omega omega^T + c E) mu
        dA/domega = -2 mu + 2 (mu.omega) mu + 2 d c ((E o mu mu^T) omega)

    NumPy rather than JAX: the stiff solver calls it thousands of times on a handful of numbers.
    """
    c = (1 + noise_variance) / length
    kernel = np.exp(dim * np.outer(omega, omega))
    overlap = mu @ omega
    grad_mu = 2 * (overlap - 1) * omega + 2 * c * kernel @ mu
    grad_omega = 2 * (overlap - 1) * mu + 2 * dim * c * (kernel * np.outer(mu, mu)) @ omega
    return grad_omega, grad_mu


def reduced_flow(
    omega: Float[np.ndarray, " h"],
    mu: Float[np.ndarray, " h"],
    times: Float[np.ndarray, " times"],
    *,
    dim: int,
    length: int,
    noise_variance: float,
) -> Trajectory:
    """Integrates the flow from `(omega, mu)` at time 0.

    Args:
        omega, mu: the start, `[h]` each.
        times: increasing times to report, >= 0.
        dim, length, noise_variance: d, L, s2.

    Raises:
        RuntimeError: the solver failed.

    Example:
        >>> start = np.array([0.1, -0.1])
        >>> problem = dict(dim=5, length=40, noise_variance=0.1)
        >>> path = reduced_flow(start, start, np.array([1e3]), **problem)
        >>> abs(float(path.mu[-1] @ path.omega[-1]) - icl.effective_step(**problem)) < 0.01
        True
    """
    heads = len(omega)

    def velocity(_, state):
        grad_omega, grad_mu = risk_gradients(
            state[:heads], state[heads:], dim=dim, length=length, noise_variance=noise_variance
        )
        return -np.concatenate([grad_omega, grad_mu])

    # The drift along the manifold is a million times slower than the approach to it: stiff.
    solution = solve_ivp(
        velocity,
        (0.0, float(times[-1])),
        np.concatenate([omega, mu]).astype(np.float64),
        method="LSODA",
        t_eval=times,
        rtol=1e-8,
        atol=1e-10,
    )
    if not solution.success:
        raise RuntimeError(f"reduced_flow: {solution.message}")
    return Trajectory(solution.y[:heads].T, solution.y[heads:].T)


def late_output(
    time, positive: int, negative: int, *, dim: int, length: int, noise_variance: float
):
    """Late-time total positive output scale with p positive and q negative heads. (derived)

        mu_plus(t) -> eta* ( p q c d^3 t / (4 (p + q)) )^(1/6),   gamma(t) = eta* / (2 mu_plus)

    Omega thus keeps shrinking as t^(-1/6) and never settles.
    """
    c = (1 + noise_variance) / length
    eta = icl.effective_step(dim=dim, length=length, noise_variance=noise_variance)
    pairs = positive * negative / (positive + negative)
    return eta * (pairs * c * dim**3 * time / 4) ** (1 / 6)
