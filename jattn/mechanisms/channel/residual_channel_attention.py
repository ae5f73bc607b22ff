"""Channel attention at full resolution, GuideSR (Arora et al. 2025, arXiv 2505.00687).

    u = gelu(conv x),   y = x + conv( u * sigmoid(W mean(u) + b) )

A block of a restoration network: channels are weighed by their own means, between two
convolutions, and added to what came in. Its guided attention, where a restored image gates, is
`jattn.mechanisms.cross.supervised_attention` with `gate_from="residual"`.

Distinctive: one affine map from means to factors, without a bottleneck.

Limits: a last convolution of zero is the identity; factors are constant in space.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.mechanisms.layers.affine import affine, affine_init
from jattn.mechanisms.layers.convolutions import convolution
from jattn.mechanisms.layers.means import mean_over_space


def residual_channel_attention(params: dict, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """`x + conv(u * sigmoid(W mean(u) + b))`, `u = gelu(conv x)`.

    Args:
        params: convolutions `inner` and `outer`, `{"weight": [k, k, c, c], "bias"}`; affine `gate`.
        x: features.

    Reference:
        arXiv 2505.00687.

    Example:
        >>> params = residual_channel_attention_init(jax.random.key(0), 4)
        >>> residual_channel_attention(params, jnp.ones((1, 5, 5, 4))).shape
        (1, 5, 5, 4)
    """
    u = jax.nn.gelu(convolution(x, params["inner"]["weight"], params["inner"]["bias"]))
    opened = u * jax.nn.sigmoid(affine(params["gate"], mean_over_space(u)))
    return x + convolution(opened, params["outer"]["weight"], params["outer"]["bias"])


def residual_channel_attention_init(key: jax.Array, channels: int, *, width: int = 3) -> dict:
    """Parameters for features of so many channels."""
    inner, outer, gate = jax.random.split(key, 3)
    bound, shape = (width * width * channels) ** -0.5, (width, width, channels, channels)
    params = {
        name: {
            "weight": jax.random.uniform(own, shape, minval=-bound, maxval=bound),
            "bias": jnp.zeros(channels),
        }
        for name, own in (("inner", inner), ("outer", outer))
    }
    return params | {"gate": affine_init(gate, channels, channels)}
