"""Laws of delayed generalisation over weight decay: when, how surely, and how late.

    P(grok) = sigmoid(k (log10 lambda - log10 lambda_c)),     t_grok = A (lambda - lambda_c)^-nu

Reference: arXiv 2605.20441.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit


class Transition(NamedTuple):
    """A logistic transition: `critical`, lambda_c, and `steepness` k over log10 of lambda."""

    critical: float
    steepness: float


class Delay(NamedTuple):
    """A power law of delays: `amplitude` A, `exponent` nu, and the share of log-variance kept."""

    amplitude: float
    exponent: float
    r_squared: float


def first_time(
    accuracy: Float[np.ndarray, "times *runs"],  # noqa: F821
    times: Float[np.ndarray, " times"],
    threshold: float = 0.99,
) -> Float[np.ndarray, "*runs"]:
    """The first time at which an accuracy is there; infinite where it never is.

    Args:
        accuracy: by time, then of any number of runs.
        times: at which it was measured.
        threshold: what counts.

    Returns:
        A time for each run.

    Reference:
        arXiv 2605.20441.

    Example:
        >>> first_time(np.array([[0.1, 0.2], [0.99, 0.3], [0.5, 0.4]]), np.array([0.0, 5.0, 10.0]))
        array([ 5., inf])
    """
    there = np.asarray(accuracy) >= threshold
    return np.where(there.any(0), np.asarray(times, float)[there.argmax(0)], np.inf)


def fit_transition(
    decays: Float[np.ndarray, " runs"], grokked: Bool[np.ndarray, " runs"]
) -> Transition:
    """Fits P(grok) by a logistic over log10 of weight decay.

    Where no run on one side is like one of the other, likelihood has no maximum: k would be
    infinite. It is penalised by Jeffreys' prior (Firth), which counts as half a run at each end.

    Args:
        decays: positive, of each run.
        grokked: whether that run did.

    Returns:
        A `Transition`.

    Raises:
        ValueError: runs that all did, or all did not: there is no transition.

    Reference:
        arXiv 2605.20441.

    Example:
        >>> found = fit_transition(np.array([0.01, 0.1, 1.0, 10.0]), np.array([0, 0, 1, 1], bool))
        >>> round(found.critical, 2), found.steepness > 1
        (0.32, True)
    """
    x, y = np.log10(np.asarray(decays, float)), np.asarray(grokked, float)
    if y.min() == y.max():
        raise ValueError("grokked: expected runs that did and runs that did not")
    middle, spread = x.mean(), x.std()
    z = np.stack([np.ones_like(x), (x - middle) / spread], -1)

    def penalised(weights):
        score = z @ weights
        likely = y * np.logaddexp(0, -score) + (1 - y) * np.logaddexp(0, score)
        p = expit(score)
        information = z.T @ (z * (p * (1 - p))[:, None])
        return likely.sum() - 0.5 * np.linalg.slogdet(information)[1]

    offset, slope = minimize(penalised, np.zeros(2), method="Nelder-Mead", tol=1e-8).x
    return Transition(float(10 ** (middle - spread * offset / slope)), float(slope / spread))


def fit_delay(
    decays: Float[np.ndarray, " runs"], times: Float[np.ndarray, " runs"], critical: float
) -> Delay:
    """Fits t = A (lambda - lambda_c)^-nu by least squares of the logarithms.

    Args:
        decays: of each run.
        times: at which it grokked; runs that never did, or are not above lambda_c, do not count.
        critical: lambda_c.

    Returns:
        A `Delay`; NaN where fewer than two different decays count.

    Reference:
        arXiv 2605.20441.

    Example:
        >>> decays = np.array([0.1, 0.2, 0.5, 1.0])
        >>> found = fit_delay(decays, 100 * (decays - 0.02) ** -0.75, 0.02)
        >>> round(found.amplitude, 3), round(found.exponent, 3), round(found.r_squared, 3)
        (100.0, 0.75, 1.0)
    """
    decays, times = np.asarray(decays, float), np.asarray(times, float)
    counts = np.isfinite(times) & (decays > critical) & (times > 0)
    if len(np.unique(decays[counts])) < 2:
        return Delay(np.nan, np.nan, np.nan)
    x, y = np.log(decays[counts] - critical), np.log(times[counts])
    slope, offset = np.polyfit(x, y, 1)
    left = y - (slope * x + offset)
    kept = 1 - left.var() / y.var() if y.var() > 0 else 0.0
    return Delay(float(np.exp(offset)), float(-slope), float(kept))
