"""Supervised attention (Zamir et al. 2021, arXiv 2102.02808; MAXIM 2201.02973): an image gates.

    image = conv(x) (+ input image),   y = x + conv(x) * sigmoid(conv(image))

A restored image, which has a loss of its own, says where features pass on to the next stage.

Distinctive: the gate is something one can look at, and is trained to be.

Limits: the last convolution zero halves `conv(x)`; a first one of zero leaves x. GuideSR's guided
attention (arXiv 2505.00687) is the same with the residual image alone as the gate's input.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice
from jattn.mechanisms.layers.convolutions import convolution


def supervised_attention(
    params: dict[str, Any],
    x: Float[Array, "b h w c"],
    image: Float[Array, "b h w i"] | None = None,
    *,
    gate_from: str = "restored",
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w i"]]:
    """Features behind the gate, and the restored image that it is made of.

    Args:
        params: convolutions `features`, `image` and `gate`, each `{"weight": [k, k, in, out],
            "bias"}`.
        x: features.
        image: the degraded input, to which the restored image is a residual; default it is none.
        gate_from: what the gate is made of: the `"restored"` image, or the `"residual"` alone.

    Reference:
        arXiv 2102.02808.

    Example:
        >>> params = supervised_attention_init(jax.random.key(0), 4)
        >>> y, restored = supervised_attention(params, jnp.ones((1, 6, 6, 4)))
        >>> y.shape, restored.shape
        ((1, 6, 6, 4), (1, 6, 6, 3))
    """
    apply = lambda name, z: convolution(z, params[name]["weight"], params[name].get("bias"))
    check_choice("gate_from", gate_from, ("restored", "residual"))
    residual = apply("image", x)
    restored = residual if image is None else residual + image
    gate = jax.nn.sigmoid(apply("gate", restored if gate_from == "restored" else residual))
    return x + apply("features", x) * gate, restored


def supervised_attention_init(
    key: jax.Array, channels: int, *, image_channels: int = 3, width: int = 3
) -> dict[str, Any]:
    """Parameters for features of so many channels."""
    sizes = {
        "features": (channels, channels),
        "image": (channels, image_channels),
        "gate": (image_channels, channels),
    }
    keys = jax.random.split(key, len(sizes))
    params = {}
    for own, (name, (inputs, outputs)) in zip(keys, sizes.items(), strict=True):
        bound = (width * width * inputs) ** -0.5
        shape = (width, width, inputs, outputs)
        weight = jax.random.uniform(own, shape, minval=-bound, maxval=bound)
        params[name] = {"weight": weight, "bias": jnp.zeros(outputs)}
    return params
