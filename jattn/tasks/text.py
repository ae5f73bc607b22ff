"""English text as tokens: the standard library's own documentation, or a file of the user's."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

WORD = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
UNKNOWN = "<unk>"


class WordTokens(NamedTuple):
    """A text as word ids; ids are ranks by frequency, 0 the most frequent.

    Attributes:
        ids: `[n]`.
        words: the vocabulary; its last entry stands for all rarer words.
        counts: how often each occurs, `[vocabulary]`.
    """

    ids: Int[np.ndarray, " n"]
    words: tuple[str, ...]
    counts: Int[np.ndarray, " vocabulary"]


def english_text(path: str | Path | None = None) -> str:
    """A text file, or the language reference that comes with Python (about 460 kB of English).

    Raises:
        ValueError: the file cannot be read as text.

    Example:
        >>> "assignment statement" in english_text()
        True
    """
    if path is None or not str(path):
        from pydoc_data import topics

        return "\n".join(topics.topics[name] for name in sorted(topics.topics))
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"text: {path} cannot be read as UTF-8 text: {error}") from None


def word_tokens(text: str, vocabulary: int) -> WordTokens:
    """Splits a text into lower-case words, numbers and signs, and keeps the most frequent.

    Args:
        text: any text.
        vocabulary: number of ids, the one for unknown words included; fewer if the text has fewer.

    Raises:
        ValueError: a vocabulary below two, or an empty text.

    Example:
        >>> word_tokens("the cat, the dog", 3).words
        ('the', 'cat', '<unk>')
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary: expected at least 2, got {vocabulary}")
    words = WORD.findall(text.lower())
    if not words:
        raise ValueError("text: expected some words, got none")
    kept = [word for word, _ in Counter(words).most_common(vocabulary - 1)]
    index = {word: rank for rank, word in enumerate(kept)}
    ids = np.array([index.get(word, len(kept)) for word in words], np.int32)
    return WordTokens(ids, (*kept, UNKNOWN), np.bincount(ids, minlength=len(kept) + 1))


def windows(
    tokens: Int[np.ndarray, " n"], length: int
) -> Callable[[jax.Array], Int[Array, " length"]]:
    """Makes the sampler of a random stretch of `length` tokens.

    Returns:
        `sample(key) -> [length]`, to be vmapped over keys.

    Raises:
        ValueError: the text is shorter than that.

    Example:
        >>> windows(np.arange(100), 5)(jax.random.key(0)).shape
        (5,)
    """
    if not 1 <= length <= len(tokens):
        raise ValueError(f"length: expected 1 to {len(tokens)} tokens of text, got {length}")

    def sample(key: jax.Array) -> Int[Array, " length"]:
        start = jax.random.randint(key, (), 0, len(tokens) - length + 1)
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(tokens), start, length)

    return sample


def byte_tokens(text: str) -> tuple[Int[np.ndarray, " n"], int]:
    """A text as UTF-8 bytes, numbered by those that occur in it.

    Returns:
        The ids `[n]`, and the number of different bytes.

    Raises:
        ValueError: an empty text.

    Example:
        >>> ids, vocabulary = byte_tokens("abba")
        >>> ids.tolist(), vocabulary
        ([0, 1, 1, 0], 2)
    """
    if not text:
        raise ValueError("text: expected some text, got none")
    found, ids = np.unique(np.frombuffer(text.encode(), np.uint8), return_inverse=True)
    return ids.astype(np.int32), len(found)
