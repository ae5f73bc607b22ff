"""One decoder for all mechanisms, with the same number of parameters, as pure functions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import jattn
from experiments.compare.tasks import Example
from jattn.nn import Transformer, TransformerConfig

REFERENCE = "softmax_attention"


class Model(NamedTuple):
    """A decoder.

    Attributes:
        init: `(key) -> params`, a list of arrays.
        logits: `(params, tokens [b, t]) -> [b, t, vocabulary]`.
        parameters: how many numbers the parameters are.
    """

    init: Callable[[jax.Array], list[jax.Array]]
    logits: Callable[[list[jax.Array], jax.Array], jax.Array]
    parameters: int


def matched_model(mechanism: tuple[str, dict], vocabulary: int, length: int, config) -> Model:
    """A decoder with that mechanism and as many parameters as one with softmax attention.

    What a mechanism has more or less of is made up for in the hidden units of the MLPs.

    Raises:
        ValueError: the mechanism cannot be made with these sizes, or has too many parameters.
    """
    make = functools.partial(_model, vocabulary=vocabulary, length=length, config=config)
    wanted = make((REFERENCE, {}), mlp_ratio=config.mlp_ratio).parameters
    own = make(mechanism, mlp_ratio=config.mlp_ratio).parameters
    per_unit = config.layers * (2 * config.dim + 1)
    hidden = round(config.mlp_ratio * config.dim + (wanted - own) / per_unit)
    if hidden < 1:
        raise ValueError(
            f"{mechanism[0]}: has {own - wanted:+,d} parameters, more than the MLPs could give up"
        )
    return make(mechanism, mlp_ratio=hidden / config.dim)


def _model(
    mechanism: tuple[str, dict], *, vocabulary: int, length: int, config, mlp_ratio: float
) -> Model:
    rotates = config.positions == "rotary" and "rotary" in jattn.zoo.options(mechanism[0])
    settings = TransformerConfig(
        vocab_size=vocabulary,
        dim=config.dim,
        heads=config.heads,
        layers=config.layers,
        mechanisms=mechanism,
        mlp_ratio=mlp_ratio,
        positions="rotary" if rotates else "none",
        max_length=length,
    )
    abstract = nnx.eval_shape(lambda: Transformer(settings, rngs=nnx.Rngs(0)))
    definition, state = nnx.split(abstract, nnx.Param)
    shapes, structure = jax.tree.flatten(state)

    def init(key):
        model = Transformer(settings, rngs=nnx.Rngs(params=key))
        return jax.tree.leaves(nnx.split(model, nnx.Param)[1])

    def logits(params, tokens):
        return nnx.merge(definition, jax.tree.unflatten(structure, params))(tokens)

    return Model(init, logits, sum(leaf.size for leaf in shapes))


def cross_entropy(model: Model, params: Any, batch: Example) -> jax.Array:
    """Mean of -log p(target) over what counts, in nats."""
    log_p = jax.nn.log_softmax(model.logits(params, batch.tokens))
    found = jnp.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0]
    return -(found * batch.counts).sum() / jnp.maximum(batch.counts.sum(), 1)


def quality(model: Model, measure: str, params: Any, batch: Example) -> jax.Array:
    """Bits a token, or the share of right answers."""
    if measure == "bits":
        return cross_entropy(model, params, batch) / jnp.log(2.0)
    right = model.logits(params, batch.tokens).argmax(-1) == batch.targets
    return (right & batch.counts).sum() / batch.counts.sum()
