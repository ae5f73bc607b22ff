"""One vision transformer for all mixers, with the same number of parameters."""

from typing import Any

import jattn
from experiments.functional import Model, as_functions, as_large, parse_mechanisms
from jattn.nn import VisionTransformer, VisionTransformerConfig

SOFTMAX, AGENTS = "softmax_attention", "agent_attention:agents="


def names(config) -> list[str]:
    """The mixers asked for, as `name` or `name:option=value:...`."""
    return [entry.strip() for entry in config.mechanisms.split(",")]


def parsed(entry: str, grid: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """Name and options; those that can know the grid of patches do."""
    name, options = parse_mechanisms(entry)[0]
    return name, options | ({"grid": grid} if "grid" in jattn.zoo.options(name) else {})


def model(config, entry: str, shape: tuple[int, ...]) -> Model:
    """The transformer with this mixer; its MLPs make up for parameters more or less.

    Args:
        config: patch, dim, heads, layers, mlp_ratio.
        entry: the mixer.
        shape: of an image: height, width, channels.
    """
    height, width, channels = shape
    grid = (height // config.patch, width // config.patch)

    def made(entry: str, mlp_ratio: float) -> Model:
        settings = VisionTransformerConfig(
            classes=10,
            height=height,
            width=width,
            channels=channels,
            patch=config.patch,
            dim=config.dim,
            heads=config.heads,
            layers=config.layers,
            mechanisms=[parsed(entry, grid)] * config.layers,
            mlp_ratio=mlp_ratio,
        )
        return as_functions(lambda rngs: VisionTransformer(settings, rngs=rngs))

    wanted = made(SOFTMAX, config.mlp_ratio).parameters
    return as_large(lambda hidden: made(entry, hidden / config.dim), wanted)
