"""Feature maps: functions of queries and keys whose inner products replace the softmax kernel."""

import itertools
import math
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


def taylor_features(x: Float[Array, "*batch d"], order: int) -> list[Float[Array, "*batch n"]]:
    """Features phi_0(x), ..., phi_N(x) with `phi_n(x) . phi_n(y) = (x . y)^n / n!`.

    Products of n channels, each set of channels once, so d (d + 1) / 2 for n = 2.

    Args:
        x: `[..., d]`.
        order: N, 0 or more.

    Returns:
        N + 1 arrays, the n-th of `(d + n - 1 choose n)` features.

    Raises:
        ValueError: a negative order.

    Reference:
        arXiv 2507.23632.

    Example:
        >>> features = taylor_features(jnp.array([1.0, 2.0, 0.0]), 2)
        >>> [phi.size for phi in features], [round(float(phi @ phi), 3) for phi in features]
        ([1, 3, 6], [1.0, 5.0, 12.5])
    """
    if order < 0:
        raise ValueError(f"order: expected at least 0, got {order}")
    size = x.shape[-1]
    # Shifted against itself, not in the sequence below: gradients without sums over products.
    pairs = [x * x * 2**-0.5, *(x[..., :-shift] * x[..., shift:] for shift in range(1, size))]
    features = [jnp.ones_like(x[..., :1]), x, jnp.concatenate(pairs, -1)][: order + 1]
    products = x
    for n in range(2, order + 1):
        # In lexicographic sequence, products without the first c channels are the last ones.
        without = [math.comb(size - c + n - 2, n - 1) for c in range(size)]
        products = jnp.concatenate(
            [x[..., c : c + 1] * products[..., -k:] for c, k in enumerate(without)], -1
        )
        if n > 2:  # A product stands for all sequences of its channels, over n!.
            sets = itertools.combinations_with_replacement(range(size), n)
            weight = [math.prod(math.factorial(s.count(c)) for c in set(s)) ** -0.5 for s in sets]
            features.append(products * jnp.asarray(weight, x.dtype))
    return features


FEATURE_MAPS: dict[str, FeatureMap] = {
    "identity": identity,
    "elu1": elu1,
    "relu": relu,
    "exp": exp,
}
