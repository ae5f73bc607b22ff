"""One decoder for all mechanisms, with the same number of parameters, as pure functions."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import jattn
from experiments.compare.tasks import Example
from jattn.nn import Transformer, TransformerConfig

REFERENCE = "softmax_attention"


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
    """A Flax module as pure functions of its parameters."""
    definition, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)
    shapes, structure = jax.tree.flatten(state)

    def init(key):
        return jax.tree.leaves(nnx.split(make(nnx.Rngs(params=key)), nnx.Param)[1])

    def module(params):
        return nnx.merge(definition, jax.tree.unflatten(structure, params))

    return Model(init, module, sum(leaf.size for leaf in shapes))


def matched_model(
    mechanisms: Sequence[tuple[str, dict]], vocabulary: int, length: int, config
) -> Model:
    """A decoder with these mechanisms and as many parameters as one with softmax attention.

    Layers take the mechanisms in turn. What they have more or less of is made up for in the hidden
    units of the MLPs.

    Raises:
        ValueError: a mechanism cannot be made with these sizes, or has too many parameters.
    """
    make = functools.partial(_model, vocabulary=vocabulary, length=length, config=config)
    wanted = make([(REFERENCE, {})], mlp_ratio=config.mlp_ratio).parameters
    own = make(mechanisms, mlp_ratio=config.mlp_ratio).parameters
    per_unit = config.layers * (2 * config.dim + 1)
    hidden = round(config.mlp_ratio * config.dim + (wanted - own) / per_unit)
    if hidden < 1:
        names = " + ".join(name for name, _ in mechanisms)
        raise ValueError(
            f"{names}: has {own - wanted:+,d} parameters, more than the MLPs could give up"
        )
    return make(mechanisms, mlp_ratio=hidden / config.dim)


def _model(
    mechanisms: Sequence[tuple[str, dict]],
    *,
    vocabulary: int,
    length: int,
    config,
    mlp_ratio: float,
) -> Model:
    can_rotate = any("rotary" in jattn.zoo.options(name) for name, _ in mechanisms)
    settings = TransformerConfig(
        vocab_size=vocabulary,
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=[mechanisms[i % len(mechanisms)] for i in range(config.layers)],
        mlp_ratio=mlp_ratio,
        positions="rotary" if can_rotate and config.positions == "rotary" else "none",
        max_length=length,
    )
    return as_functions(lambda rngs: Transformer(settings, rngs=rngs))


def cross_entropy(model: Model, params: Any, batch: Example) -> jax.Array:
    """Mean of -log p(target) over what counts, in nats."""
    log_p = jax.nn.log_softmax(model.module(params)(batch.tokens))
    found = jnp.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0]
    return -(found * batch.counts).sum() / jnp.maximum(batch.counts.sum(), 1)


def quality(model: Model, measure: str, params: Any, batch: Example) -> jax.Array:
    """Bits a token, or the share of right answers."""
    if measure == "bits":
        return cross_entropy(model, params, batch) / jnp.log(2.0)
    right = model.module(params)(batch.tokens).argmax(-1) == batch.targets
    return (right & batch.counts).sum() / batch.counts.sum()
