"""Recycled attention (Xu et al. 2024, arXiv 2411.05787): reuse the keys that mattered a moment ago.

While decoding, every S-th step attends to the whole cache and keeps the K keys of highest weight;
the steps between attend to those and to what was generated since:

    R = top-K of softmax(q_t . k_j / sqrt(d)),   out = attention over R and the tokens since

Distinctive: nothing is thrown away; only fewer keys are read, K + S in place of all.

Limits: S = 1 or K as long as the cache is dense decoding. The paper leaves open how query heads
that share keys agree: here by the largest of their weights.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend
from jattn.checks import check_count, check_shape
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.sparse.tile_scores import top_count


class Recycled(NamedTuple):
    """What one step leaves for the next.

    Attributes:
        keep: which keys of the cache are read between full steps, `[b, g, s]`.
        query: that of the last full step, `[b, h, d]`.
        age: steps since then.
    """

    keep: Bool[Array, "b g s"]
    query: Float[Array, "b h d"]
    age: Int[Array, ""]


def empty(query: Float[Array, "b h d"], key: Float[Array, "b s g d"]) -> Recycled:
    """Nothing to reuse yet: the next step is a full one.

    Example:
        >>> int(empty(jnp.ones((1, 2, 4)), jnp.ones((1, 8, 2, 4))).age) > 10**6
        True
    """
    keep = jnp.zeros((key.shape[0], key.shape[2], key.shape[1]), bool)
    return Recycled(keep, jnp.zeros_like(query), jnp.int32(2**30))


def recycled_step(
    query: Float[Array, "b h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    length: Int[Array, ""],
    state: Recycled,
    *,
    stride: int,
    count: int,
    similarity: float | None = None,
) -> tuple[Float[Array, "b h e"], Recycled]:
    """One step of decoding; the new token's key and value are in the cache already.

    Args:
        query: of the new token.
        key, value: the cache.
        length: tokens in it.
        state: of the step before; `empty` at first.
        stride: S, steps from one full step to the next.
        count: K, keys that are kept.
        similarity: a full step also comes where the mean cosine of this query and that of the last
            full step is below it; None: by the stride alone.

    Returns:
        `[b, h, e]`, and the state for the next step.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2411.05787.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 8, 2, 4))
        >>> out, state = recycled_step(
        ...     x[:, 5], x, x, jnp.int32(6), empty(x[:, 5], x), stride=4, count=2)
        >>> out.shape, state.keep.sum(-1).tolist(), int(state.age)
        ((1, 2, 4), [[2, 2]], 1)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    check_count("stride", stride)
    check_count("count", count)
    b, s, g = sizes["b"], sizes["s"], sizes["g"]
    each = sizes["h"] // g
    there = jnp.arange(s) < length
    due = state.age >= stride
    if similarity is not None:
        due = due | (_cosine(query, state.query) < similarity)

    def read(keep):
        mask = jnp.repeat(keep & there, each, axis=1)[:, :, None]
        return attend(query[:, None], key, value, mask=mask, return_weights=True)

    def full(_):
        out, weights = read(jnp.ones((b, g, s), bool))
        mass = weights[:, :, 0].reshape(b, g, each, s).max(2)
        keep = top_count(jnp.where(there, mass, -1), count)
        return out[:, 0], Recycled(keep & there, query, jnp.int32(1))

    def again(state):
        keep = state.keep | (jnp.arange(s) == length - 1)
        out, _ = read(keep)
        return out[:, 0], Recycled(keep, state.query, state.age + 1)

    return lax.cond(due, full, again, state)


def recovered_mass(
    weights: Float[Array, "b h s"], keep: Bool[Array, "b g s"]
) -> Float[Array, "b h"]:
    """How much of dense weights falls on keys that are kept.

    Example:
        >>> recovered_mass(jnp.array([[[0.5, 0.25, 0.25]]]), jnp.array([[[True, False, True]]]))
        Array([[0.75]], dtype=float32)
    """
    return (weights * jnp.repeat(keep, weights.shape[1] // keep.shape[1], axis=1)).sum(-1)


def _cosine(x: Float[Array, "b h d"], y: Float[Array, "b h d"]) -> Float[Array, ""]:
    return (unit(x) * unit(y)).sum(-1).mean()
