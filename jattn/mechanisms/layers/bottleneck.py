"""The narrow network of two layers that most gates over channels go through."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_flag
from jattn.mechanisms.layers.linear_maps import linear, linear_init


def bottleneck_init(
    key: jax.Array, channels: int, reduction: int, *, inputs: int | None = None, bias: bool = False
) -> dict[str, Array]:
    """`{"down": [inputs, hidden], "up": [hidden, channels]}`, and biases of zeros if asked for.

    Args:
        key: a PRNG key.
        channels: of what comes out, c.
        reduction: the hidden layer has inputs / reduction units, one at least.
        inputs: of what goes in; default c.
        bias: whether there are `down_bias` and `up_bias`.
    """
    check_count("reduction", reduction)
    check_flag("bias", bias)
    inputs = channels if inputs is None else inputs
    hidden = max(inputs // reduction, 1)
    down, up = jax.random.split(key)
    biases = {"down_bias": jnp.zeros(hidden), "up_bias": jnp.zeros(channels)} if bias else {}
    weights = {"down": linear_init(down, inputs, hidden), "up": linear_init(up, hidden, channels)}
    return weights | biases


def bottleneck(
    params: Mapping[str, Array], z: Float[Array, "*batch inputs"]
) -> Float[Array, "*batch c"]:
    """`relu(z down) up`, with `down_bias` and `up_bias` where there are any.

    Example:
        >>> bottleneck({"down": jnp.eye(2), "up": 3 * jnp.eye(2)}, jnp.array([1.0, -1.0])).tolist()
        [3.0, 0.0]
    """
    for name in ("down", "up"):
        z = linear(z, params[name])
        if f"{name}_bias" in params:
            z = z + params[f"{name}_bias"].astype(z.dtype)
        z = jax.nn.relu(z) if name == "down" else z
    return z
