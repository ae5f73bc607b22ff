"""How much a memory of random pairs holds, and how its errors travel: closed forms.

n pairs of independent unit vectors, keys of dimension d_k and values of dimension d_v, are stored
by one of the rules of `jattn.theory.hebbian_memory` and asked for by their own keys. The response
is the value and noise; powers are relative to the value's.

Everything is NumPy in float64: these are curves to compare runs with.

Reference: arXiv 2508.08289; (derived) marks what is not in the paper.
"""

import numpy as np
from scipy import stats
from scipy.optimize import brentq


def noise_power(pairs, *, d_k):
    """E|noise|^2 = (n - 1) / d_k, exactly (theorem 6); the signal to noise ratio is its inverse.

    Example:
        >>> noise_power(64, d_k=64)
        0.984375
    """
    return (pairs - 1) / d_k


def shared_noise_power(pairs, *, d_k, d_model):
    """Mean power of the interference in a head that projects stimuli of d_model dimensions.

        (n - 1) (1 / d_k + 1 / d_model)

    for stimuli uniform on the sphere and Gaussian projections of variance 1 / d_k: what the stimuli
    have in common, all heads of a model have. Derived here.

    Example:
        >>> round(shared_noise_power(20, d_k=64, d_model=64), 3)
        0.594
    """
    return (pairs - 1) * (1 / d_k + 1 / d_model)


def noise_spread(pairs, *, d_k, d_v):
    """Standard deviation of |noise|^2 over its mean, exactly. (derived)

        sqrt( 2 (d_k - 1) / ((n - 1)(d_k + 2)) + 2 (n - 2) / ((n - 1) d_v) )

    With growing n and d_k it becomes sqrt(2 / (n - 1) + 2 / d_v): the noise concentrates.

    Example:
        >>> round(float(noise_spread(8, d_k=16, d_v=16)), 4)
        0.5876
    """
    alone = 2 * (d_k - 1) / ((pairs - 1) * (d_k + 2))
    together = 2 * (pairs - 2) / ((pairs - 1) * d_v)
    return np.sqrt(alone + np.maximum(together, 0))


def failure_bound(pairs, *, d_k, delta):
    """Markov's bound on P(|noise|^2 >= delta) of one pair: (n - 1) / (delta d_k) (theorem 6)."""
    return np.minimum((pairs - 1) / (delta * d_k), 1.0)


def failure_rate(pairs, *, d_k, d_v, delta):
    """P(|noise|^2 >= delta) of one pair, |noise|^2 taken as Gamma distributed. (derived)

    The mean and the spread are those of `noise_power` and `noise_spread`.

    Example:
        >>> bool(failure_rate(32, d_k=64, d_v=64, delta=1.0) < 0.01)
        True
    """
    shape = noise_spread(pairs, d_k=d_k, d_v=d_v) ** -2
    return stats.gamma.sf(delta, shape, scale=noise_power(pairs, d_k=d_k) / shape)


def capacity_floor(d_k, *, delta, epsilon):
    """Pairs that are safe all together with probability 1 - epsilon: sqrt(epsilon delta d_k).

    The worst case of theorem 6: Markov's bound for one pair, and a union bound over all.

    Example:
        >>> capacity_floor(1000, delta=1.0, epsilon=0.1)
        10.0
    """
    return float(np.sqrt(epsilon * delta * d_k))


def capacity_ceiling(d_k, *, delta):
    """Pairs at which the mean noise reaches delta: 1 + delta d_k, the average case."""
    return 1 + delta * d_k


def capacity(d_k, *, d_v, delta, epsilon):
    """Pairs n* at which one of all fails with probability epsilon. (derived)

        1 - (1 - p(n*))^n* = epsilon,   p = failure_rate

    The noise concentrates, so n* grows as d_k up to logarithms, not as its square root.

    Example:
        >>> round(capacity(128, d_v=128, delta=1.0, epsilon=0.1))
        75
    """

    def excess(pairs):
        alone = failure_rate(pairs, d_k=d_k, d_v=d_v, delta=delta)
        return -np.expm1(pairs * np.log1p(-alone)) - epsilon

    return float(brentq(excess, 1.5, capacity_ceiling(d_k, delta=delta)))  # type: ignore


def network_failure(head_failure, *, heads, layers):
    """A layer fails if all its heads do, a network if any layer does: 1 - (1 - p^H)^L (theorem 9).

    Args:
        head_failure: p; with `n / (delta d_k)` for it, the paper's bound.
        heads: H, which fail independently.
        layers: L.

    Example:
        >>> round(float(network_failure(0.158, heads=2, layers=4)), 4)
        0.0962
    """
    with np.errstate(divide="ignore"):
        return -np.expm1(layers * np.log1p(-(np.minimum(head_failure, 1.0) ** heads)))


def chained_noise(pairs, layers, *, d_k):
    """Noise power where a read, as it is, is the next layer's query: (1 + (n-1)/d_k)^L - 1.

    The read's coefficients over the items are a row of `(I + E_1) ... (I + E_L)`, with
    independent E_l of mean zero and entries of variance 1/d_k off the diagonal. (derived)

    Example:
        >>> float(chained_noise(65, 2, d_k=64))
        3.0
    """
    return (1 + noise_power(pairs, d_k=d_k)) ** layers - 1


def decay_noise(pairs, lag, *, d_k, gamma):
    """Noise power with weights gamma^s by age s, for the pair of age `lag`. (derived)

        ( (1 - gamma^{2n}) / (1 - gamma^2) - gamma^{2 lag} ) / d_k

    The signal's power is gamma^{2 lag}.

    Example:
        >>> round(float(decay_noise(400, 0, d_k=128, gamma=0.9)), 4)
        0.0333
    """
    total = pairs if gamma == 1 else (1 - gamma ** (2 * pairs)) / (1 - gamma**2)
    return (total - gamma ** (2 * np.asarray(lag))) / d_k


def delta_error(pairs, *, d_k):
    """Mean-field error of the delta rule by age, after one pass with alpha = 1. (derived)

    A pair's read has power p and overlap w with its value. Each later write, into a memory of
    squared norm F, changes them by

        p <- p - 2 p / d_k + (1 + F / d_k) / d_k,   w <- w (1 - 1/d_k),   F <- F (1 - 1/d_k) + 1

    from p = w = 1; the error is p - 2 w + 1.

    Returns:
        The error of the pair of age 0, 1, ..., n - 1.

    Example:
        >>> delta_error(64, d_k=64).round(2)[[0, 4, 63]].tolist()
        [0.0, 0.1, 1.03]
    """
    size = d_k * (1 - (1 - 1 / d_k) ** np.arange(pairs + 1.0))  # F after so many writes
    power = overlap = np.ones(pairs)  # of the pair written first, second, ...
    written = np.arange(pairs)
    for later in range(1, pairs):
        changed = (1 + size[later] / d_k) / d_k
        old = written < later
        power = np.where(old, power * (1 - 2 / d_k) + changed, power)
        overlap = np.where(old, overlap * (1 - 1 / d_k), overlap)
    return (power - 2 * overlap + 1)[::-1]


def correlated_noise(pairs, *, d_k, rho):
    """Hebbian noise power for keys with a common direction, (n - 1) E cos^2. (derived)

        (n - 1) (rho^2 + (1 - rho)^2 / (d_k - 1)),

    the keys being those of `jattn.tasks.conditioning.correlated_sphere`.

    Example:
        >>> round(correlated_noise(48, d_k=64, rho=0.3), 4)
        4.5956
    """
    return (pairs - 1) * (rho**2 + (1 - rho) ** 2 / (d_k - 1))


def softmax_error(pairs, *, d_k, inverse_temperature):
    """Mean-field squared error of a softmax read of n unit keys at inverse temperature b. (derived)

        w = e^b / Z,   Z = e^b + (n - 1) M(b),   error = (1 - w)^2 + (n - 1) M(2 b) / Z^2,

    M(b) = exp(b^2 / (2 d_k)) the mean of exp(b cos) over random directions, for b << d_k.

    Example:
        >>> bool(softmax_error(64, d_k=64, inverse_temperature=12.0) < 0.01)
        True
    """
    mean = lambda b: np.exp(b**2 / (2 * d_k))
    total = np.exp(inverse_temperature) + (pairs - 1) * mean(inverse_temperature)
    missing = 1 - np.exp(inverse_temperature) / total
    return missing**2 + (pairs - 1) * mean(2 * inverse_temperature) / total**2
