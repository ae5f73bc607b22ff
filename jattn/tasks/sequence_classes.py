"""Next-token data of sequence classes: what a sequence says is in its token counts.

A class n (the token to predict) fixes a query token, the last of the sequence, and a distribution
P(l|n) of the contextual tokens before it, which are drawn independently. Tokens that occur in one
class only are *distinct*, the others *common*.

Reference: arXiv 2305.16380, section 3 and appendix.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class SequenceClasses(NamedTuple):
    """The classes, over a vocabulary of `M` tokens.

    Token ids, in this order: common tokens, distinct tokens class by class, query tokens, labels.

    Attributes:
        probabilities: P(l|n), `[K, M]`, rows sum to one.
        queries: the query token of each class, `[K]`.
        labels: the token each class predicts, `[K]`.
        num_common: number of common tokens.
        num_distinct: number of distinct tokens of each class.
    """

    probabilities: Float[np.ndarray, "K M"]
    queries: Int[np.ndarray, " K"]
    labels: Int[np.ndarray, " K"]
    num_common: int
    num_distinct: int

    @property
    def distinct(self) -> Int[np.ndarray, "K nu"]:
        """Ids of the distinct tokens of each class, in ascending order of probability."""
        classes = np.arange(len(self.labels))[:, None]
        offsets = np.arange(self.num_distinct)
        return self.num_common + classes * self.num_distinct + offsets


class Sequence(NamedTuple):
    """One training example, without its order, which carries no information.

    Attributes:
        counts: how often each token occurs in the context, `[..., M]`.
        query: the last token, `[...]`.
        label: the next token, `[...]`.
    """

    counts: Float[Array, "*batch M"]
    query: Int[Array, "*batch"]
    label: Int[Array, "*batch"]


def sequence_classes(
    num_last: int,
    num_next_per_last: int,
    *,
    num_common: int = 10,
    num_distinct: int = 10,
    p_common: float = 1.0,
    p_min: float = 0.1,
    p_max: float = 1.0,
) -> SequenceClasses:
    """Lays out `K = num_last num_next_per_last` classes.

    Args:
        num_last: number of query tokens.
        num_next_per_last: classes that share a query token.
        num_common: tokens that all classes share, each of weight `p_common`.
        num_distinct: tokens of one class only, of weights from `p_min` to `p_max`.
        p_common, p_min, p_max: weights, normalised within a class.

    Raises:
        ValueError: a count below one (`num_common` may be zero), or a weight that is not positive.

    Example:
        >>> classes = sequence_classes(2, 1)
        >>> classes.probabilities.shape, classes.queries.tolist(), classes.labels.tolist()
        ((2, 34), [30, 31], [32, 33])
    """
    for name, value, least in (
        ("num_last", num_last, 1),
        ("num_next_per_last", num_next_per_last, 1),
        ("num_common", num_common, 0),
        ("num_distinct", num_distinct, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if min(p_common, p_min, p_max) <= 0:
        raise ValueError(f"weights: expected positive, got {p_common}, {p_min}, {p_max}")
    classes = num_last * num_next_per_last
    contextual = num_common + num_distinct * classes
    vocabulary = contextual + num_last + classes
    weights = np.zeros((classes, vocabulary))
    weights[:, :num_common] = p_common
    for n in range(classes):
        start = num_common + n * num_distinct
        weights[n, start : start + num_distinct] = np.linspace(p_min, p_max, num_distinct)
    return SequenceClasses(
        weights / weights.sum(1, keepdims=True),
        contextual + np.arange(classes) // num_next_per_last,
        contextual + num_last + np.arange(classes),
        num_common,
        num_distinct,
    )


def sequence_sampler(classes: SequenceClasses, length: int) -> Callable[[jax.Array], Sequence]:
    """Makes the sampler of one sequence of `length` tokens, the query among them.

    Returns:
        `sample(key) -> Sequence`, to be vmapped over keys.

    Raises:
        ValueError: a length below two.

    Example:
        >>> sample = sequence_sampler(sequence_classes(2, 1), 128)
        >>> float(sample(jax.random.key(0)).counts.sum())
        127.0
    """
    if length < 2:
        raise ValueError(f"length: expected at least 2, got {length}")
    cumulative = np.cumsum(classes.probabilities, axis=1).astype(np.float32)
    vocabulary = cumulative.shape[1]
    last = np.array([np.flatnonzero(row).max() for row in classes.probabilities])

    def sample(key: jax.Array) -> Sequence:
        class_key, token_key = jax.random.split(key)
        n = jax.random.randint(class_key, (), 0, len(last))
        uniform = jax.random.uniform(token_key, (length - 1,))
        tokens = jnp.searchsorted(jnp.asarray(cumulative)[n], uniform, side="right")
        # The last cumulative sum may round to below one.
        tokens = jnp.minimum(tokens, jnp.asarray(last)[n])
        counts = jnp.zeros(vocabulary).at[tokens].add(1.0)
        return Sequence(counts, jnp.asarray(classes.queries)[n], jnp.asarray(classes.labels)[n])

    return sample
