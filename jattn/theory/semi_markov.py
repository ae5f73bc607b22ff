"""Hidden semi-Markov models: states that last for a time of their own distribution.

A segment in state s lasts d windows with probability `duration[s, d - 1]`; the next state is drawn
from `transition[s]`, which is not s. With alpha(s, r) the probability of state s and r windows
left, this one included, and of all that was seen,

    alpha'(s, r) = alpha(s, r + 1) + duration[s, r - 1] sum_q alpha(q, 1) transition[q, s]

times the likelihood of the window in s. The last segment is cut off where the windows end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number, check_shape


class Filtered(NamedTuple):
    """What an exact filter knows.

    Attributes:
        posterior: of the state of each window, given all windows up to it, `[t, k]`.
        log_likelihood: of all windows.
    """

    posterior: Float[Array, "t k"]
    log_likelihood: Float[Array, ""]


def negative_binomial_durations(
    means: Float[Array, " k"], shape: float, longest: int
) -> Float[Array, "k longest"]:
    """Distributions of 1, 2, ... windows: 1 + negative binomial, cut and normalised again.

    Args:
        means: before the cut, > 1.
        shape: r of the negative binomial; 1 is geometric.
        longest: where they are cut.

    Example:
        >>> found = negative_binomial_durations(jnp.array([2.0]), 1.0, 50)
        >>> round(float((found[0] * (1 + jnp.arange(50))).sum()), 3)
        2.0
    """
    check_number("shape", shape, above=0)
    check_count("longest", longest)
    p = shape / (shape + means[:, None] - 1)
    k = jnp.arange(longest)
    logs = gammaln(k + shape) - gammaln(shape) - gammaln(k + 1.0)
    logs = logs + shape * jnp.log(p) + k * jnp.log1p(-p)
    return jax.nn.softmax(logs, axis=-1)


def embedded_stationary(transition: Float[Array, "k k"]) -> Float[np.ndarray, " k"]:
    """The share of segments that each state has in the long run.

    Example:
        >>> embedded_stationary(jnp.array([[0.0, 1.0], [1.0, 0.0]])).round(6).tolist()
        [0.5, 0.5]
    """
    matrix = np.asarray(transition, np.float64)
    states = len(matrix)
    equations = np.vstack([matrix.T - np.eye(states), np.ones(states)])
    return np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0]


def occupancy(
    transition: Float[Array, "k k"], duration: Float[Array, "k d"]
) -> Float[np.ndarray, " k"]:
    """The share of windows that each state has in the long run.

    Example:
        >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> occupancy(swap, jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).round(6).tolist()
        [0.25, 0.75]
    """
    share = embedded_stationary(transition) * np.asarray(mean_durations(duration), np.float64)
    return share / share.sum()


def mean_durations(duration: Float[Array, "k d"]) -> Float[Array, " k"]:
    """Mean number of windows of a segment.

    Example:
        >>> mean_durations(jnp.array([[0.5, 0.5]])).tolist()
        [1.5]
    """
    return duration @ (1.0 + jnp.arange(duration.shape[1]))


def semi_markov_filter(
    initial: Float[Array, " k"],
    transition: Float[Array, "k k"],
    duration: Float[Array, "k d"],
    log_likelihood: Float[Array, "t k"],
) -> Filtered:
    """The exact posterior of the state of each window, given all up to it; see the module.

    Args:
        initial: of the state of the first segment, which begins with the first window.
        transition: rows sum to 1, the diagonal is 0.
        duration: of segments, from 1 window on.
        log_likelihood: of each window in each state.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> twice = jnp.array([[0.0, 1.0], [0.0, 1.0]])  # segments of two windows
        >>> found = semi_markov_filter(jnp.array([1.0, 0.0]), swap, twice, jnp.zeros((5, 2)))
        >>> found.posterior.argmax(1).tolist()
        [0, 0, 1, 1, 0]
    """
    sizes: dict[str, int] = {}
    check_shape("log_likelihood", log_likelihood, "t k", sizes)
    check_shape("initial", initial, "k", sizes)
    check_shape("transition", transition, "k k", sizes)
    check_shape("duration", duration, "k d", sizes)
    log_duration = jnp.log(duration)
    start = jnp.log(initial)[:, None] + log_duration
    gone = jnp.full_like(start[:, :1], -jnp.inf)

    def step(carry, likelihood):
        predicted, total = carry
        joint = predicted + likelihood[:, None]
        seen = logsumexp(joint)
        alpha = joint - seen
        entering = logsumexp(alpha[:, 0, None] + jnp.log(transition), axis=0)
        going_on = jnp.concatenate([alpha[:, 1:], gone], axis=1)
        predicted = jnp.logaddexp(going_on, entering[:, None] + log_duration)
        return (predicted, total + seen), jnp.exp(logsumexp(alpha, axis=1))

    zero = jnp.zeros((), log_likelihood.dtype)
    (_, total), posterior = lax.scan(step, (start, zero), log_likelihood)
    return Filtered(posterior, total)


def count_log_likelihood(
    counts: Int[Array, "t c"],
    fraction: Float[Array, " t"],
    rates: Float[Array, "k c"],
    beta: Float[Array, "k 2"],
) -> Float[Array, "t k"]:
    """Of windows with Poisson counts and a fraction that is Beta distributed, in each state.

    Args:
        counts: of c kinds of events.
        fraction: between 0 and 1.
        rates: of events in each state.
        beta: the two parameters of the fraction in each state.

    Example:
        >>> found = count_log_likelihood(jnp.array([[0]]), jnp.array([0.5]), jnp.array([[2.0]]),
        ...                              jnp.ones((1, 2)))
        >>> round(float(found[0, 0]), 3)
        -2.0
    """
    sizes: dict[str, int] = {}
    check_shape("counts", counts, "t c", sizes)
    check_shape("fraction", fraction, "t", sizes)
    check_shape("rates", rates, "k c", sizes)
    check_shape("beta", beta, "k 2", sizes)
    poisson = jax.scipy.stats.poisson.logpmf(counts[:, None], rates).sum(-1)
    a, b = beta[:, 0], beta[:, 1]
    # By gammaln: the betaln of jax is right to single precision only.
    scale = gammaln(a + b) - gammaln(a) - gammaln(b)
    x = fraction[:, None]
    return poisson + scale + (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x)


def memoryless_posterior(
    prior: Float[Array, " k"], log_likelihood: Float[Array, "t k"]
) -> Float[Array, "t k"]:
    """Posterior of each window by itself: the bound for what sees one window only.

    Example:
        >>> memoryless_posterior(jnp.array([0.5, 0.5]), jnp.zeros((1, 2))).tolist()
        [[0.5, 0.5]]
    """
    return jax.nn.softmax(log_likelihood + jnp.log(prior), axis=-1)
