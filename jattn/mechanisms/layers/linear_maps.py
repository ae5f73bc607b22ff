"""Linear maps without bias, and their weights."""

import jax
from jaxtyping import Array, Float


def linear_init(key: jax.Array, inputs: int, outputs: int) -> Float[Array, "inputs outputs"]:
    """Weights of a linear map without bias: U(-1/sqrt(inputs), 1/sqrt(inputs)).

    Parameters have JAX's default float type, float32; computations follow the tokens' dtype.
    """
    bound = inputs**-0.5
    return jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound)


def linear(
    x: Float[Array, "*batch inputs"], weights: Float[Array, "inputs outputs"]
) -> Float[Array, "*batch outputs"]:
    """`x W`, in x's dtype."""
    return x @ weights.astype(x.dtype)
