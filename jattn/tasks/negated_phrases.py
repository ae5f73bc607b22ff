"""Documents of phrases, in each of which one word has a polarity that "not" turns round.

    good film not the | the bad a plot | ...        4 words a phrase, in any order

Most phrases decide. Words of other phrases do not matter to a phrase, so the documents' structure
is a tree of two levels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

WORDS_A_PHRASE = 4
NOT = 0  # the token; then come negative words, positive ones, and those that say nothing


class Document(NamedTuple):
    """One document.

    Attributes:
        tokens: `[t]`, phrase after phrase.
        positive: 1 if most phrases are positive, else 0.
    """

    tokens: Int[Array, " t"]
    positive: Int[Array, ""]


def vocabulary_of(words: int) -> int:
    """Number of tokens, with so many words of each kind.

    Example:
        >>> vocabulary_of(8)
        25
    """
    return 1 + 3 * words


def negated_phrases(phrases: int, words: int) -> Callable[[jax.Array], Document]:
    """Makes the sampler of one document.

    Each phrase has one negative or positive word, each as often, and "not" in every other phrase.

    Args:
        phrases: phrases a document, an odd number, so that there is a majority.
        words: words of each kind, at least 1.

    Returns:
        `sample(key) -> Document`, to be vmapped over keys.

    Raises:
        ValueError: an even number of phrases, or no words.

    Example:
        >>> tokens, positive = negated_phrases(3, 8)(jax.random.key(0))
        >>> tokens.shape, positive.shape
        ((12,), ())
    """
    if phrases < 1 or phrases % 2 == 0:
        raise ValueError(f"phrases: expected an odd number, got {phrases}")
    if words < 1:
        raise ValueError(f"words: expected at least 1, got {words}")

    def phrase(key):
        of_sign, of_not, of_words, of_order = jax.random.split(key, 4)
        positive = jax.random.bernoulli(of_sign)
        negated = jax.random.bernoulli(of_not)
        word = 1 + jax.random.randint(of_words, (WORDS_A_PHRASE,), 0, words)
        kind = jnp.array([0, 2, 2, 2]).at[0].set(positive)
        tokens = word + kind * words
        tokens = tokens.at[1].set(jnp.where(negated, NOT, tokens[1]))
        return jax.random.permutation(of_order, tokens), positive ^ negated

    def sample(key: jax.Array) -> Document:
        tokens, positive = jax.vmap(phrase)(jax.random.split(key, phrases))
        return Document(tokens.reshape(-1), (2 * positive.sum() > phrases).astype(jnp.int32))

    return sample
