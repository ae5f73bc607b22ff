"""One global map for all scales, MEDUSA (Aboutalebi et al. 2021, arXiv 2110.06063).

    a_j = sigmoid(head_j([F_j, resize(A)])),   F_j' = F_j (1 + a_j)   or   F_j a_j

A network of its own reads the image once and gives a map A; at every scale a light head of two
convolutions makes of it, and of the features there, where they pass. The paper draws the wiring
and leaves the rest open: sigmoid, residual and heads are choices.

Distinctive: one body with many heads, so that all scales attend to the same thing.

Limits: heads of zero multiply by 1/2, or by 3/2 with the residual.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.layers.convolutions import convolution


def resized(x: Float[Array, "b h w c"], shape: tuple[int, int]) -> Float[Array, "b y x c"]:
    """x at other sides, linearly interpolated."""
    return jax.image.resize(x, (len(x), *shape, x.shape[-1]), "linear")


def global_attention(
    params: dict,
    features: Float[Array, "b y x c"],
    map: Float[Array, "b h w g"],
    *,
    residual: bool = True,
) -> tuple[Float[Array, "b y x c"], Float[Array, "b y x k"]]:
    """Features of one scale behind the gate, and the gate.

    Args:
        params: `inner` and `outer`, convolutions `{"weight": [k, k, in, out], "bias"}` to one
            channel, or one for each of the features'.
        features: of this scale.
        map: A, of any size.
        residual: whether the features stay besides.

    Reference:
        arXiv 2110.06063.

    Example:
        >>> params = global_attention_init(jax.random.key(0), 4, 1)
        >>> y, gate = global_attention(params, jnp.ones((1, 6, 6, 4)), jnp.ones((1, 12, 12, 1)))
        >>> y.shape, gate.shape
        ((1, 6, 6, 4), (1, 6, 6, 1))
    """
    seen = jnp.concatenate(
        [features, resized(map, (features.shape[1], features.shape[2]))], axis=-1
    )
    hidden = jax.nn.relu(convolution(seen, params["inner"]["weight"], params["inner"]["bias"]))
    gate = jax.nn.sigmoid(convolution(hidden, params["outer"]["weight"], params["outer"]["bias"]))
    return features * (gate + 1 if residual else gate), gate


def global_attention_init(key: jax.Array, channels: int, map_channels: int) -> dict:
    """Parameters of a head: 3 x 3 to as many channels as the features have, 1 x 1 to one."""
    inner, outer = jax.random.split(key)
    inputs = channels + map_channels
    draw = lambda key, shape, fan: jax.random.uniform(
        key, shape, minval=-(fan**-0.5), maxval=fan**-0.5
    )
    return {
        "inner": {
            "weight": draw(inner, (3, 3, inputs, channels), 9 * inputs),
            "bias": jnp.zeros(channels),
        },
        "outer": {"weight": draw(outer, (1, 1, channels, 1), channels), "bias": jnp.zeros(1)},
    }
