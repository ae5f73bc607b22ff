"""A world model of reaction and diffusion (FluidWorld, arXiv 2603.21315).

    z = x + field(x),             x = patches of what is seen, times W   (encoder)
    s <- g s + sigmoid(z W_g + b_g) * tanh(z W_v + b_v)                  (write)
    s <- a few steps of reaction and diffusion                          (evolve)
    next frame = sigmoid(s W_o + b_o), patch by patch                   (read)

The belief s is a field over the same cells as the encoded frame; g, of each channel, is between 0.5
and 0.99. The encoder sees a frame and the one before it. The paper's recurrent extras (lateral
inhibition, fatigue, Hebbian diffusion) are left out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_shape
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.memory.reaction_diffusion_layer import (
    evolve,
    image_space,
    reaction_diffusion,
    reaction_diffusion_init,
)
from jattn.mechanisms.mixer import Params

KEPT = (0.5, 0.99)  # bounds of g
LONGEST = 0.15  # a step of the belief in time
GRID_DILATIONS = (1, 4)


def to_patches(images: Float[Array, "b side side"], patch: int) -> Float[Array, "b h w p"]:
    """Square patches, each one vector.

    Example:
        >>> to_patches(jnp.arange(16.0).reshape(1, 4, 4), 2)[0, 0, 1].tolist()
        [2.0, 3.0, 6.0, 7.0]
    """
    b, side, _ = images.shape
    n = side // patch
    return images.reshape(b, n, patch, n, patch).swapaxes(2, 3).reshape(b, n, n, patch**2)


def from_patches(patches: Float[Array, "b h w p"], patch: int) -> Float[Array, "b side side"]:
    """Undoes `to_patches`.

    Example:
        >>> images = jnp.arange(16.0).reshape(1, 4, 4)
        >>> bool((from_patches(to_patches(images, 2), 2) == images).all())
        True
    """
    b, n = patches.shape[:2]
    return patches.reshape(b, n, n, patch, patch).swapaxes(2, 3).reshape(b, n * patch, n * patch)


def fluid_world_init(key: jax.Array, channels: int, patch: int, *, layers: int = 1) -> Params:
    """Parameters of the world model.

    Args:
        key: a PRNG key.
        channels: c, of the encoder and of the belief.
        patch: side of a patch.
        layers: of reaction and diffusion in the encoder.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> params = fluid_world_init(jax.random.key(0), 4, 2)
        >>> params["embed"].shape, params["read"]["weight"].shape
        ((8, 4), (4, 4))
    """
    check_count("channels", channels)
    check_count("patch", patch)
    check_count("layers", layers)
    of_embed, of_gate, of_value, of_read, of_belief, of_layers = jax.random.split(key, 6)
    field = lambda key: reaction_diffusion_init(key, channels, dilations=len(GRID_DILATIONS))

    def affine(key, outputs):
        return {"weight": linear_init(key, channels, outputs), "bias": jnp.zeros(outputs)}

    return {
        "embed": linear_init(of_embed, 2 * patch**2, channels),
        "layers": [field(key) for key in jax.random.split(of_layers, layers)],
        "gate": affine(of_gate, channels),
        "value": affine(of_value, channels),
        "log_kept": jnp.full(channels, jnp.log(0.95)),
        "belief": field(of_belief),
        "read": affine(of_read, patch**2),
    }


def encode(
    params: Params,
    frame: Float[Array, "b side side"],
    before: Float[Array, "b side side"],
    patch: int,
    *,
    steps: int = 2,
) -> Float[Array, "b h w c"]:
    """A frame and the one before it as a field.

    Args:
        params: of `fluid_world_init`.
        frame, before: pixels from 0 to 1.
        patch: side of a patch.
        steps: of reaction and diffusion, in each layer.

    Example:
        >>> params = fluid_world_init(jax.random.key(0), 4, 2)
        >>> encode(params, jnp.ones((1, 8, 8)), jnp.ones((1, 8, 8)), 2).shape
        (1, 4, 4, 4)
    """
    seen = jnp.concatenate([to_patches(frame, patch), to_patches(before, patch)], -1)
    x = z = seen @ params["embed"]
    for layer in params["layers"]:
        z = reaction_diffusion(z, layer, steps, dilations=GRID_DILATIONS)
    return x + z


def write(
    params: Params, belief: Float[Array, "b h w c"], z: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """The belief after it was shown an encoded frame.

    Args:
        params: of `fluid_world_init`.
        belief: s.
        z: of `encode`.

    Example:
        >>> params = fluid_world_init(jax.random.key(0), 4, 2)
        >>> found = write(params, jnp.ones((1, 2, 2, 4)), jnp.zeros((1, 2, 2, 4)))
        >>> round(float(found[0, 0, 0, 0]), 4)
        0.95
    """
    gate = jax.nn.sigmoid(z @ params["gate"]["weight"] + params["gate"]["bias"])
    value = jnp.tanh(z @ params["value"]["weight"] + params["value"]["bias"])
    return jnp.clip(jnp.exp(params["log_kept"]), *KEPT) * belief + gate * value


def evolve_belief(
    params: Params,
    belief: Float[Array, "b h w c"],
    *,
    steps: int = 3,
    dilations: Sequence[int] = GRID_DILATIONS,
) -> Float[Array, "b h w c"]:
    """The belief a frame later, with nothing seen.

    Args:
        params: of `fluid_world_init`.
        belief: s.
        steps: of reaction and diffusion.
        dilations: distances of the stencil.

    Example:
        >>> params = fluid_world_init(jax.random.key(0), 4, 2)
        >>> evolve_belief(params, jnp.ones((1, 8, 8, 4))).shape
        (1, 8, 8, 4)
    """
    check_shape("belief", belief, "b h w c", {})
    field = params["belief"]
    field = field | {"log_dt": jnp.minimum(field["log_dt"], jnp.log(LONGEST))}
    space = image_space(field, (belief.shape[1], belief.shape[2]), dilations)
    return evolve(field, space, belief, steps)


def read(
    params: Params, belief: Float[Array, "b h w c"], patch: int
) -> Float[Array, "b side side"]:
    """The frame that the belief expects.

    Args:
        params: of `fluid_world_init`.
        belief: s.
        patch: side of a patch.

    Example:
        >>> params = fluid_world_init(jax.random.key(0), 4, 2)
        >>> read(params, jnp.zeros((1, 2, 2, 4)), 2)[0, 0].tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    logits = belief @ params["read"]["weight"] + params["read"]["bias"]
    return from_patches(jax.nn.sigmoid(logits), patch)
