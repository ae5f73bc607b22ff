"""Log-probabilities of sequences, of the tokens that count."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_shape


class SequenceLogProbability(NamedTuple):
    """What a model gives to tokens that follow.

    Attributes:
        per_token: log-probabilities, 0 where a token does not count, `[b, t - 1]`.
        total: their sums, `[b]`.
        mean: those over the number of tokens that count, `[b]`; 0 where none does.
        entropy: of the distributions that they were drawn from, `[b, t - 1]`; 0 likewise.
    """

    per_token: Float[Array, "b n"]
    total: Float[Array, " b"]
    mean: Float[Array, " b"]
    entropy: Float[Array, "b n"]


def sequence_log_probability(
    logits: Float[Array, "b t v"],
    tokens: Int[Array, "b t"],
    mask: Bool[Array, "b t"],
    *,
    temperature: float = 1.0,
) -> SequenceLogProbability:
    """`log softmax(logits[:, :-1] / T)[tokens[:, 1:]]`, of the tokens that count.

    Args:
        logits: of the next token at each.
        tokens: the sequences.
        mask: True = a token that counts: an answer's, an agent's; not of prompts, tools, padding.
        temperature: T, that of sampling wherever ratios of probabilities are formed.

    Returns:
        A `SequenceLogProbability`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> logits = jnp.zeros((1, 3, 4))
        >>> ones = jnp.ones((1, 3), int)
        >>> found = sequence_log_probability(logits, ones, jnp.array([[False, True, True]]))
        >>> round(float(found.mean[0]), 4), round(float(found.entropy[0, 0]), 4)
        (-1.3863, 1.3863)
    """
    sizes: dict[str, int] = {}
    check_shape("logits", logits, "b t v", sizes)
    check_shape("tokens", tokens, "b t", sizes)
    check_shape("mask", mask, "b t", sizes)
    counts = mask[:, 1:]
    logs = jax.nn.log_softmax(logits[:, :-1] / temperature, axis=-1)
    chosen = jnp.take_along_axis(logs, tokens[:, 1:, None], axis=-1)[..., 0]
    per_token = jnp.where(counts, chosen, 0)
    total, number = per_token.sum(1), counts.sum(1)
    # A log of zero times a probability of zero is nothing.
    entropy = -jnp.where(logs > -jnp.inf, jnp.exp(logs) * logs, 0).sum(-1)
    mean = total / jnp.maximum(number, 1)
    return SequenceLogProbability(per_token, total, mean, jnp.where(counts, entropy, 0))
