"""Networks that serve as memories: a matrix, or an MLP with or without a residual and a norm."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.norms import layer_norm

NORM_EPSILON = 1e-5


def network_init(
    key: jax.Array, size: int, *, depth: int = 2, expansion: int = 4, residual_norm: bool = True
) -> dict[str, Any]:
    """Parameters of `network`, from a dimension to itself.

    Args:
        key: a PRNG key.
        size: dimension d of keys and values.
        depth: number of matrices; 1 is a linear memory.
        expansion: inner dimensions over d.
        residual_norm: whether there is a residual and a norm; then its gain is a parameter, too.

    Raises:
        ValueError: a depth or an expansion below 1.

    Example:
        >>> params = network_init(jax.random.key(0), 4, depth=3, expansion=2)
        >>> [w.shape for w in params["weights"]], params["gain"].shape
        ([(4, 8), (8, 8), (8, 4)], (4,))
    """
    for name, value in (("depth", depth), ("expansion", expansion)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    sizes = [size, *[expansion * size] * (depth - 1), size]
    keys = jax.random.split(key, depth)
    weights = [linear_init(k, a, b) for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]
    params: dict[str, Any] = {"weights": weights}
    return params | {"gain": jnp.zeros(size)} if residual_norm else params


def network(params: dict[str, Any], x: Float[Array, "*batch d"]) -> Float[Array, "*batch e"]:
    """`mlp(x)`, or with a gain `x + (1 + gain) norm(mlp(x))`.

        mlp(x) = gelu(.. gelu(x W_0) W_1 ..) W_L,     norm(y) = (y - mean y) / sqrt(var y + 1e-5)

    Args:
        params: `{"weights": [W_0, ..., W_L]}`, and `"gain"` `[d]` if there is one.
        x: `[..., d]`.

    Returns:
        `[..., e]`.

    Reference:
        arXiv 2501.00663.

    Example:
        >>> network({"weights": [2 * jnp.eye(2)]}, jnp.ones(2)).tolist()
        [2.0, 2.0]
    """
    return through([lambda y, w=w: y @ w for w in params["weights"]], params.get("gain"), x)


def through(
    products: Sequence[Callable[[Array], Array]],
    gain: Float[Array, "..."] | None,
    x: Float[Array, "*batch d"],
) -> Float[Array, "*batch e"]:
    """`network` with whatever stands for the products with its matrices.

    Args:
        products: what each matrix makes of its inputs.
        gain: of the norm, the same for all x or one for each; None: there is neither norm nor
            residual.
        x: `[..., d]`.
    """
    first, *later = products
    out = first(x)
    for product in later:
        out = product(jax.nn.gelu(out, approximate=False))
    if gain is None:
        return out
    size = out.shape[-1]
    normed = layer_norm(out, jnp.ones(size), jnp.zeros(size), eps=NORM_EPSILON)
    return (x + (1 + gain) * normed).astype(x.dtype)
