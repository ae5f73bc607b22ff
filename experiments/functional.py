"""Models for experiments: as pure functions of a list of arrays, and by name on a command line."""

import ast
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from jattn.nn import Transformer, TransformerConfig
from jattn.tasks.associative_recall import Recall


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


def recall_loss(model: Model, params: Any, batch: Recall) -> jax.Array:
    """Mean of -log p(answer) over the queries of associative recall, in nats."""
    logits = _at_queries(model, params, batch)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.answers).mean()


def recall_accuracy(model: Model, params: Any, batch: Recall, *, piece: int = 64) -> jax.Array:
    """Share of right answers, so many sequences at a time to bound memory.

    Sequences that do not fill a piece do not count, unless there are no others.
    """
    pieces = max(1, len(batch.tokens) // piece)
    whole = len(batch.tokens) // pieces * pieces
    split = jax.tree.map(lambda x: x[:whole].reshape(pieces, -1, *x.shape[1:]), batch)

    def right(part):
        return (_at_queries(model, params, part).argmax(-1) == part.answers).mean()

    return lax.map(right, split).mean()


def _at_queries(model: Model, params: Any, batch: Recall) -> jax.Array:
    logits = model.module(params)(batch.tokens)
    return jnp.take_along_axis(logits, batch.queries[..., None], axis=1)


def parse_mechanisms(entry: str) -> list[tuple[str, dict[str, Any]]]:
    """A name, or `name:option=value:...`, or several joined by `+`, as names and options."""
    found = []
    for part in entry.strip().split("+"):
        name, *options = part.split(":")
        chosen = {}
        for option in options:
            key, _, value = option.partition("=")
            try:
                chosen[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                chosen[key] = value  # A bare word is a string.
        found.append((name, chosen))
    return found
