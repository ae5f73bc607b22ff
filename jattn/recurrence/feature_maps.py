"""Feature maps: elementwise functions of queries and keys that replace the softmax kernel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FeatureMap = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]


def identity(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`phi(x) = x`; signed, so not for a normalised read."""
    return x


def elu1(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`phi(x) = elu(x) + 1`, positive everywhere (arXiv 2006.16236)."""
    return jax.nn.elu(x) + 1


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`phi(x) = max(x, 0)`."""
    return jax.nn.relu(x)


def exp(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`phi(x) = exp(x)`, the diagonal part of the exponential kernel."""
    return jnp.exp(x)


FEATURE_MAPS: dict[str, FeatureMap] = {
    "identity": identity,
    "elu1": elu1,
    "relu": relu,
    "exp": exp,
}
