"""Regression whose law changes: with the region of the keys, or with time.

    f(k) = W_r k,   r = the centroid nearest to k,   v_j = f(k_j) + noise

Keys, queries and centroids are unit vectors, W has standard normal entries. One segment is a
linear function. In a stream the segments follow one another, and the keys of each scatter about its
own centroid, more or less widely.
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


def _check(noise: float, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if noise < 0:
        raise ValueError(f"noise: expected at least 0, got {noise}")


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
    _check(noise, dim=dim, pairs=pairs, queries=queries, most_segments=most_segments)

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


class Stream(NamedTuple):
    """Pairs in their order.

    Attributes:
        key: `[t, d]`.
        clean: values without noise, `[t, e]`.
        value: with it.
    """

    key: Float[Array, "t d"]
    clean: Float[Array, "t e"]
    value: Float[Array, "t e"]


def switching_stream(
    dim: int, length: int, segments: int, *, noise: float = 0.05
) -> Callable[[jax.Array, float | Float[Array, ""]], Stream]:
    """Makes the sampler of a stream whose law, and the place of its keys, switch now and then.

        k = c_r + spread z / sqrt(d), brought to norm one,   z ~ N(0, I),   v = W_r k + noise

    Args:
        dim: of keys, d, and of values, e = d.
        length: pairs of each segment.
        segments: how many follow one another; the stream has t = length * segments pairs.
        noise: its standard deviation.

    Returns:
        `(key, spread) -> Stream`. Small spreads keep segments apart, with large ones they overlap.

    Raises:
        ValueError: a size below 1, or negative noise.

    Example:
        >>> switching_stream(4, 6, 2)(jax.random.key(0), 0.5).value.shape
        (12, 4)
    """
    _check(noise, dim=dim, length=length, segments=segments)

    def sample(key, spread):
        keys = jax.random.split(key, 4)
        centroids = unit(jax.random.normal(keys[0], (segments, 1, dim)))
        slopes = jax.random.normal(keys[1], (segments, dim, dim))
        scatter = jax.random.normal(keys[2], (segments, length, dim)) * dim**-0.5
        seen = unit(centroids + spread * scatter)
        clean = jnp.einsum("sde,sld->sle", slopes, seen)
        value = clean + noise * jax.random.normal(keys[3], clean.shape)
        return Stream(*(x.reshape(-1, dim) for x in (seen, clean, value)))

    return sample
