"""The one-layer transformer of scan-and-snap theory, in its own coordinates.

Without positions the attention of query token m depends on the counts of the contextual tokens:

    c = counts * exp(z_m) / sum,   f = c / |c|_2,   logits = Y^T f,   loss = cross entropy,

with `Y = U W_V^T U^T` and `Z = U W_Q W_K^T U^T / sqrt(d)` for token embeddings U. The query does
not attend to itself.

Reference: arXiv 2305.16380, sections 2 and 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.tasks.sequence_classes import Sequence


class Parameters(NamedTuple):
    """The two matrices.

    Attributes:
        Y: `[M, M]`, row: input token, column: predicted token.
        Z: `[M, M]`, row: query token, column: key token.
    """

    Y: Float[Array, "*batch M M"]
    Z: Float[Array, "*batch M M"]


def init(key: jax.Array, vocabulary: int, scheme: str = "zeros") -> Parameters:
    """Zeros, as the theory has it, or `"uniform"`: U(-1/sqrt(M), 1/sqrt(M)), as frameworks do.

    Raises:
        ValueError: an unknown scheme.
    """
    shape = (vocabulary, vocabulary)
    if scheme == "zeros":
        return Parameters(jnp.zeros(shape), jnp.zeros(shape))
    if scheme != "uniform":
        raise ValueError(f"scheme: expected one of 'zeros', 'uniform', got {scheme!r}")
    bound = vocabulary**-0.5
    keys = jax.random.split(key)
    return Parameters(*(jax.random.uniform(k, shape, minval=-bound, maxval=bound) for k in keys))


def attention(
    z: Float[Array, "*batch M"], counts: Float[Array, "*batch M"]
) -> Float[Array, "*batch M"]:
    """Attention paid to each token of the vocabulary: `counts * exp(z) / sum`.

    Equal to softmax over the sequence, summed over equal tokens; counts may be probabilities.
    """
    present = counts > 0
    # Tokens that do not occur must not take part in the maximum, lest all others underflow.
    shift = jnp.max(jnp.where(present, z, -jnp.inf), axis=-1, keepdims=True)
    weights = jnp.where(present, counts * jnp.exp(jnp.where(present, z - shift, 0.0)), 0.0)
    return weights / weights.sum(-1, keepdims=True)


def logits(
    params: Parameters,
    batch: Sequence,
    *,
    normalize: bool = True,
    residual: bool = False,
    attend_query: bool = False,
) -> Float[Array, "b M"]:
    """Logits of the next token.

    Args:
        params: `Y` and `Z`.
        batch: counts `[b, M]`, query tokens and labels `[b]`.
        normalize: divide c by its Euclidean norm.
        residual: add the query token's one-hot vector to c.
        attend_query: let the query attend to itself, too.
    """
    one_hot = jax.nn.one_hot(batch.query, batch.counts.shape[-1], dtype=batch.counts.dtype)
    counts = batch.counts + one_hot if attend_query else batch.counts
    c = attention(params.Z[batch.query], counts)
    if residual:
        c = c + one_hot
    if normalize:
        c = c / jnp.linalg.norm(c, axis=-1, keepdims=True)
    return c @ params.Y


def loss(params: Parameters, batch: Sequence, **options: bool) -> Float[Array, ""]:
    """Mean cross entropy of the labels; options as in `logits`."""
    log_probability = jax.nn.log_softmax(logits(params, batch, **options))
    return -jnp.take_along_axis(log_probability, batch.label[:, None], -1).mean()


def counts_of(tokens: Int[Array, "b t"], vocabulary: int) -> Float[Array, "b M"]:
    """Token counts of the contextual tokens, all but the last of each row."""
    return jax.nn.one_hot(tokens[:, :-1], vocabulary).sum(1)


def ascent_direction(params: Parameters, sequence: Sequence) -> Parameters:
    """Minus the gradient of one sequence's loss, in closed form:

        dY = f (e_n - alpha)^T,   dZ[m] = c / |c| * (I - f f^T) Y (e_n - alpha),

    with alpha = softmax(Y^T f). Row m is the only one of Z that moves.

    Args:
        params: `Y` and `Z`.
        sequence: one example, without batch axis.
    """
    c = attention(params.Z[sequence.query], sequence.counts)
    norm = jnp.linalg.norm(c)
    f = c / norm
    error = -jax.nn.softmax(f @ params.Y)
    error = error.at[sequence.label].add(1.0)
    pull = params.Y @ error
    row = c / norm * (pull - f * (f @ pull))
    return Parameters(jnp.outer(f, error), jnp.zeros_like(params.Z).at[sequence.query].set(row))
