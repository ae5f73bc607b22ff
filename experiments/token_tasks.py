"""What decoders are compared on, all in one form: predict the next token where it counts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.functional import Model, cross_entropy, training_loss
from jattn.tasks.associative_recall import associative_recall
from jattn.tasks.backcopy import backcopy, bigrams
from jattn.tasks.copying import copying, induction
from jattn.tasks.text import byte_tokens, english_text, windows

HELD_OUT = 0.1  # of the text, its end


class Example(NamedTuple):
    """One sequence `[t]`, or a batch of them.

    Attributes:
        tokens: what the model sees.
        targets: what comes next.
        counts: whether that is asked.
    """

    tokens: jax.Array
    targets: jax.Array
    counts: jax.Array


class Task(NamedTuple):
    """A task.

    Attributes:
        name: for tables.
        vocabulary: number of tokens.
        length: of its sequences.
        sample: `(key) -> Example`, to train on.
        test: `(length) -> sampler`, to test on.
        measure: "bits" a token (less is better), or "accuracy".
    """

    name: str
    vocabulary: int
    length: int
    sample: Callable[[jax.Array], Example]
    test: Callable[[int], Callable[[jax.Array], Example]]
    measure: str


def make_task(name: str, config) -> Task:
    """The task of that name, with the sizes of the config."""
    return {"text": _text, "recall": _recall, "copy": _copy, "induction": _induction}[name](config)


def _text(config) -> Task:
    tokens, vocabulary = byte_tokens(english_text(config.text))
    split = int(len(tokens) * (1 - HELD_OUT))

    def sampler(part: np.ndarray, length: int):
        window = windows(part, length + 1)

        def sample(key):
            stretch = window(key)
            return Example(stretch[:-1], stretch[1:], jnp.ones(length, bool))

        return sample

    return Task(
        "text",
        vocabulary,
        config.text_length,
        sampler(tokens[:split], config.text_length),
        lambda length: sampler(tokens[split:], length),
        "bits",
    )


def _recall(config) -> Task:
    draw = associative_recall(config.vocabulary, config.length, config.pairs)

    def sample(key):
        tokens, queries, answers = draw(key)
        targets = jnp.zeros_like(tokens).at[queries].set(answers)
        counts = jnp.zeros(tokens.shape, bool).at[queries].set(True)
        return Example(tokens, targets, counts)

    return Task("recall", config.vocabulary, config.length, sample, lambda _: sample, "accuracy")


def _copied(name: str, config, make) -> Task:
    draw = make(config.vocabulary, config.length + 1)

    def sample(key):
        tokens, copied = draw(key)
        return Example(tokens[:-1], tokens[1:], copied[1:])

    return Task(name, config.vocabulary, config.length, sample, lambda _: sample, "accuracy")


def _copy(config) -> Task:
    return _copied("copy", config, copying)


def _induction(config) -> Task:
    return _copied("induction", config, induction)


def backcopies(config, length: int) -> Callable[[jax.Array], Example]:
    """Draws sequences of so many tokens of the one language of bigrams that the config describes.

    Args:
        config: seed, vocabulary, triggers; see `jattn.tasks.backcopy`.
        length: of the sequences.
    """
    table = bigrams(jax.random.key(config.seed), config.vocabulary, config.triggers)
    draw = backcopy(table, config.triggers, length + 1)

    def sample(key):
        tokens = draw(key).tokens
        return Example(tokens[:-1], tokens[1:], jnp.ones(length, bool))

    return sample


def loss_in_training(model: Model, params: Any, batch: Example) -> tuple[jax.Array, list]:
    """`training_loss` of -log p(target), the mean over what counts, in nats."""
    of_logits = lambda logits: cross_entropy(logits, batch.targets, batch.counts)
    return training_loss(model, params, batch.tokens, of_logits)


def mean_loss(model: Model, params: Any, batch: Example) -> jax.Array:
    """Mean of -log p(target) over what counts, in nats."""
    return cross_entropy(model.module(params)(batch.tokens), batch.targets, batch.counts)


def quality(model: Model, measure: str, params: Any, batch: Example) -> jax.Array:
    """Bits a token, or the share of right answers."""
    if measure == "bits":
        return mean_loss(model, params, batch) / jnp.log(2.0)
    right = model.module(params)(batch.tokens).argmax(-1) == batch.targets
    return (right & batch.counts).sum() / batch.counts.sum()
