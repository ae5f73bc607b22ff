"""Flax modules as pure functions of a list of arrays, as `jattn.training.fit` takes them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jattn.nn import Transformer, TransformerConfig


class Model(NamedTuple):
    """A model.

    Attributes:
        init: `(key) -> params`, a list of arrays.
        module: `(params) -> ` the Flax module.
        parameters: how many numbers the parameters are.
    """

    init: Callable[[jax.Array], list[jax.Array]]
    module: Callable[[list[jax.Array]], Any]
    parameters: int


def as_functions(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """A Flax module as pure functions; two that have the same arrays can share their params."""
    definition, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)
    shapes, structure = jax.tree.flatten(state)

    def init(key):
        return jax.tree.leaves(nnx.split(make(nnx.Rngs(params=key)), nnx.Param)[1])

    def module(params):
        return nnx.merge(definition, jax.tree.unflatten(structure, params))

    return Model(init, module, sum(leaf.size for leaf in shapes))


def decoder(settings: TransformerConfig) -> Model:
    """A transformer as pure functions."""
    return as_functions(lambda rngs: Transformer(settings, rngs=rngs))


def cross_entropy(logits: jax.Array, targets: jax.Array, counts: jax.Array) -> jax.Array:
    """Mean of -log p(target) over what counts, in nats."""
    found = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (found * counts).sum() / jnp.maximum(counts.sum(), 1)
