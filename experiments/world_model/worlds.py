"""The worlds: clips of shapes or digits that drift and bounce."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jattn.tasks.images import images
from jattn.tasks.moving_images import moving_images, spots
from jattn.training import UsageError

WORLDS = ("shapes", "digits")
SPOTS, SPOT_SIDE = (0.8, 1.2, 1.6), 7  # widths in pixels; side of their images


def worlds_of(config) -> list[str]:
    """The worlds asked for."""
    names = [name.strip() for name in config.worlds.split(",")]
    for name in names:
        if name not in WORLDS:
            raise UsageError(f"worlds: expected any of {', '.join(WORLDS)}, got {name!r}")
    return names


def clips(config, world: str, frames: int, *, test: bool) -> Callable[[jax.Array], jax.Array]:
    """The sampler of clips `[frames, side, side]`; digits of a test are others than in training."""
    if world == "shapes":
        moving, count = spots(SPOTS, SPOT_SIDE), 2
    else:
        found = images("digits")
        moving, count = jnp.asarray((found.test if test else found.train)[..., 0]), 1
    try:
        return moving_images(moving, side=config.side, frames=frames, count=count)
    except ValueError as error:
        raise UsageError(str(error)) from None
