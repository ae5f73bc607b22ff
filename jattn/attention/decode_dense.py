"""Decoding in plain XLA: all scores of the new queries at once, softmax by parts of the cache."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.attention.attention_args import trace_score_mod
from jattn.attention.nonfinite import hide_nonfinite


def gather_pages(
    pool: Float[Array, "p c g d"], pages: Int[Array, "b m"]
) -> Float[Array, "b s g d"]:
    """The cache of each sequence, `s = m c` keys long, from the pages that it is made of."""
    rows = jnp.take(pool, pages, axis=0, mode="clip")
    return rows.reshape(len(pages), -1, *pool.shape[2:])


def decode_dense(
    query: Float[Array, "b n h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    lengths: Int[Array, " b"],
    *,
    window: int | None,
    bias: Array | None,
    score_mod: Any,
    scale: float,
    splits: int,
    dtype: Any,
) -> tuple[Float[Array, "b splits n h e"], Float[Array, "b splits n h"]]:
    """Each part's attention, and its log of sums; see `jattn.attention.decode`.

    Args:
        bias: `[#b, #h, #n, #s]`.
    """
    (b, n, h, d), (s, g) = query.shape, key.shape[1:3]
    at = lengths[:, None] - n + jnp.arange(n, dtype=jnp.int32)  # where each query stands
    shown = seen_keys(at, s, window)
    # What is hidden may be NaN, which neither a weight nor a gradient of 0 hides.
    there = shown.any(1)[..., None, None]
    key, value = jnp.where(there, key, 0), jnp.where(there, value, 0).astype(dtype)
    query = jnp.where(shown.any(2)[..., None, None], query, 0)
    markers = None
    if n > 1:  # What one query sees, another may not.
        keys, values, markers = hide_nonfinite(key.swapaxes(1, 2), value.swapaxes(1, 2), h)
        key, value = keys.swapaxes(1, 2), values.swapaxes(1, 2)
    scores = scale * jnp.einsum(
        "bngrd,bsgd->bgrns",
        query.reshape(b, n, g, h // g, d),
        key,
        precision="highest",
        preferred_element_type=dtype,
    ).reshape(b, h, n, s)
    if markers is not None:
        scores += markers
    shown = shown[:, None]
    if bias is not None:
        shown &= bias != -jnp.inf
        scores += jnp.where(bias != -jnp.inf, bias, 0).astype(dtype)
    if score_mod is not None:

        def at_the_end(score, batch, head, q_index, k_index):
            return score_mod(score, batch, head, lengths[batch] - n + q_index, k_index)

        function, closed_over = trace_score_mod(at_the_end, dtype)
        index = [jnp.arange(size, dtype=jnp.int32) for size in (n, s, b, h)]
        scores = function.over_tile(closed_over, *index, score=jnp.where(shown, scores, 0))
    return _parts(jnp.where(shown, scores, -jnp.inf), value, splits)


def seen_keys(at: Int[Array, "b n"], s: int, window: int | None) -> Bool[Array, "b n s"]:
    """Which keys queries at these positions see: none, where that is below 0."""
    index = jnp.arange(s, dtype=jnp.int32)
    seen = index <= at[..., None]
    return seen if window is None else seen & (index > at[..., None] - window)


def _parts(scores, value, splits):
    """Softmax of scores `[b, h, n, s]` in each part of the keys, and the values it gives."""
    (b, h, n, s), (g, e) = scores.shape, value.shape[2:]
    size = max(-(-s // splits), 1)
    rest = size * splits - s
    value = jnp.pad(value, [(0, 0), (0, rest), (0, 0), (0, 0)]).reshape(b, splits, size, g, e)
    scores = jnp.pad(scores, [(0, 0)] * 3 + [(0, rest)], constant_values=-jnp.inf)
    scores = scores.reshape(b, g, h // g, n, splits, size)
    largest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    weights = jnp.exp(scores - largest)
    total = weights.sum(-1)
    some = total != 0
    safe = jnp.where(some, total, 1)
    weights = weights / safe[..., None]
    out = jnp.einsum("bgrnpk,bpkge->bpngre", weights, value, precision="highest")
    lse = jnp.where(some, largest[..., 0] + jnp.log(safe), -jnp.inf)
    lse = lse.transpose(0, 4, 3, 1, 2)
    return out.reshape(b, splits, n, h, e), lse.reshape(b, splits, n, h)
