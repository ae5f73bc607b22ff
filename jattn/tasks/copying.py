"""Copying: what stood in a random sequence comes again, and only attention can know it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class Copying(NamedTuple):
    """One sequence, or a batch of them with leading axes.

    Attributes:
        tokens: `[..., t]`.
        copied: whether the token can be told from those before it, `[..., t]`.
    """

    tokens: Int[Array, "*batch t"]
    copied: Bool[Array, "*batch t"]


def copying(vocabulary: int, length: int) -> Callable[[jax.Array], Copying]:
    """Makes the sampler of `x_1 ... x_n 0 x_1 ... x_n`, with n = (length - 1) // 2.

    Args:
        vocabulary: number of tokens; 0 separates the two halves (and fills up an even length).
        length: tokens a sequence, at least 3.

    Returns:
        `sample(key) -> Copying`, to be vmapped over keys.

    Raises:
        ValueError: sizes that are too small.

    Example:
        >>> tokens, copied = copying(10, 7)(jax.random.key(0))
        >>> bool((tokens[:3] == tokens[4:]).all()), copied.astype(int).tolist()
        (True, [0, 0, 0, 0, 1, 1, 1])
    """
    _check(vocabulary, length, 3)
    half = (length - 1) // 2
    copied = jnp.arange(length)
    copied = (copied > half) & (copied <= 2 * half)

    def sample(key: jax.Array) -> Copying:
        word = jax.random.randint(key, (half,), 1, vocabulary)
        tokens = jnp.zeros(length, word.dtype).at[:half].set(word)
        return Copying(tokens.at[half + 1 : 2 * half + 1].set(word), copied)

    return sample


def induction(vocabulary: int, length: int) -> Callable[[jax.Array], Copying]:
    """Makes the sampler of random tokens in which a stretch of length // 4 comes a second time.

    The first copy begins in the first quarter, the second anywhere in the third: a model has to
    find where the last token stood before, and what followed it (an induction head).

    Args:
        vocabulary: number of tokens.
        length: tokens a sequence, at least 8.

    Returns:
        `sample(key) -> Copying`; the first token of the second copy does not count as copied.

    Raises:
        ValueError: sizes that are too small.

    Reference:
        arXiv 2209.11895 (induction heads).

    Example:
        >>> tokens, copied = induction(10, 16)(jax.random.key(0))
        >>> tokens.shape, int(copied.sum())
        ((16,), 3)
    """
    _check(vocabulary, length, 8)
    quarter = length // 4

    def sample(key: jax.Array) -> Copying:
        of_tokens, of_first, of_second = jax.random.split(key, 3)
        tokens = jax.random.randint(of_tokens, (length,), 0, vocabulary)
        first = jax.random.randint(of_first, (), 0, quarter)
        second = jax.random.randint(of_second, (), 2 * quarter, 3 * quarter)
        stretch = jax.lax.dynamic_slice_in_dim(tokens, first, quarter)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, stretch, second, 0)
        place = jnp.arange(length)
        return Copying(tokens, (place > second) & (place < second + quarter))

    return sample


def _check(vocabulary: int, length: int, least: int) -> None:
    if vocabulary < 2:
        raise ValueError(f"vocabulary: expected at least 2, got {vocabulary}")
    if length < least:
        raise ValueError(f"length: expected at least {least} tokens, got {length}")
