"""Variables that determine one another in pairs: half of them are causes, each of one effect.

y_j(t + 1) = x_{cause(j)}(t),    x_i(t + 1) anything
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


class Moments(NamedTuple):
    """The variables at two moments, causes first, then effects; 0 or 1 each.

    Attributes:
        now: `[..., n]`.
        next: `[..., n]`.
    """

    now: Int[Array, "*batch n"]
    next: Int[Array, "*batch n"]


def pairs_of(causes: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n2"]:
    """Of each variable, the one that it shares a factor with.

    Args:
        causes: which cause each effect has.

    Example:
        >>> pairs_of(np.array([1, 0])).tolist()
        [3, 2, 1, 0]
    """
    count = len(causes)
    return np.concatenate([count + np.argsort(causes), np.asarray(causes)])


def factor_graph(causes: Int[np.ndarray, " n"]) -> Callable[[jax.Array], Moments]:
    """Makes the sampler of two moments that follow each other.

    Args:
        causes: which cause each effect has, a permutation.

    Returns:
        `sample(key) -> Moments`, to be vmapped over keys.

    Raises:
        ValueError: no permutation.

    Example:
        >>> now, after = factor_graph(np.array([1, 0]))(jax.random.key(0))
        >>> after[2:].tolist() == [int(now[1]), int(now[0])]
        True
    """
    causes = np.asarray(causes)
    count = len(causes)
    if causes.ndim != 1 or not count or sorted(causes.tolist()) != list(range(count)):
        raise ValueError(f"causes: expected a permutation of 0, 1, ..., got {causes.tolist()}")

    def sample(key: jax.Array) -> Moments:
        of_now, of_next = jax.random.split(key)
        draw = lambda key, n: jax.random.bernoulli(key, shape=(n,)).astype(jnp.int32)
        now = draw(of_now, 2 * count)
        return Moments(now, jnp.concatenate([draw(of_next, count), now[causes]]))

    return sample
