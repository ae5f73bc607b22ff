"""Regression whose law changes with the region: linear in each, with jumps between them.

    f(k) = W_r k,   r = the centroid nearest to k,   v_j = f(k_j) + noise

Keys, queries and centroids are unit vectors, W has standard normal entries. One segment is a
linear function.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Problem(NamedTuple):
    """Pairs that have been seen, and questions.

    Attributes:
        key: `[n, d]`.
        clean: values without noise, `[n, e]`.
        value: with it.
        query: `[m, d]`.
        target: their values without noise, `[m, e]`.
    """

    key: Float[Array, "n d"]
    clean: Float[Array, "n e"]
    value: Float[Array, "n e"]
    query: Float[Array, "m d"]
    target: Float[Array, "m e"]


def unit(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Vectors brought to norm one."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def piecewise_regression(
    dim: int, pairs: int, queries: int, *, most_segments: int, noise: float = 0.05
) -> Callable[[jax.Array, int | Int[Array, ""]], Problem]:
    """Makes the sampler.

    Args:
        dim: of keys, d, and of values, e = d.
        pairs: n.
        queries: m.
        most_segments: the largest number of segments that will be asked for.
        noise: its standard deviation.

    Returns:
        `(key, segments) -> Problem`. The number of segments may be traced, and more segments
        change nothing else.

    Raises:
        ValueError: a size below 1, or negative noise.

    Example:
        >>> sample = piecewise_regression(4, 6, 2, most_segments=3)
        >>> sample(jax.random.key(0), 2).value.shape
        (6, 4)
    """
    for name, size in dict(
        dim=dim, pairs=pairs, queries=queries, most_segments=most_segments
    ).items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if noise < 0:
        raise ValueError(f"noise: expected at least 0, got {noise}")

    def sample(key, segments):
        keys = jax.random.split(key, 5)
        centroids = unit(jax.random.normal(keys[0], (most_segments, dim)))
        slopes = jax.random.normal(keys[1], (most_segments, dim, dim))

        def law(x):
            near = jnp.where(jnp.arange(most_segments) < segments, x @ centroids.T, -jnp.inf)
            return jnp.einsum("ned,nd->ne", slopes[near.argmax(-1)], x)

        seen = unit(jax.random.normal(keys[2], (pairs, dim)))
        asked = unit(jax.random.normal(keys[3], (queries, dim)))
        clean = law(seen)
        value = clean + noise * jax.random.normal(keys[4], clean.shape)
        return Problem(seen, clean, value, asked, law(asked))

    return sample
