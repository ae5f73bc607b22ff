"""Low-rank adapters of linear maps, as pytrees of their own: W' = W + scale A B.

Reference: LoRA, arXiv 2106.09685.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count


class Adapter(NamedTuple):
    """What is added to one linear map, or to a stack of them.

    Attributes:
        down: A, `[*layers, inputs, rank]`.
        up: B, `[*layers, rank, outputs]`; zeros at first.
    """

    down: Float[Array, "*layers inputs rank"]
    up: Float[Array, "*layers rank outputs"]


def lora_init(
    key: jax.Array, weights: Mapping[str, Array], *, rank: int, targets: Sequence[str]
) -> dict[str, Adapter]:
    """Adapters that change nothing yet.

    Args:
        key: draws A, from N(0, 1 / inputs).
        weights: linear maps by name, `[*layers, inputs, outputs]`: a mechanism's parameters, or
            `arrays()["layers"]` of a `Llama`.
        rank: of what is added.
        targets: names of the maps that get an adapter.

    Returns:
        Adapters by name, float32.

    Raises:
        ValueError: a name that there is not, or that is no linear map.

    Example:
        >>> adapters = lora_init(jax.random.key(0), {"query": jnp.ones((3, 8, 4))},
        ...                      rank=2, targets=("query",))
        >>> adapters["query"].down.shape, adapters["query"].up.shape
        ((3, 8, 2), (3, 2, 4))
    """
    check_count("rank", rank)
    maps = [name for name, array in weights.items() if _is_map(name, array)]
    adapters = {}
    for own, name in zip(jax.random.split(key, max(len(targets), 1)), targets, strict=False):
        if name not in maps:
            raise ValueError(f"targets: expected any of {', '.join(maps)}, got {name!r}")
        *layers, inputs, outputs = weights[name].shape
        down = jax.random.normal(own, (*layers, inputs, rank)) * inputs**-0.5
        adapters[name] = Adapter(down, jnp.zeros((*layers, rank, outputs)))
    return adapters


def lora_merge(
    weights: Mapping[str, Any], adapters: Mapping[str, Adapter], *, scale: float = 1.0
) -> dict[str, Any]:
    """The maps with their adapters added, to be run like any others.

    To train adapters alone, differentiate a loss of `lora_merge(weights, adapters)` with respect to
    them: the sum costs little beside a forward pass.

    Args:
        weights: as for `lora_init`.
        adapters: as it gives them.
        scale: of what is added; alpha / rank in the paper.

    Returns:
        The same names and dtypes.

    Raises:
        ValueError: an adapter of a map that there is not, or of another shape.

    Example:
        >>> one = Adapter(jnp.ones((2, 1)), jnp.ones((1, 2)))
        >>> lora_merge({"key": jnp.zeros((2, 2))}, {"key": one}, scale=0.5)["key"].tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    merged = dict(weights)
    for name, (down, up) in adapters.items():
        if name not in weights:
            raise ValueError(f"adapters: expected any of {', '.join(weights)}, got {name!r}")
        shape = (*down.shape[:-1], up.shape[-1])
        if weights[name].shape != shape:
            expected = list(weights[name].shape)
            raise ValueError(f"adapters: {name}: expected a map {expected}, got {list(shape)}")
        added = scale * jnp.matmul(down, up, precision="highest")
        merged[name] = (weights[name] + added).astype(weights[name].dtype)
    return merged


def _is_map(name: str, array: Array) -> bool:
    return jnp.ndim(array) >= 2 and not name.endswith("norm")
