"""Weighted sums of tokens by scores that are given, over the softmax engine."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import jattn.attention as engine
from jattn.attention import masks


def softmax_sum(
    scores: Float[Array, "b n k"],
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    hidden: Bool[Array, "b n k"] | None = None,
) -> Float[Array, "b k m"]:
    """`sum_n softmax_n(scores)_nk x_n`; zeros where no token is real.

    Args:
        scores: of each token, k of them.
        x: what is summed.
        real: False where x is padding; default none is.
        hidden: True where a token gets no weight in one of the k sums; default none.

    Example:
        >>> softmax_sum(jnp.zeros((1, 2, 1)), jnp.array([[[1.0], [3.0]]])).tolist()
        [[[2.0]]]
    """
    nothing = jnp.zeros((len(x), scores.shape[2], 1, 1), x.dtype)
    bias = scores.swapaxes(1, 2)
    if hidden is not None:
        bias = jnp.where(hidden.swapaxes(1, 2), -jnp.inf, bias)
    # Queries and keys of zeros: each sum is a query, and its scores are a bias.
    return engine.attend(
        nothing,
        jnp.zeros((*x.shape[:2], 1, 1), x.dtype),
        x[:, :, None],
        bias=bias[:, None],
        mask=None if real is None else masks.padding(real),
    )[:, :, 0]
