"""Multi-query associative recall: pairs of a key and a value, then the keys again as queries.

    k_1 v_1 k_2 v_2 ... k_D v_D  0 k_3 0 0 0 0 0 k_1 ...

The answer at a query is the value that followed the key in the context.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class Recall(NamedTuple):
    """One sequence, or a batch of them with leading axes.

    Attributes:
        tokens: `[..., t]`, 0 where nothing is.
        queries: places of the D queries `[..., n]`, in the order of the pairs.
        answers: the values that belong to them `[..., n]`.
    """

    tokens: Int[Array, "*batch t"]
    queries: Int[Array, "*batch n"]
    answers: Int[Array, "*batch n"]


def associative_recall(
    vocabulary: int, length: int, pairs: int, *, power: float = 0.01
) -> Callable[[jax.Array], Recall]:
    """Makes the sampler of one sequence.

    Keys are drawn from 1 ... V/2 - 1 and values from V/2 ... V - 1, both without replacement. The
    query of a pair stands at `2 D + 2 gap`; gaps are drawn without replacement with probability
    proportional to `(gap + 1)^(power - 1)`.

    Args:
        vocabulary: number of tokens V.
        length: tokens a sequence, even, at least 4 times the pairs.
        pairs: number of pairs D, at most V/2 - 1.
        power: exponent of the gaps; 1 spreads queries evenly, 0.01 puts most of them early.

    Returns:
        `sample(key) -> Recall`, to be vmapped over keys.

    Raises:
        ValueError: sizes that do not fit together.

    Reference:
        arXiv 2312.04927 (Zoology).

    Example:
        >>> sample = associative_recall(64, 32, 4)
        >>> tokens, queries, answers = sample(jax.random.key(0))
        >>> tokens.shape, bool((tokens[1:8:2] == answers).all())
        ((32,), True)
        >>> bool((tokens[queries] == tokens[0:8:2]).all())
        True
    """
    if pairs < 1 or length < 4 * pairs or length % 2:
        raise ValueError(
            f"length: expected an even number of at least 4 x {pairs} pairs, got {length}"
        )
    half = vocabulary // 2
    if half - 1 < pairs:
        raise ValueError(f"vocabulary: expected at least {2 * pairs + 2}, got {vocabulary}")
    gaps = (length - 2 * pairs) // 2
    weights = jnp.arange(1, gaps + 1) ** (power - 1.0)

    def sample(key: jax.Array) -> Recall:
        of_keys, of_values, of_gaps = jax.random.split(key, 3)
        keys = 1 + jax.random.permutation(of_keys, half - 1)[:pairs]
        answers = half + jax.random.permutation(of_values, vocabulary - half)[:pairs]
        # The first D of a weighted draw without replacement are the D largest of these.
        noise = jax.random.gumbel(of_gaps, (gaps,))
        _, places = jax.lax.top_k(jnp.log(weights) + noise, pairs)
        queries = 2 * pairs + 2 * places
        context = jnp.stack([keys, answers], axis=-1).reshape(-1)
        tokens = jnp.zeros(length, context.dtype).at[: 2 * pairs].set(context)
        return Recall(tokens.at[queries].set(keys), queries, answers)

    return sample
