"""Score modifications: `score_mod(score, batch, head, q_index, k_index) -> score`.

A backend calls them with one tile at a time. `score` is `[b, h, block_q, block_k]`; the four index
arrays are int32 and broadcast against it. A modification must be elementwise in that sense:
arrays it needs are looked up by index. It may close over arrays under differentiation (a learned
table, slopes, a temperature): their gradients come out on every backend.
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.checks import check_shape

ScoreMod = Callable[[Array, Array, Array, Array, Array], Array]


def chain(*score_mods: ScoreMod) -> ScoreMod:
    """Applies modifications one after another, the first one first.

    Example:
        >>> mod = chain(temperature(2.0), soft_cap(30.0))
    """

    def score_mod(score, batch, head, q_index, k_index):
        return functools.reduce(
            lambda x, mod: mod(x, batch, head, q_index, k_index), score_mods, score
        )

    return score_mod


def soft_cap(cap: float | Float[Array, ""]) -> ScoreMod:
    """Bounds scores smoothly: cap * tanh(score / cap).

    Args:
        cap: the bound, > 0.

    Returns:
        A score modification.

    Reference:
        Gemma 2, arXiv 2408.00118.

    Example:
        >>> float(soft_cap(2.0)(jnp.array(1000.0), 0, 0, 0, 0))
        2.0
    """

    def score_mod(score, batch, head, q_index, k_index):
        # One division in all, not one a score: chips multiply much faster.
        return cap * jnp.tanh(score * (1 / cap))

    return score_mod


def temperature(tau: float | Float[Array, "*h"]) -> ScoreMod:
    """Divides scores by a temperature, one for all heads or one a head `[h]`.

    Example:
        >>> float(temperature(2.0)(jnp.array(6.0), 0, 0, 0, 0))
        3.0
    """

    def score_mod(score, batch, head, q_index, k_index):
        return score * (1 / (jnp.asarray(tau, score.dtype)[head] if jnp.ndim(tau) else tau))

    return score_mod


def alibi_slopes(heads: int) -> np.ndarray:
    """The slopes of ALiBi `[heads]`, float32: a geometric sequence that starts at its own ratio.

    The ratio is 2^(-8 / heads) where heads is a power of two; the other numbers of heads take
    the sequence of the power below, then every second slope of the power above.

    Example:
        >>> alibi_slopes(4).tolist()
        [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = 2.0 ** (-8.0 / power * np.arange(1, power + 1))
    extra = 2.0 ** (-4.0 / power * np.arange(1, 2 * (heads - power), 2))
    return np.concatenate([slopes, extra]).astype(np.float32)


def alibi(slopes: int | Float[Array, " h"]) -> ScoreMod:
    """Attention with linear biases: score - slope_h * |q_index - k_index|.

    Args:
        slopes: number of heads, for the published slopes; or an array `[h]`, differentiable.

    Returns:
        A score modification.

    Reference:
        ALiBi, arXiv 2108.12409.

    Example:
        >>> mod = alibi(8)
    """
    table = alibi_slopes(slopes) if isinstance(slopes, int) else slopes

    def score_mod(score, batch, head, q_index, k_index):
        slope = jnp.asarray(table, score.dtype)[head]
        # Indices become floats before they meet: one conversion for a row or column, not a score.
        wide = jnp.promote_types(score.dtype, jnp.float32)
        distance = jnp.abs(jnp.asarray(q_index, wide) - jnp.asarray(k_index, wide))
        return score - slope * distance.astype(score.dtype)

    return score_mod


def relative_bias(table: Float[Array, "h n"]) -> ScoreMod:
    """Adds a learned number for each head and distance: score + table[h, clip(k - q, -r, r) + r].

    Args:
        table: `[h, 2 r + 1]`, differentiable; column r is distance 0, later columns later keys.

    Returns:
        A score modification.

    Raises:
        ValueError: an even number of columns.

    Reference:
        Relative position, arXiv 1803.02155 (scalar form).

    Example:
        >>> mod = relative_bias(jnp.zeros((8, 2 * 16 + 1)))
    """
    check_shape("table", table, "h n", {})
    if table.shape[1] % 2 == 0:
        raise ValueError(f"table: expected an odd number of columns 2r + 1, got {table.shape[1]}")
    reach = table.shape[1] // 2

    def score_mod(score, batch, head, q_index, k_index):
        column = jnp.clip(k_index - q_index, -reach, reach) + reach
        return score + table[head, column].astype(score.dtype)

    return score_mod


def t5_buckets(
    table: Float[Array, "n h"], *, bidirectional: bool = True, max_distance: int = 128
) -> ScoreMod:
    """Adds a learned number for each bucket of distances, as in T5.

    Half of the buckets hold one distance each, the other half grow logarithmically up to
    `max_distance`; the last one holds everything beyond. When bidirectional, the first half of the
    table serves keys at or before the query, the second half keys after it.

    Args:
        table: `[buckets, h]`, differentiable.
        bidirectional: tell keys before and after the query apart; else later keys share bucket 0.
        max_distance: distance from which all share the last bucket.

    Returns:
        A score modification.

    Reference:
        T5, arXiv 1910.10683.

    Example:
        >>> mod = t5_buckets(jnp.zeros((32, 8)))
    """
    check_shape("table", table, "n h", {})
    buckets = table.shape[0] // 2 if bidirectional else table.shape[0]
    exact = buckets // 2
    # Worked out in float64 for every distance: in float32 a boundary may round to the wrong side.
    far = np.arange(max_distance + 1)
    growth = np.log(np.maximum(far, 1) / exact) / math.log(max_distance / exact)
    bucket_of = np.where(far < exact, far, exact + (growth * (buckets - exact) + 1e-9).astype(int))
    bucket_of = np.minimum(bucket_of, buckets - 1).astype(np.int32)

    def score_mod(score, batch, head, q_index, k_index):
        distance = q_index - k_index
        offset = jnp.where(distance < 0, buckets, 0) if bidirectional else 0
        distance = jnp.abs(distance) if bidirectional else jnp.maximum(distance, 0)
        bucket = offset + jnp.asarray(bucket_of)[jnp.minimum(distance, max_distance)]
        return score + table[bucket, head].astype(score.dtype)

    return score_mod


def decay(log_decay: Float[Array, "b t h"]) -> ScoreMod:
    """Adds the log of the decay between key and query: score + sum of log_decay over (k, q].

    The cumulative sums are looked up per query and per key, so no `[t, s]` matrix is made. They
    are kept in float32, so a score is exact to about 1e-7 times the whole sum. Keys after the
    query would be amplified: combine it with a causal mask.

    Args:
        log_decay: log of the factor applied at each step, `[b, t, h]`, <= 0, differentiable;
            queries and keys share it, so t = s.

    Returns:
        A score modification.

    Reference:
        Forgetting transformer, arXiv 2503.02130.

    Example:
        >>> mod = decay(jnp.full((1, 16, 8), -0.1))
    """
    total = jnp.cumsum(log_decay.astype(jnp.promote_types(log_decay.dtype, jnp.float32)), axis=1)

    def score_mod(score, batch, head, q_index, k_index):
        change = total[batch, q_index, head] - total[batch, k_index, head]
        return score + change.astype(score.dtype)

    return score_mod
