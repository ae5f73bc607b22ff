"""What the parts share: decoders as pure functions of a list of arrays, and their training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jattn.nn import Transformer, TransformerConfig
from jattn.training import FitResult, Run, fit


class Decoder(NamedTuple):
    """A transformer.

    Attributes:
        init: `(key) -> params`, a list of arrays.
        model: `(params) -> Transformer`.
    """

    init: Callable[[jax.Array], list[jax.Array]]
    model: Callable[[list[jax.Array]], Transformer]


def decoder(settings: TransformerConfig) -> Decoder:
    """A transformer as pure functions; two that have the same arrays can share their params."""
    abstract = nnx.eval_shape(lambda: Transformer(settings, rngs=nnx.Rngs(0)))
    definition, state = nnx.split(abstract, nnx.Param)
    structure = jax.tree.structure(state)

    def init(key):
        model = Transformer(settings, rngs=nnx.Rngs(params=key))
        return jax.tree.leaves(nnx.split(model, nnx.Param)[1])

    return Decoder(
        init, lambda params: nnx.merge(definition, jax.tree.unflatten(structure, params))
    )


def cross_entropy(logits: jax.Array, targets: jax.Array, counts: jax.Array) -> jax.Array:
    """Mean of -log p(target) over what counts, in nats."""
    found = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (found * counts).sum() / jnp.maximum(counts.sum(), 1)


def train(
    run: Run,
    name: str,
    init: Callable[[jax.Array], Any],
    loss: Callable[[Any, Any], jax.Array],
    sample: Callable[[jax.Array], Any],
    config,
    *,
    seed: int,
    record: Callable[[Any], dict[str, jax.Array]] | None = None,
    log_every: int | None = None,
) -> FitResult:
    """Trains with Adam, warmed up and then constant.

    Args:
        run: the open workdir.
        name: of the fit.
        init, loss, sample, record: as for `fit`.
        config: of the part: seeds, steps, batch_size, learning_rate.
        seed: the base seed.
        log_every: default a twentieth of the steps.
    """
    rate = optax.warmup_constant_schedule(0.0, config.learning_rate, 50)
    return fit(
        init,
        loss,
        sample,
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99)),
        run=run,
        name=name,
        seeds=config.seeds,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=seed,
        log_every=log_every or max(config.steps // 20, 1),
        record=record,
    )
