"""Contrast over time: frames that are near in a clip should be nearer in latent space than others.

L = -log e^{S_ij} / (e^{S_ij} + e^{S_ik} + e^{S_in}),   S_ab = -|z_a - z_b|

for frames i < j < k of one clip and a frame n of another one. What stays the same throughout a clip
is a help against n, but none against k.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape

Latents = Float[Array, "b m"]


def time_contrast(
    first: Latents, near: Latents, far: Latents, other: Latents
) -> Float[Array, " b"]:
    """The loss of each example; see the module.

    Args:
        first, near, far: latents of frames i < j < k of one clip.
        other: of a frame of another clip.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2203.12601.

    Example:
        >>> here = jnp.zeros((1, 2))
        >>> round(float(time_contrast(here, here, here, here)[0]), 3)  # log 3
        1.099
    """
    sizes: dict[str, int] = {}
    for name, array in (("first", first), ("near", near), ("far", far), ("other", other)):
        check_shape(name, array, "b m", sizes)
    # The tiny number keeps the slope of the root finite where two latents are the same.
    distance = lambda z: jnp.sqrt(((first - z) ** 2).sum(-1) + 1e-12)
    scores = -jnp.stack([distance(near), distance(far), distance(other)], -1)
    return -jax.nn.log_softmax(scores, axis=-1)[:, 0]
