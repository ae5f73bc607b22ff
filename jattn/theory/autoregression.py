"""Vector autoregressions: drawn, fitted, their order, and who helps to predict whom.

x_t = sum_{k=1..p} A_k x_{t-k} + e_t,   e ~ (0, Sigma);     A_k[i, j] is the effect of j on i
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.scipy.special import betainc
from jaxtyping import Array, Float
from scipy.linalg import solve_discrete_lyapunov

from jattn.checks import check_count, check_shape


class Autoregression(NamedTuple):
    """A fitted autoregression of m channels.

    Attributes:
        coefficients: A, `[p, m, m]`.
        covariance: of the residuals, over the rows less the coefficients of an equation, `[m, m]`.
        covariance_ml: the same over the rows.
    """

    coefficients: Float[Array, "p m m"]
    covariance: Float[Array, "m m"]
    covariance_ml: Float[Array, "m m"]


class Granger(NamedTuple):
    """Single-equation tests that j does not help to predict i, `[sink, source]`.

    Attributes:
        statistic: F; 0 on the diagonal.
        p_value: of F(p, rows - p m); 1 on the diagonal.
    """

    statistic: Float[Array, "m m"]
    p_value: Float[Array, "m m"]


def sample_autoregression(
    key: jax.Array,
    coefficients: Float[Array, "p m m"],
    covariance: Float[Array, "m m"],
    length: int,
    *,
    settle: int = 200,
) -> Float[Array, "length m"]:
    """Draws a series of Gaussian noise through the autoregression.

    Args:
        key: of the noise.
        coefficients: A.
        covariance: Sigma.
        length: samples.
        settle: samples before them, which are thrown away.

    Example:
        >>> sample_autoregression(jax.random.key(0), jnp.zeros((1, 2, 2)), jnp.eye(2), 5).shape
        (5, 2)
    """
    check_count("length", length)
    order, channels, _ = coefficients.shape
    noise = jax.random.normal(key, (settle + length, channels)) @ jnp.linalg.cholesky(covariance).T

    def step(past, noise):  # past: [p, m], the latest first
        now = jnp.einsum("pij,pj->i", coefficients, past) + noise
        return jnp.concatenate([now[None], past[:-1]]), now

    return lax.scan(step, jnp.zeros((order, channels)), noise)[1][settle:]


def fit_autoregression(series: Float[Array, "n m"], order: int) -> Autoregression:
    """Least squares without intercept on the series less its mean.

    Args:
        series: samples of m channels.
        order: p.

    Raises:
        ValueError: too few samples, or a channel that is constant.

    Example:
        >>> wave = jnp.sin(0.3 * jnp.arange(200.0))[:, None]
        >>> [round(float(x), 2) for x in fit_autoregression(wave, 2).coefficients.ravel()]
        [1.91, -1.0]
    """
    fitted = _least_squares(series, order, order)
    return Autoregression(fitted.coefficients, fitted.covariance, fitted.covariance_ml)


def granger(series: Float[Array, "n m"], order: int) -> Granger:
    """Tests for each pair of channels that all p coefficients of j in the equation of i are 0.

    The degrees of freedom are those of one equation: p and rows - p m.

    Args:
        series: as for `fit_autoregression`.
        order: p.

    Example:
        >>> noise = jax.random.normal(jax.random.key(0), (100, 1))
        >>> series = jnp.concatenate([noise, jnp.roll(noise, 1)], 1)  # the second follows the first
        >>> series += 0.1 * jax.random.normal(jax.random.key(1), (100, 2))
        >>> found = granger(series, 1)
        >>> bool(found.p_value[1, 0] < 1e-6), float(found.p_value[0, 0])
        (True, 1.0)
    """
    fit = _least_squares(series, order, order)
    channels = series.shape[1]
    freedom = fit.rows - order * channels
    by_source = fit.coefficients.transpose(2, 1, 0)  # [source, sink, lag]
    at = jnp.arange(order) * channels

    def of_source(j, effect):
        block = fit.inverse_gram[jnp.ix_(at + j, at + j)]
        return (effect * jnp.linalg.solve(block, effect.T).T).sum(-1)

    gain = jax.vmap(of_source)(jnp.arange(channels), by_source).T  # [sink, source]
    own = jnp.eye(channels, dtype=bool)
    f = jnp.where(own, 0.0, gain / order / jnp.diag(fit.covariance)[:, None])
    p_value = betainc(freedom / 2, order / 2, freedom / (freedom + order * f))
    return Granger(f, jnp.where(own, 1.0, p_value))


def order_criteria(series: Float[Array, "n m"], max_order: int) -> Float[Array, "orders 3"]:
    """Akaike's, Bayesian and Hannan-Quinn's criteria of orders 1, 2, ..., all on the same rows.

        log det Sigma_ml + c k m^2 / N,     c = 2, log N, 2 log log N

    Args:
        series: as for `fit_autoregression`.
        max_order: the largest order; its rows are those of all.

    Returns:
        Row k - 1 is of order k; the least is the best.

    Example:
        >>> noise = jax.random.normal(jax.random.key(0), (300, 1))
        >>> int(order_criteria(noise, 4)[:, 1].argmin())
        0
    """
    check_count("max_order", max_order)
    found = []
    for order in range(1, max_order + 1):
        fit = _least_squares(series, order, max_order)
        penalty = jnp.array([2.0, np.log(fit.rows), 2 * np.log(np.log(fit.rows))])
        size = order * series.shape[1] ** 2 / fit.rows
        found.append(jnp.linalg.slogdet(fit.covariance_ml)[1] + penalty * size)
    return jnp.stack(found)


def companion(coefficients: Float[Array, "p m m"]) -> Float[Array, "pm pm"]:
    """The matrix of the same process as one of order 1, of x_t, x_{t-1}, ..., x_{t-p+1}.

    Example:
        >>> companion(jnp.array([[[0.5]], [[-0.25]]])).tolist()
        [[0.5, -0.25], [1.0, 0.0]]
    """
    order, channels, _ = coefficients.shape
    top = coefficients.transpose(1, 0, 2).reshape(channels, order * channels)
    return jnp.concatenate([top, jnp.eye((order - 1) * channels, order * channels)])


def stationary_covariance(
    coefficients: Float[Array, "p m m"], covariance: Float[Array, "m m"]
) -> Float[np.ndarray, "m m"]:
    """Gamma(0), the covariance of the process itself, by Lyapunov's equation.

    Raises:
        ValueError: the process grows without bound.

    Example:
        >>> round(float(stationary_covariance(jnp.array([[[0.5]]]), jnp.eye(1))[0, 0]), 4)
        1.3333
    """
    matrix = np.asarray(companion(coefficients), np.float64)
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    if radius >= 1:
        raise ValueError(
            f"coefficients: expected a stable process, got one whose largest root is {radius:.3g}"
        )
    channels = covariance.shape[0]
    noise = np.zeros_like(matrix)
    noise[:channels, :channels] = covariance
    return solve_discrete_lyapunov(matrix, noise)[:channels, :channels]


class _Fit(NamedTuple):
    coefficients: Float[Array, "p m m"]
    covariance: Float[Array, "m m"]
    covariance_ml: Float[Array, "m m"]
    inverse_gram: Float[Array, "pm pm"]
    rows: int


def _least_squares(series: Float[Array, "n m"], order: int, skip: int) -> _Fit:
    """The fit on rows `skip` to the end, by a QR decomposition."""
    check_count("order", order)
    check_shape("series", series, "n m", {})
    length, channels = series.shape
    rows, columns = length - skip, order * channels
    if rows <= columns:
        raise ValueError(
            f"series: expected more than {skip + columns} samples for order {order} of {channels} "
            f"channels, got {length}"
        )
    check_varies("series", series)
    centred = series - series.mean(0)
    past = jnp.concatenate([centred[skip - k : length - k] for k in range(1, order + 1)], 1)
    now = centred[skip:]
    q, r = jnp.linalg.qr(past)
    solution = jax.scipy.linalg.solve_triangular(r, q.T @ now)
    residual = now - past @ solution
    square = residual.T @ residual
    inverse = jax.scipy.linalg.solve_triangular(r, jnp.eye(columns))
    coefficients = solution.reshape(order, channels, channels).transpose(0, 2, 1)
    return _Fit(coefficients, square / (rows - columns), square / rows, inverse @ inverse.T, rows)


def check_varies(name: str, series: Float[Array, "n m"]) -> None:
    """Checks that no column is constant; a traced array passes.

    Raises:
        ValueError: one is.

    Example:
        >>> check_varies("series", jnp.ones((4, 1)))
        Traceback (most recent call last):
        ...
        ValueError: series: expected columns that vary, got a constant one: column 0
    """
    if isinstance(series, Tracer):
        return
    spread = np.ptp(np.asarray(series), axis=0)
    if not np.all(spread > 0):
        column = int(np.argmin(spread))
        raise ValueError(f"{name}: expected columns that vary, got a constant one: column {column}")
