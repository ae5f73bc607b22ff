"""Models for experiments: as pure functions of a list of arrays, trained, and named in flags."""

import ast
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from jattn.nn import AUXILIARY_WEIGHT, Transformer, TransformerConfig, statistics
from jattn.tasks.associative_recall import Recall


class Model(NamedTuple):
    """A model.

    Attributes:
        init: `(key) -> params`, a list of arrays.
        module: `(params) -> ` the Flax module.
        statistics: `(module) -> ` a list like params for `fit`: those that are averages over
            training, as they are after a call with `training=True`, and None for the others.
        parameters: how many numbers the parameters are.
    """

    init: Callable[[jax.Array], list[jax.Array]]
    module: Callable[[list[jax.Array]], Any]
    statistics: Callable[[Any], list[jax.Array | None]]
    parameters: int


def as_functions(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """A Flax module as pure functions; two that have the same arrays can share their params."""
    definition, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    shapes, structure = jax.tree.flatten(state)

    def init(key):
        return jax.tree.leaves(nnx.state(make(nnx.Rngs(params=key))))

    def module(params):
        return nnx.merge(definition, jax.tree.unflatten(structure, params))

    def statistics_of(module):
        return jax.tree.leaves(statistics(module), is_leaf=lambda node: node is None)

    return Model(init, module, statistics_of, sum(leaf.size for leaf in shapes))


class _Sized(Protocol):
    """What has a number of parameters."""

    @property
    def parameters(self) -> int: ...


Sized = TypeVar("Sized", bound=_Sized)


def as_large(make: Callable[[int], Sized], wanted: int) -> Sized:
    """The model with about so many parameters, which are affine in its width.

    Args:
        make: a model by its width, 1 or more.
        wanted: number of parameters.

    Raises:
        ValueError: the narrowest one has more, by more than half a unit of width.
    """
    first, second = (make(width).parameters for width in (1, 2))
    width = round(1 + (wanted - first) / (second - first))
    if width < 1:
        raise ValueError(f"expected at most {wanted:,} parameters, has {first:,} at least")
    return make(width)


def decoder(settings: TransformerConfig) -> Model:
    """A transformer as pure functions."""
    return as_functions(lambda rngs: Transformer(settings, rngs=rngs))


def training_loss(
    model: Model, params: Any, tokens: jax.Array, of_logits: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, list[jax.Array | None]]:
    """What `fit` minimises: the task's loss and 0.01 of the mixers' own; and their statistics."""
    module = model.module(params)
    logits, losses = module(tokens, training=True)
    value = of_logits(logits) + AUXILIARY_WEIGHT * sum(losses.values())
    return value, model.statistics(module)


def optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam, warmed up over a tenth of the steps and then falling along a cosine."""
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(steps // 10, 1), steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))


def cross_entropy(logits: jax.Array, targets: jax.Array, counts: jax.Array) -> jax.Array:
    """Mean of -log p(target) over what counts, in nats."""
    found = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (found * counts).sum() / jnp.maximum(counts.sum(), 1)


def recall_loss(
    model: Model, params: Any, batch: Recall
) -> tuple[jax.Array, list[jax.Array | None]]:
    """`training_loss` of associative recall: mean of -log p(answer) over its queries, in nats."""

    def of_logits(logits):
        asked = _at_queries(logits, batch)
        return optax.softmax_cross_entropy_with_integer_labels(asked, batch.answers).mean()

    return training_loss(model, params, batch.tokens, of_logits)


def recall_accuracy(model: Model, params: Any, batch: Recall, *, piece: int = 64) -> jax.Array:
    """Share of right answers, so many sequences at a time to bound memory.

    Sequences that do not fill a piece do not count, unless there are no others.
    """
    pieces = max(1, len(batch.tokens) // piece)
    whole = len(batch.tokens) // pieces * pieces
    split = jax.tree.map(lambda x: x[:whole].reshape(pieces, -1, *x.shape[1:]), batch)

    def right(part):
        logits = model.module(params)(part.tokens)
        return (_at_queries(logits, part).argmax(-1) == part.answers).mean()

    return lax.map(right, split).mean()


def _at_queries(logits: jax.Array, batch: Recall) -> jax.Array:
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
