"""The risk of the reduced in-context regression model at finite length, by quadrature.

With r = |x_q|, r^2 ~ chi^2_d, the scores of head h are omega_h r z with z ~ N(0, I_L), and

    p_h = softmax(omega_h r z),   m_h = p_h . z,
    R = 1 + s2 - (2/d) sum_h mu_h E[r m_h]
        + sum_hk mu_h mu_k E[ m_h m_k / d + ((d-1)/d + s2) p_h . p_k ].

The setting of arXiv 2503.12734, whose own risk is the limit of large L; derived here, and tested
against Monte Carlo of whole prompts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar
from scipy.special import roots_genlaguerre

NODES = 12
DRAWS = 800
MANY = 8_000  # leave 0.001 of a risk to chance


class Moments(NamedTuple):
    """What the risk needs: `R = 1 + s2 - 2 mu . linear + mu . quadratic . mu`.

    Attributes:
        linear: `E[r m_h] / d`, `[h]`.
        quadratic: `E[m_h m_k / d + ((d-1)/d + s2) p_h . p_k]`, `[h, h]`.
    """

    linear: Float[Array, " h"]
    quadratic: Float[Array, "h h"]


def exact_moments(
    omega: Float[Array, " h"],
    *,
    dim: int,
    length: int,
    noise_variance: float,
    draws: int = DRAWS,
) -> Moments:
    """The moments at finite length: Gauss-Laguerre in r^2, antithetic draws of z.

    Args:
        omega: key-query scale of each head `[h]`.
        dim, length, noise_variance: d, L, s2.
        draws: of z, half of them the negatives of the others; the same at each call.

    Example:
        >>> moments = exact_moments(jnp.zeros(1), dim=5, length=40, noise_variance=0.1)
        >>> round(float(moments.quadratic[0, 0]), 2)  # even weights: (1 + s2) / L = 0.0275
        0.03
    """
    nodes, weights = roots_genlaguerre(NODES, dim / 2 - 1)
    radius = jnp.asarray(np.sqrt(2 * nodes), omega.dtype)
    weights = jnp.asarray(weights / weights.sum(), omega.dtype)
    half = np.random.default_rng(0).normal(size=(draws // 2, length))
    # Small scales see the variance within a draw alone: it is made exact.
    half *= np.sqrt((1 - 1 / length) / half.var(1).mean())
    z = jnp.asarray(np.concatenate([half, -half]), omega.dtype)

    def at(r):
        share = jax.nn.softmax(omega[:, None, None] * r * z, axis=-1)  # [h, draws, L]
        mean = (share * z).sum(-1)
        overlap = jnp.einsum("hzl,kzl->hk", share, share) / len(z)
        spread = jnp.einsum("hz,kz->hk", mean, mean) / len(z)
        quadratic = spread / dim + ((dim - 1) / dim + noise_variance) * overlap
        return Moments(r * mean.mean(-1) / dim, quadratic)

    each = jax.lax.map(at, radius)
    return jax.tree.map(lambda values: jnp.tensordot(weights, values, 1), each)


def exact_reduced_risk(
    omega: Float[Array, " h"],
    mu: Float[Array, " h"],
    *,
    dim: int,
    length: int,
    noise_variance: float,
    draws: int = DRAWS,
) -> Float[Array, ""]:
    """Mean squared error of the reduced model at finite L.

    Args:
        omega: key-query scale of each head `[h]`.
        mu: output-value scale of each head `[h]`.
        dim, length, noise_variance: d, L, s2.
        draws: see `exact_moments`.

    Example:
        >>> risk = exact_reduced_risk(
        ...     jnp.array([0.52]), jnp.array([1.489]), dim=5, length=40, noise_variance=0.1)
        >>> round(float(risk), 2)
        0.41
    """
    problem: dict[str, Any] = dict(dim=dim, length=length, noise_variance=noise_variance)
    linear, quadratic = exact_moments(omega, draws=draws, **problem)
    return 1 + noise_variance - 2 * mu @ linear + mu @ quadratic @ mu


def exact_single_head_optimum(
    *, dim: int, length: int, noise_variance: float
) -> tuple[float, float, float]:
    """`(omega, mu, risk)` of one head at its best, at finite L.

    Example:
        >>> [round(v, 2) for v in exact_single_head_optimum(dim=5, length=40, noise_variance=0.1)]
        [0.52, 1.49, 0.4]
    """
    problem: dict[str, Any] = dict(dim=dim, length=length, noise_variance=noise_variance)
    moments = jax.jit(lambda omega: exact_moments(omega[None], draws=MANY, **problem))

    def best(omega: float) -> tuple[float, float]:
        linear, quadratic = (float(m.squeeze()) for m in moments(jnp.float32(omega)))
        return linear / quadratic, 1 + noise_variance - linear**2 / quadratic

    start = dim**-0.5  # the optimum of large L
    found: Any = minimize_scalar(
        lambda omega: best(omega)[1], bounds=(start / 3, 3 * start), method="bounded",
        options={"xatol": 1e-4},
    )  # fmt: skip
    return float(found.x), *best(found.x)


def exact_manifold_output(
    gamma: Float[np.ndarray, " n"], *, dim: int, length: int, noise_variance: float
) -> Float[np.ndarray, " n"]:
    """Best positive output scale of two heads at omega = (gamma, -gamma), at finite L.

    Args:
        gamma: positive, `[n]`.
        dim, length, noise_variance: d, L, s2.

    Example:
        >>> problem = dict(dim=5, length=40, noise_variance=0.1)
        >>> float(exact_manifold_output(np.array([0.05]), **problem)[0]) > 1
        True
    """
    signs = np.array([1.0, -1.0])
    problem: dict[str, Any] = dict(dim=dim, length=length, noise_variance=noise_variance)

    def one(g):
        linear, quadratic = exact_moments(g * signs, draws=MANY, **problem)
        return (signs @ linear) / (signs @ quadratic @ signs)

    with jax.enable_x64(True):  # heads of small scales cancel
        return np.asarray(jax.jit(lambda g: jax.lax.map(one, g))(jnp.asarray(gamma, float)))


def exact_reduced_flow(
    omega: Float[np.ndarray, " h"],
    mu: Float[np.ndarray, " h"],
    times: Float[np.ndarray, " times"],
    *,
    dim: int,
    length: int,
    noise_variance: float,
    draws: int = DRAWS,
) -> tuple[Float[np.ndarray, "times h"], Float[np.ndarray, "times h"]]:
    """Gradient flow on the exact risk, from `(omega, mu)` at time 0.

    Args:
        omega, mu: the start, `[h]` each.
        times: increasing times to report, >= 0.
        dim, length, noise_variance: d, L, s2.
        draws: see `exact_moments`.

    Returns:
        omega and mu at these times.

    Example:
        >>> start, problem = np.array([0.1, -0.1]), dict(dim=5, length=40, noise_variance=0.1)
        >>> omega, mu = exact_reduced_flow(start, start, np.array([0.0, 20.0]), **problem)
        >>> 0.8 < float(omega[-1] @ mu[-1]) < 0.95
        True
    """
    heads = len(omega)
    gradient = jax.jit(
        jax.grad(
            lambda state: exact_reduced_risk(
                state[:heads], state[heads:], dim=dim, length=length,
                noise_variance=noise_variance, draws=draws,
            )
        )
    )  # fmt: skip
    solution = solve_ivp(
        lambda _, state: -np.asarray(gradient(jnp.asarray(state, jnp.float32)), float),
        (0.0, float(times[-1])),
        np.concatenate([omega, mu]).astype(float),
        t_eval=times,
        rtol=1e-3,  # the gradient is one of float32, and of draws
        atol=1e-4,
    )
    return solution.y[:heads].T, solution.y[heads:].T
