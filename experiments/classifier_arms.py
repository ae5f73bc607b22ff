"""Classifiers that differ in one part, trained side by side on the same examples.

Their parameters are a dictionary by name, and what is minimised is the sum of their losses, so
that no one's gradient knows of the others; optimizers must not mix them either, as clipping by a
norm would.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.functional import Model, parse_mechanisms
from jattn.training import UsageError

Models = Mapping[str, Model]

NOTHING = "none"


def entries_of(text: str) -> list[tuple[str, tuple[str, dict[str, Any]] | None]]:
    """Arms of a config: entries separated by commas outside of brackets, each as name and options.

    Example:
        >>> entries_of("none,fca:frequencies=(1,2)")
        [('none', None), ('fca:frequencies=(1,2)', ('fca', {'frequencies': (1, 2)}))]
    """
    entries = [entry.strip() for entry in re.split(r",(?![^(]*\))", text)]
    return [(e, None if e == NOTHING else parse_mechanisms(e)[0]) for e in entries]


def models_of(field: str, text: str, make: Callable[[Any], Model]) -> Models:
    """A model for each entry of a config's field.

    Raises:
        UsageError: an entry that is unknown, of another kind, or does not fit.
    """
    models = {}
    for entry, chosen in entries_of(text):
        try:
            models[entry] = make(chosen)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{field}: {entry}: {str(error).splitlines()[0]}") from None
    return models


def init_of(models: Models) -> Callable[[jax.Array], dict[str, Any]]:
    """Draws the parameters of all, each from a key of its own."""

    def init(key):
        keys = jax.random.split(key, len(models))
        return {
            name: model.init(own) for (name, model), own in zip(models.items(), keys, strict=True)
        }

    return init


def loss_of(models: Models) -> Callable[[Any, Any], tuple[jax.Array, Any]]:
    """What `fit` minimises: the sum of the cross entropies, in nats, and all averages.

    A batch is inputs and labels first, whatever comes behind. Modules take `training`.
    """

    def loss(params, batch):
        total, statistics = jnp.zeros(()), {}
        for name, model in models.items():
            module = model.module(params[name])
            logits = module(batch[0], training=True)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
            total = total + each.mean()
            statistics[name] = model.statistics(module)
        return total, statistics

    return loss


def accuracies(
    models: Models, params: Any, inputs: jax.Array, labels: jax.Array
) -> dict[str, np.ndarray]:
    """Shares of right answers by name, in the order of the models, `[seeds]`.

    Args:
        models: by name.
        params: as of `fit`, `[seeds, ...]`.
        inputs, labels: of the test.
    """

    @jax.jit
    def right(params, inputs, labels):  # arguments: XLA would fold constants, slowly
        found = {}
        for name, model in models.items():
            module = model.module(params[name])
            guesses = jax.lax.map(lambda x, m=module: m(x[None])[0].argmax(-1), inputs,
                                  batch_size=256)  # fmt: skip
            found[name] = (guesses == labels).mean()
        return found

    found = each_seed(lambda own: right(own, inputs, labels), params)
    return {name: found[name] for name in models}  # in their order, not the alphabet's


def each_seed(measure: Callable[[Any], Any], params: Any) -> Any:
    """What a measure says of the parameters of each seed, stacked.

    Args:
        measure: `(params of one seed) -> a tree`.
        params: `[seeds, ...]`.
    """
    host = jax.tree.map(np.asarray, params)
    count = len(jax.tree.leaves(host)[0])
    found = [measure(jax.tree.map(lambda leaf, i=i: leaf[i], host)) for i in range(count)]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *found)
