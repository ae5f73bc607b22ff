"""`jattn.attend` behind the signature that Flax's attention layers call."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as promote
from jax.core import Tracer
from jaxtyping import Array, Float

from jattn.attention import attend, masks


def attention_fn(
    query: Float[Array, "*batch t h d"],
    key: Float[Array, "*batch s g d"],
    value: Float[Array, "*batch s g e"],
    bias: Array | None = None,
    mask: Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Any = None,
    precision: Any = None,
    module: nnx.Module | None = None,
    promote_dtype: Any = promote,
    is_causal: bool = False,
    **options: Any,
) -> Float[Array, "*batch t h e"]:
    """Computes what `nnx.dot_product_attention` does, by `jattn.attend`.

    For `nnx.MultiHeadAttention(attention_fn=jattn.nn.attention_fn)`; with more of `attend`:
    `attention_fn=functools.partial(jattn.nn.attention_fn, normalizer="sigmoid")`.

    Args:
        query, key, value: with any number of batch axes; g divides h.
        bias: added to scores, broadcastable to `[*batch, h, t, s]`.
        mask: True (or 1) = may attend, broadcastable to the same. A query without any key gives
            zeros, where Flax gives the mean of all values.
        broadcast_dropout: dropout that batch and heads share. There is none: False with dropout.
        dropout_rng: decides which weights are dropped; others than Flax drops.
        dropout_rate: probability of a weight to be dropped.
        deterministic: no dropout.
        dtype: of the computation; default that of the arrays. Scores and sums are float32 at least.
        precision: None, as scores are that already.
        module: where to sow the weights (before dropout), which then are computed in full.
        promote_dtype: `((query, key, value), dtype) -> ` the three in one dtype.
        is_causal: query i sees keys <= i only, besides the mask.
        **options: `score_mod`, `normalizer`, `sink`, `scale` or `implementation` of `attend`.

    Returns:
        `[*batch, t, h, e]`.

    Raises:
        ValueError: a shape that does not fit, a float mask of other numbers than 0 and 1, shared
            dropout, or a precision.

    Example:
        >>> layer = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False,
        ...                                attention_fn=attention_fn, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((3, 5, 8))).shape
        (3, 5, 8)
    """
    if precision is not None:
        raise ValueError(f"precision: expected None (scores are float32), got {precision}")
    dropped = dropout_rate > 0 and not deterministic
    if dropped and broadcast_dropout:
        raise ValueError(
            "broadcast_dropout: expected False, as every head of every row has dropout of its own"
        )
    query, key, value = promote_dtype((query, key, value), dtype=dtype)
    batch = query.shape[:-3]

    def folded(array: Any) -> Any:
        """All batch axes as one; an array of size 1 along all of them stays so."""
        if array is None:
            return None
        array = jnp.asarray(array)
        array = array.reshape((1,) * (len(batch) + 3 - array.ndim) + array.shape)
        own = array.shape[: len(batch)]
        if math.prod(own) == 1:
            return array.reshape(1, *array.shape[len(batch) :])
        array = jnp.broadcast_to(array, (*batch, *array.shape[len(batch) :]))
        return array.reshape(math.prod(batch), *array.shape[len(batch) :])

    arrays = [folded(array) for array in (query, key, value)]
    visible = _allowed(folded(mask))
    if is_causal:
        visible = masks.causal() if visible is None else masks.from_array(visible) & masks.causal()
    options |= dict(mask=visible, bias=folded(bias))
    if module is not None:
        whole = options | dict(return_weights=True, implementation="reference")
        _, weights = attend(*arrays, **whole)
        weights = weights.reshape(*batch, *weights.shape[1:]).astype(query.dtype)
        module.sow(nnx.Intermediate, "attention_weights", weights)
    if dropped:
        options |= dict(dropout_rate=dropout_rate, dropout_key=dropout_rng)
    out = attend(*arrays, **options)
    return out.reshape(*batch, *out.shape[1:])


def _allowed(mask: Array | None) -> Array | None:
    """A mask of Flax, whose makers give 1.0 and 0.0, as bool."""
    if mask is None or mask.dtype == bool:
        return mask
    if not isinstance(mask, Tracer):
        found = np.asarray(mask)
        wrong = found[(found != 0) & (found != 1)]
        if wrong.size:
            raise ValueError(
                f"mask: expected True and False, or 1 and 0, got {wrong[0]}; what is added to "
                "scores is a bias"
            )
    return mask != 0
