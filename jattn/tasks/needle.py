"""A needle in a haystack: pairs of a key and a value among noise, one of which is asked for.

    n n k_2 v_2 n n n n k_1 v_1 n ... n k_2

The answer at the last token is the value that followed its key.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jattn.tasks.associative_recall import Recall


def needle(vocabulary: int, length: int, pairs: int = 1) -> Callable[[jax.Array], Recall]:
    """Makes the sampler of one sequence.

    Keys are drawn from 1 ... V/4 - 1, values from V/4 ... V/2 - 1, both without replacement, and
    the noise from V/2 ... V - 1. Pairs stand at even places drawn without replacement from all
    before the last token; one of them is asked for.

    Args:
        vocabulary: number of tokens V.
        length: tokens a sequence, the question among them.
        pairs: number of pairs, at most V/4 - 1.

    Returns:
        `sample(key) -> Recall` with one query, to be vmapped over keys.

    Raises:
        ValueError: sizes that do not fit together.

    Reference:
        arXiv 2404.06654 (RULER).

    Example:
        >>> tokens, queries, answers = needle(64, 20, 2)(jax.random.key(0))
        >>> place = int((tokens[:-1] == tokens[-1]).argmax())
        >>> tokens.shape, queries.tolist(), bool(tokens[place + 1] == answers[0])
        ((20,), [19], True)
    """
    if pairs < 1 or length < 2 * pairs + 1:
        raise ValueError(f"length: expected at least 2 x {pairs} pairs + 1, got {length}")
    quarter = vocabulary // 4
    if quarter - 1 < pairs:
        raise ValueError(f"vocabulary: expected at least {4 * pairs + 4}, got {vocabulary}")

    def sample(key: jax.Array) -> Recall:
        of_keys, of_values, of_noise, of_places = jax.random.split(key, 4)
        keys = 1 + jax.random.permutation(of_keys, quarter - 1)[:pairs]
        values = quarter + jax.random.permutation(of_values, quarter)[:pairs]
        tokens = jax.random.randint(of_noise, (length,), 2 * quarter, vocabulary)
        places = 2 * jax.random.permutation(of_places, (length - 1) // 2)[:pairs]
        tokens = tokens.at[places].set(keys).at[places + 1].set(values)
        # The places are in random order: the first pair is as good as any.
        return Recall(tokens.at[-1].set(keys[0]), jnp.array([length - 1]), values[:1])

    return sample
