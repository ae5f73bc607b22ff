"""Layers of reversed attention in a row: messages handed on, patches dropped (arXiv 2304.03282)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.mechanisms.softmax import layered_tree
from jattn.mechanisms.softmax.dependency_tree import (
    keep_ratio,
    layer_dependencies,
    prune,
    speaking,
)
from jattn.mechanisms.softmax.reversed_attention import reversed_layer, senders
from jattn.nn.blocks import Block

REVERSED = "reversed_attention"


class Dependencies(NamedTuple):
    """What patches take from each other in a model of reversed attention.

    Attributes:
        layers: D of each layer among the patches that it sees, `[b, n, n]`; rows receive.
        patches: which ones these are, `[b, n]`.
        total: D of all layers together, among all patches, `[b, t, t]`.
        parents: of each patch in the tree that `jattn.mechanisms.softmax.layered_tree` reads from
            the total, `[b, t]`; the root is its own.
    """

    layers: list[Float[Array, "b _ _"]]
    patches: list[Int[Array, "b _"]]
    total: Float[Array, "b t t"]
    parents: Int[Array, "b t"]


class Carried(NamedTuple):
    """How a model's layers hand on M.

    Attributes:
        heads: of every layer.
        temperatures: of each layer's head selector.
        counts: how many patches each layer leaves.
    """

    heads: int
    temperatures: tuple[float, ...]
    counts: tuple[int, ...]


def patches_left(
    count: int, layers: int, prune_after: Sequence[int], rate: float
) -> tuple[int, ...]:
    """How many patches each layer leaves, if those of `prune_after` prune.

    Args:
        count: of all patches.
        layers: of the model.
        prune_after: layers, counted from 0.
        rate: share of all patches that each of them drops.

    Raises:
        ValueError: a layer that is not there or comes twice, or a rate that leaves nothing.

    Example:
        >>> patches_left(100, 12, (2, 5, 8, 11), 0.16)
        (100, 100, 84, 84, 84, 68, 68, 68, 52, 52, 52, 36)
    """
    chosen = sorted(set(prune_after))
    if len(chosen) < len(prune_after) or any(layer not in range(layers) for layer in chosen):
        raise ValueError(
            f"prune_after: expected different layers, 0 to {layers - 1}, got {tuple(prune_after)}"
        )
    left = []
    for layer in range(layers):
        if layer in chosen:
            try:
                share = keep_ratio(chosen.index(layer) + 1, rate)
            except ValueError as error:
                raise ValueError(f"prune_{error}") from None
            count = max(round(count * share), 1)
        left.append(count)
    return tuple(left)


def apply_carrying(
    blocks: Sequence[Block], x: Float[Array, "b t m"], carried: Carried
) -> tuple[Float[Array, "b n m"], Float[Array, "b n"]]:
    """Blocks of reversed attention, one after the other.

    Args:
        blocks: whose mixers are reversed attention.
        x: patches.
        carried: how M is handed on.

    Returns:
        The patches that are left, and their M, every layer included.
    """
    x, message, _, _ = _through(blocks, x, carried)
    return x, message


def read_dependencies(
    blocks: Sequence[Block], x: Float[Array, "b t m"], carried: Carried
) -> Dependencies:
    """What patches take from each other on their way through `apply_carrying`."""
    _, _, layers, patches = _through(blocks, x, carried, read=True)
    total = layered_tree.sum_over_layers(layers, patches, x.shape[1])
    return Dependencies(layers, patches, total, layered_tree.tree(total))


def _through(blocks, x, carried, *, read: bool = False):
    index = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    message, layers, patches = jnp.ones(x.shape[:2], jnp.float32), [], []
    for block, temperature, count in zip(blocks, carried.temperatures, carried.counts, strict=True):
        params, seen = block.mixer.arrays(), block.mixer_norm(x)
        options = dict(temperature=temperature)
        before = message
        if read:
            layers.append(layer_dependencies(params, seen, before, heads=carried.heads, **options))
            patches.append(index)
        mixed, message = reversed_layer(params, seen, before, heads=carried.heads, **options)
        x = block._mix_channels(x + mixed)
        if count < x.shape[1]:
            share, _ = senders(params, seen, before, **options)
            x, message, index = prune(speaking(share, message), count, x, message, index)
    return x, message, layers, patches
