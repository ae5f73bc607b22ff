"""Score modifications: `score_mod(score, batch, head, q_index, k_index) -> score`.

A backend calls them for every score of a tile: write them for five scalars, the indices int32.
Arrays they need are looked up by index. They may close over arrays under differentiation (a learned
table, slopes, a temperature): their gradients come out on every backend.

Those of this module that count positions know the offset of the mask they are used with: with
`causal(offset=n)` query i is at position i + n for them too. `offset=` says it where there is no
such mask. A function of your own gets plain indices.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jattn.attention.mask_types import exact_integers
from jattn.attention.masks import Offset
from jattn.checks import check_array, check_count, check_flag, check_number, check_shape, said

MOST_HEADS = 2**16
FARTHEST_BUCKET = 2**20

ScoreMod = Callable[[Array, Array, Array, Array, Array], Array]


class _NoTruthValue:
    """Refuses `and`, `or` and `not`, which would drop an operand without a word."""

    def __bool__(self) -> bool:
        raise ValueError(
            "score_mod: a score modification has no truth value, so `and`, `or` and `not` would "
            "drop one; apply several with scores.chain(first, second)"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Elementwise(_NoTruthValue):
    """A modification of scores that does not ask where they are."""

    function: ScoreMod

    def __call__(self, score, batch, head, q_index, k_index):
        return self.function(score, batch, head, q_index, k_index)


@dataclasses.dataclass(frozen=True, eq=False)
class Positional(_NoTruthValue):
    """A modification by positions: that of query i is i + offset.

    `offset` is a number or `[b]`; None until it is known, which `at_offset` makes that of the mask.
    """

    function: ScoreMod
    offset: Any = None

    def __call__(self, score, batch, head, q_index, k_index):
        offset: Any = 0 if self.offset is None else self.offset
        if getattr(offset, "ndim", 0):  # One for all, or one a batch entry.
            offset = jnp.asarray(offset, jnp.int32)[batch if len(offset) > 1 else 0]
        return self.function(score, batch, head, q_index + offset, k_index)


@dataclasses.dataclass(frozen=True, eq=False)
class Chain(_NoTruthValue):
    """Modifications one after another."""

    score_mods: tuple[ScoreMod, ...]

    def __call__(self, score, batch, head, q_index, k_index):
        return functools.reduce(
            lambda x, mod: mod(x, batch, head, q_index, k_index), self.score_mods, score
        )


def _checked(offset: Any) -> Any:
    return None if offset is None else exact_integers("offset", offset)


def at_offset(score_mod: ScoreMod, offset: Callable[[], Any]) -> ScoreMod:
    """The modification with positions that no one has said yet counted from `offset()`.

    Example:
        >>> at_offset(alibi(8), lambda: 3).offset
        3
    """
    if isinstance(score_mod, Chain):
        return Chain(tuple(at_offset(mod, offset) for mod in score_mod.score_mods))
    if isinstance(score_mod, Positional) and score_mod.offset is None:
        return dataclasses.replace(score_mod, offset=offset())
    return score_mod


def chain(*score_mods: ScoreMod) -> ScoreMod:
    """Applies modifications one after another, the first one first.

    Example:
        >>> mod = chain(temperature(2.0), soft_cap(30.0))
    """
    for mod in score_mods:
        if not callable(mod):
            raise ValueError(f"score_mods: expected functions, got {said(mod)}")
    return Chain(score_mods)


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
    check_number("cap", cap, above=0)
    cap = cap if isinstance(cap, jax.Array) else float(cap)

    def score_mod(score, batch, head, q_index, k_index):
        # One division in all, not one a score: chips multiply much faster.
        return cap * jnp.tanh(score * (1 / cap))

    return Elementwise(score_mod)


def temperature(tau: float | Float[Array, "*h"]) -> ScoreMod:
    """Divides scores by a temperature, one for all heads or one a head `[h]`.

    Example:
        >>> float(temperature(2.0)(jnp.array(6.0), 0, 0, 0, 0))
        3.0
    """
    if getattr(tau, "ndim", 0):
        check_array("tau", tau, "floating")
        check_shape("tau", tau, "h", {})
    else:
        check_number("tau", tau, above=0)
        tau = tau if isinstance(tau, jax.Array) else float(tau)

    def score_mod(score, batch, head, q_index, k_index):
        return score * (1 / (jnp.asarray(tau, score.dtype)[head] if jnp.ndim(tau) else tau))

    return Elementwise(score_mod)


def alibi_slopes(heads: int) -> np.ndarray:
    """The slopes of ALiBi `[heads]`, float32: a geometric sequence that starts at its own ratio.

    The ratio is 2^(-8 / heads) where heads is a power of two; the other numbers of heads take
    the sequence of the power below, then every second slope of the power above.

    Example:
        >>> alibi_slopes(4).tolist()
        [0.25, 0.0625, 0.015625, 0.00390625]
    """
    check_count("heads", heads, 1)
    if heads > MOST_HEADS:
        raise ValueError(f"heads: expected at most {MOST_HEADS}, got {heads}")
    power = 2 ** math.floor(math.log2(heads))
    slopes = 2.0 ** (-8.0 / power * np.arange(1, power + 1))
    extra = 2.0 ** (-4.0 / power * np.arange(1, 2 * (heads - power), 2))
    return np.concatenate([slopes, extra]).astype(np.float32)


def alibi(slopes: int | Float[Array, " h"], *, offset: Offset | None = None) -> ScoreMod:
    """Attention with linear biases: score - slope_h * |q_index + offset - k_index|.

    Args:
        slopes: number of heads, for the published slopes; or an array `[h]`, differentiable.
        offset: how far queries are ahead, a number or `[b]`; default that of the mask.

    Returns:
        A score modification.

    Reference:
        ALiBi, arXiv 2108.12409.

    Example:
        >>> mod = alibi(8)
    """
    table = alibi_slopes(slopes) if isinstance(slopes, int) else slopes
    check_array("slopes", table, "floating")
    check_shape("slopes", table, "h", {})

    def score_mod(score, batch, head, q_index, k_index):
        slope = jnp.asarray(table, score.dtype)[head]
        # Indices become floats before they meet: one conversion for a row or column, not a score.
        wide = jnp.promote_types(score.dtype, jnp.float32)
        distance = jnp.abs(jnp.asarray(q_index, wide) - jnp.asarray(k_index, wide))
        return score - slope * distance.astype(score.dtype)

    return Positional(score_mod, _checked(offset))


def relative_bias(table: Float[Array, "h n"], *, offset: Offset | None = None) -> ScoreMod:
    """Adds a learned number for each head and distance: score + table[h, clip(k - q, -r, r) + r].

    Args:
        table: `[h, 2 r + 1]`, differentiable; column r is distance 0, later columns later keys.
        offset: how far queries are ahead, a number or `[b]`; default that of the mask.

    Returns:
        A score modification.

    Raises:
        ValueError: an even number of columns.

    Reference:
        Relative position, arXiv 1803.02155 (scalar form).

    Example:
        >>> mod = relative_bias(jnp.zeros((8, 2 * 16 + 1)))
    """
    check_array("table", table, "floating")
    check_shape("table", table, "h n", {})
    if table.shape[1] % 2 == 0:
        raise ValueError(f"table: expected an odd number of columns 2r + 1, got {table.shape[1]}")
    reach = table.shape[1] // 2

    def score_mod(score, batch, head, q_index, k_index):
        column = jnp.clip(k_index - q_index, -reach, reach) + reach
        return score + table[head, column].astype(score.dtype)

    return Positional(score_mod, _checked(offset))


def t5_buckets(
    table: Float[Array, "n h"],
    *,
    bidirectional: bool = True,
    max_distance: int = 128,
    offset: Offset | None = None,
) -> ScoreMod:
    """Adds a learned number for each bucket of distances, as in T5.

    Half of the buckets hold one distance each, the other half grow logarithmically up to
    `max_distance`; the last one holds everything beyond. When bidirectional, the first half of the
    table serves keys at or before the query, the second half keys after it.

    Args:
        table: `[buckets, h]`, differentiable.
        bidirectional: tell keys before and after the query apart; else later keys share bucket 0.
        max_distance: distance from which all share the last bucket.
        offset: how far queries are ahead, a number or `[b]`; default that of the mask.

    Returns:
        A score modification.

    Reference:
        T5, arXiv 1910.10683.

    Example:
        >>> mod = t5_buckets(jnp.zeros((32, 8)))
    """
    check_array("table", table, "floating")
    check_shape("table", table, "n h", {})
    check_flag("bidirectional", bidirectional)
    check_count("max_distance", max_distance, 1)
    least = 4 if bidirectional else 2
    if len(table) < least:
        raise ValueError(f"table: expected at least {least} buckets, got {len(table)}")
    buckets = table.shape[0] // 2 if bidirectional else table.shape[0]
    exact = buckets // 2
    if not exact < max_distance <= FARTHEST_BUCKET:
        raise ValueError(
            f"max_distance: expected more than {exact} and at most {FARTHEST_BUCKET}, got "
            f"{max_distance}"
        )
    # Worked out in float64 for every distance: in float32 a boundary may round to the wrong side.
    far = np.arange(max_distance + 1)
    growth = np.log(np.maximum(far, 1) / exact) / math.log(max_distance / exact)
    bucket_of = np.where(far < exact, far, exact + (growth * (buckets - exact) + 1e-9).astype(int))
    bucket_of = np.minimum(bucket_of, buckets - 1).astype(np.int32)

    def score_mod(score, batch, head, q_index, k_index):
        distance = q_index - k_index
        half = jnp.where(distance < 0, buckets, 0) if bidirectional else 0
        distance = jnp.abs(distance) if bidirectional else jnp.maximum(distance, 0)
        bucket = half + jnp.asarray(bucket_of)[jnp.minimum(distance, max_distance)]
        return score + table[bucket, head].astype(score.dtype)

    return Positional(score_mod, _checked(offset))


def decay(log_decay: Float[Array, "b s h"], *, offset: Offset | None = None) -> ScoreMod:
    """Adds the log of the decay between key and query: score + sum of log_decay over (k, q].

    The cumulative sums are looked up per query and per key, so no `[t, s]` matrix is made. They
    are kept in two parts, so a difference is as exact as its own size allows, however much was
    forgotten before. -inf is a hard reset: what is before it is hidden from what is after. Keys
    after the query would be amplified: combine it with a causal mask.

    Args:
        log_decay: log of the factor applied at each position, `[b, s, h]`, <= 0, differentiable.
        offset: how far queries are ahead, a number or `[b]`; default that of the mask.

    Returns:
        A score modification.

    Reference:
        Forgetting transformer, arXiv 2503.02130.

    Example:
        >>> mod = decay(jnp.full((1, 16, 8), -0.1))
    """
    check_array("log_decay", log_decay, "floating")
    check_shape("log_decay", log_decay, "b s h", {})
    wide = log_decay.astype(jnp.promote_types(log_decay.dtype, jnp.float32))
    reset = wide == -jnp.inf
    resets = jnp.cumsum(reset, axis=1, dtype=jnp.int32)
    steps = jnp.where(reset, 0, wide)
    total, lost = _exact_sums(steps)

    def score_mod(score, batch, head, q_index, k_index):
        at_query, at_key = (batch, q_index, head), (batch, k_index, head)
        change = (total[at_query] - total[at_key]) + (lost[at_query] - lost[at_key])
        kept = resets[at_query] == resets[at_key]
        return jnp.where(kept, score + change.astype(score.dtype), -jnp.inf)

    return Positional(score_mod, _checked(offset))


def _exact_sums(steps: Float[Array, "b s h"]) -> tuple[Array, Array]:
    """Cumulative sums along s, and what rounding has taken from them (which has no gradient)."""

    def join(a, b):
        (high_a, low_a), (high_b, low_b) = a, b
        high = high_a + high_b
        part = high - high_a
        lost = (high_a - (high - part)) + (high_b - part)  # exactly what the sum left out
        return high, lost + (low_a + low_b)

    total = jnp.cumsum(steps, axis=1)
    fixed = jax.lax.stop_gradient(steps)
    high, low = jax.lax.associative_scan(join, (fixed, jnp.zeros_like(fixed)), axis=1)
    return total, (high - jax.lax.stop_gradient(total)) + low
