"""Questions whose answer stands in front of them, all equally long; and how well they are answered.

The horse is called Alice. The mouse is called Mary. The pig is called Anna.
Question: What is the name of the mouse?
Answer: The name of the mouse is
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from experiments.language_model import LanguageModel, Texts, first_tokens, next_logits, whole
from experiments.language_model import texts_of as encoded
from jattn import lens

KINDS = (
    "dog", "cat", "horse", "bird", "fish", "rabbit", "snake", "mouse", "duck", "goat", "pig",
    "sheep",
)  # fmt: skip
NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Alice", "Jack", "Kate",
    "Leo", "Mary", "Nick", "Oscar", "Paul", "Rose", "Sam", "Tom", "Laura", "Peter", "Robert",
    "Sarah", "Adam",
)  # fmt: skip
FACTS = 3
FACT, VALUE = 6, 4  # tokens of a fact, and where in it the name is
QUESTION = "\nQuestion: What is the name of the {0}?\nAnswer:"
ANSWER = " The name of the {0} is"
STORY = (
    "The old lighthouse keeper climbed the stairs every evening to light the lamp. One night the "
    "wind was so strong that the windows rattled, and he heard a voice calling from the rocks "
    "below. He took his lantern and went down to the shore."
)


class Questions(NamedTuple):
    """Questions, and what they are about; keys are counted in tokens.

    Attributes:
        texts: `[n, t]`.
        asked: the fact that is asked for, `[n]`.
        names: first tokens of the names of all facts, `[n, facts]`.
    """

    texts: Texts
    asked: Int[Array, " n"]
    names: Int[Array, "n facts"]

    @property
    def length(self) -> int:
        """t."""
        return self.texts.tokens.shape[1]

    @property
    def answers(self) -> Int[Array, " n"]:
        """First tokens of the right names."""
        return self.names[jnp.arange(len(self.asked)), self.asked]

    def context(self) -> Bool[Array, " t"]:
        """The facts, without the first token of all, on which attention rests."""
        place = jnp.arange(self.length)
        return (place > 0) & (place < FACTS * FACT)

    def fact(self, number: Any) -> Bool[Array, "n t"]:
        """The tokens of one fact of each question, without the first of all."""
        place = jnp.arange(self.length)
        return (place > 0) & (place // FACT == jnp.asarray(number)[..., None])


def questions(language: LanguageModel, count: int, rng: np.random.Generator) -> Questions:
    """Draws questions; the fact that is asked for goes around."""
    tokenizer = language.tokenizer
    kinds, names = whole(tokenizer, KINDS), whole(tokenizer, NAMES)
    texts, told = [], []
    for number in range(count):
        some, called = rng.permutation(kinds)[:FACTS], rng.permutation(names)[:FACTS]
        facts = [f"The {a} is called {b}." for a, b in zip(some, called, strict=True)]
        asked = some[number % FACTS]
        texts.append(" ".join(facts) + QUESTION.format(asked) + ANSWER.format(asked))
        told.append(first_tokens(tokenizer, list(called)))
    asked = jnp.arange(count) % FACTS
    return Questions(encoded(tokenizer, texts), asked, jnp.stack(told))


def log_probs(
    language: LanguageModel, some: Questions, edits: Sequence[lens.Edit] = ()
) -> np.ndarray:
    """log p of the names of all facts, `[n, facts]`."""
    logits = next_logits(language.model, some.texts, tuple(edits))
    logs = jax.nn.log_softmax(logits)
    return np.asarray(jnp.take_along_axis(logs, some.names, axis=1))


def of_answers(some: Questions, logs: np.ndarray) -> np.ndarray:
    """log p of the right names, `[n]`."""
    return logs[np.arange(len(logs)), np.asarray(some.asked)]
