"""Statistics of attention maps without the maps: memory grows with t + s, not with t s.

Column sums come from the engine's column form; entropies from its log-sum-exp and the mean key,

    entropy_i = lse_i - sum_j p_ij score_ij,     sum_j p_ij score_ij = scale <q_i, sum_j p_ij k_j>

and largest weights from one walk over blocks of keys.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.attention.attend import attend
from jattn.attention.attention_args import bind
from jattn.attention.masks import MaskLike
from jattn.attention.transposed import attend_columns
from jattn.checks import check_choice

STATISTICS = ("key_mass", "entropy", "max", "argmax")
BLOCK = 128  # keys whose scores are held at a time


def attention_statistics(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    *,
    mask: MaskLike | None = None,
    scale: float | None = None,
    reduce: Sequence[str] = STATISTICS,
) -> dict[str, Array]:
    """What softmax maps sum up to, of maps that are never held.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g divides h.
        mask: as for `attend`.
        scale: default d^-0.5.
        reduce: which of `"key_mass"`, the sum of a key's weights over all queries, `[b, h, s]`;
            `"entropy"` of a row in nats, `[b, h, t]`; `"max"`, its largest weight; `"argmax"`,
            where that is (the first of them; 0 in a row without keys).

    Returns:
        Those asked for, by name; differentiable, but for `"argmax"`.

    Raises:
        ValueError: an unknown statistic, or as `attend`.

    Reference:
        Row entropies by way of the log-sum-exp: arXiv 2205.14135.

    Example:
        >>> x = jnp.zeros((1, 4, 2, 8))
        >>> found = attention_statistics(x, x)
        >>> found["key_mass"][0, 0].tolist(), round(float(found["entropy"][0, 0, 0]), 4)
        ([1.0, 1.0, 1.0, 1.0], 1.3863)
    """
    for name in reduce:
        check_choice("reduce", name, STATISTICS)
    args = bind(query, key, key, mask=mask, scale=scale)
    options = dict(mask=args.mask, scale=args.scale)
    mean_key, lse = attend(query, key, key, return_lse=True, **options)  # type: ignore
    found: dict[str, Array] = {}
    if "key_mass" in reduce:
        ones = jnp.ones((*query.shape[:3], 1), query.dtype)
        columns = attend_columns(query, key, ones, lse, **options)  # type: ignore
        found["key_mass"] = jnp.swapaxes(columns[..., 0], 1, 2)
    seen = lse > -jnp.inf
    safe = jnp.where(seen, lse, 0)
    if "entropy" in reduce:
        mean_score = args.scale * (query * mean_key).sum(-1, dtype=args.dtype)
        found["entropy"] = jnp.swapaxes(jnp.where(seen, safe - mean_score, 0), 1, 2)
    if "max" in reduce or "argmax" in reduce:
        largest, index = _largest(args)
        logs = jnp.swapaxes(safe, 1, 2)
        largest = jnp.where(jnp.swapaxes(seen, 1, 2), jnp.exp(largest - logs), 0)
        found |= {"max": largest, "argmax": index}
    return {name: found[name] for name in reduce}


def _largest(args) -> tuple[Float[Array, "b h t"], Array]:
    """Each row's largest score among the keys it sees, and its index; -inf and 0 without any."""
    b, t, h, d = args.query.shape
    s, g = args.key.shape[1:3]
    block = min(BLOCK, s)
    blocks = -(-s // block)
    query = (args.query.astype(args.dtype) * args.scale).reshape(b, t, g, h // g, d)
    key = jnp.pad(args.key, ((0, 0), (0, blocks * block - s), (0, 0), (0, 0)))
    mask = None if args.mask is None else args.mask.pad(t, blocks * block)

    def step(carry, start):
        best, where = carry
        part = lax.dynamic_slice_in_dim(key, start, block, axis=1).astype(args.dtype)
        score = jnp.einsum("btgrd,bsgd->bgrts", query, part, precision="highest")
        score = score.reshape(b, h, t, block)
        allowed = (start + jnp.arange(block) < s)[None, None, None]
        if mask is not None:
            allowed = allowed & mask.tile(0, start, t, block)
        score = jnp.where(allowed, score, -jnp.inf)
        mine = score.max(-1)
        index = start + jnp.argmax(score, -1).astype(jnp.int32)
        return (jnp.maximum(best, mine), jnp.where(mine > best, index, where)), None

    empty = (jnp.full((b, h, t), -jnp.inf, args.dtype), jnp.zeros((b, h, t), jnp.int32))
    return lax.scan(step, empty, jnp.arange(blocks, dtype=jnp.int32) * block)[0]
