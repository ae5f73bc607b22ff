"""BM25 inside jit: documents of token numbers, scored by one matrix product.

    score = sum_{w in query} idf_w f / (f + K),    K = k1 (1 - b + b |d| / average)

with f how often w is in the document; a word that is twice in the query counts twice. For text
there is the package bm25s, with which the scores agree.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_choice, check_count, check_number, check_shape

Variant = Literal["lucene", "robertson", "atire", "okapi"]
VARIANTS = ("lucene", "robertson", "atire", "okapi")


class Index(NamedTuple):
    """An index of n documents over v words.

    Attributes:
        weights: what each word adds to each document's score, `[v, n]`.
        idf: of each word, `[v]`.
        document_length: in words, `[n]`.
        document_frequency: in how many documents each word is, `[v]`.
    """

    weights: Float[Array, "v n"]
    idf: Float[Array, " v"]
    document_length: Int[Array, " n"]
    document_frequency: Int[Array, " v"]


def counts(tokens: Int[Array, "*n t"], vocabulary: int) -> Int[Array, "*n v"]:
    """How often each word is there; numbers below 0 (padding) and unknown ones do not count.

    Example:
        >>> counts(jnp.array([[0, 2, 2, -1, 9]]), 3).tolist()
        [[1, 0, 2]]
    """
    return (tokens[..., None] == jnp.arange(vocabulary)).sum(-2)


def build_index(
    documents: Int[Array, "n t"],
    vocabulary: int,
    *,
    variant: Variant = "lucene",
    k1: float = 1.5,
    b: float = 0.75,
    epsilon: float = 0.25,
) -> Index:
    """Makes the index of documents.

    Args:
        documents: tokens, padded with -1.
        vocabulary: v.
        variant: with N documents, of which n have the word: `"lucene"`, idf
            `ln(1 + (N - n + .5) / (n + .5))`; `"robertson"`, `ln max((N - n + .5) / (n + .5), 1)`;
            `"atire"`, `ln(N / n)` and a factor k1 + 1; `"okapi"`, `ln((N - n + .5) / (n + .5))` and
            that factor, where negative ones become `epsilon` of the mean over words that occur.
        k1: how soon more of the same word stops to count.
        b: how much long documents are held back.
        epsilon: see above.

    Raises:
        ValueError: no documents, or options out of range.

    Example:
        >>> index = build_index(jnp.array([[0, 1], [1, 2]]), 3)
        >>> [round(float(x), 3) for x in score(index, jnp.array([[0]]))[0]]
        [0.277, 0.0]
    """
    check_shape("documents", documents, "n t", {})
    check_count("vocabulary", vocabulary)
    check_choice("variant", variant, VARIANTS)
    check_number("k1", k1, least=0)
    check_number("b", b, least=0)
    number = documents.shape[0]
    if not number:
        raise ValueError("documents: expected at least one, got none")
    frequency = counts(documents, vocabulary)
    length = (documents >= 0).sum(1)
    having = (frequency > 0).sum(0)
    odds = (number - having + 0.5) / (having + 0.5)
    factor = 1.0
    if variant == "lucene":
        idf = jnp.log1p(odds)
    elif variant == "robertson":
        idf = jnp.log(jnp.maximum(odds, 1.0))
    else:
        factor = k1 + 1
        occurs = having > 0
        idf = jnp.log(number / jnp.maximum(having, 1)) if variant == "atire" else jnp.log(odds)
        if variant == "okapi":
            mean = jnp.where(occurs, idf, 0.0).sum() / jnp.maximum(occurs.sum(), 1)
            idf = jnp.where(idf < 0, epsilon * mean, idf)
        idf = jnp.where(occurs, idf, 0.0)
    held_back = k1 * (1 - b + b * length / jnp.maximum(length.mean(), 1e-9))
    share = jnp.where(frequency > 0, frequency / (frequency + held_back[:, None]), 0.0)
    return Index(factor * idf[:, None] * share.T, idf, length, having)


def score(index: Index, queries: Int[Array, "q t"]) -> Float[Array, "q n"]:
    """Scores of all documents for each query; see `build_index`.

    Args:
        index: of the documents.
        queries: tokens, padded with -1; unknown words add nothing.
    """
    check_shape("queries", queries, "q t", {})
    asked = counts(queries, index.weights.shape[0])
    return asked.astype(index.weights.dtype) @ index.weights


def retrieve(index: Index, queries: Int[Array, "q t"], top: int) -> Int[Array, "q top"]:
    """The documents with the highest scores, ties to the lower index.

    Example:
        >>> index = build_index(jnp.array([[0, 1], [1, 2]]), 3)
        >>> retrieve(index, jnp.array([[2], [5]]), 1).tolist()
        [[1], [0]]
    """
    check_count("top", top)
    return jax.lax.top_k(score(index, queries), min(top, index.weights.shape[1]))[1]
