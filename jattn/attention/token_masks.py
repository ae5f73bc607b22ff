"""Masks by numbers that each token carries: its segment, its position, the range of keys it sees.

They hold O(t + s) numbers, which may be found at run time, and skip the tiles that these exclude.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer

from jattn.attention.mask_types import (
    STATIC,
    Mask,
    Prefix,
    block_ends,
    exact_integers,
    known,
    plane,
    summary,
)
from jattn.checks import check_array, check_count

Arrays = Array | np.ndarray
Numbers = Integer[Arrays, "..."]  # `[t]`, `[b, t]` or `[b, h, t]`


def segments(
    q_ids: Numbers | Bool[Arrays, "..."], k_ids: Numbers | Bool[Arrays, "..."] | None = None
) -> Mask:
    """A query may attend to keys that carry its own segment number: packed sequences, clusters.

    Any integers serve, of any width. Tiles are skipped where the ranges of numbers in the query
    block and in the key block do not meet, so contiguous segments cost what they should.

    Args:
        q_ids: segment of each query, `[b, t]`, or of each head `[b, h, t]`; axes of 1 are for all.
        k_ids: segment of each key; None means `q_ids`.

    Returns:
        A `Mask`.

    Raises:
        ValueError: no integers, or neither two axes nor three.

    Example:
        >>> segments(jnp.array([[0, 0, 1]])).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    one_row = k_ids is None
    k_ids = q_ids if k_ids is None else k_ids
    for name, ids in (("q_ids", q_ids), ("k_ids", k_ids)):
        if getattr(ids, "dtype", None) != jnp.bool_:
            check_array(name, ids, "integer")
        if ids.ndim not in (2, 3):
            raise ValueError(f"{name}: expected [b, t] or [b, h, t], got shape {list(ids.shape)}")
    q_ids, k_ids = _ranked(q_ids, k_ids)
    return Segments(_along(q_ids, 2), _along(k_ids, 3), one_row)


def packed(cu_seqlens: Integer[Arrays, " n1"], length: int) -> Mask:
    """A query may attend to keys of its own sequence, of n that lie behind one another.

    `jattn.recurrence.recur_packed` takes the same boundaries.

    Args:
        cu_seqlens: where sequences begin and where the last one ends, `[n + 1]`: from 0, not
            falling. Tokens behind the last sequence see nothing, and are not seen.
        length: number of tokens t.

    Returns:
        A `Mask`.

    Raises:
        ValueError: no integers, or not one axis.

    Example:
        >>> packed(jnp.array([0, 1, 3]), 4).dense(4, 4)[0, 0].astype(int).tolist()
        [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    ends = exact_integers("cu_seqlens", cu_seqlens)
    if ends.ndim != 1:
        raise ValueError(f"cu_seqlens: expected [n + 1] boundaries, got shape {list(ends.shape)}")
    check_count("length", length, 0)
    xp = np if known(ends) else jnp
    number = xp.searchsorted(ends, xp.arange(length, dtype=xp.int32), side="right")
    return segments(number.astype(xp.int32)[None]) & Prefix(plane(ends[-1], (1, 1, 1, 1)), -1)


def key_range(first: Numbers, last: Numbers) -> Mask:
    """Query i may attend to the keys from `first[i]` to `last[i]`, both included.

    Args:
        first: `[t]`, `[b, t]` or `[b, h, t]`; axes of 1 are for all.
        last: the same; below `first` where a query sees nothing.

    Returns:
        A `Mask`.

    Raises:
        ValueError: no integers, or more axes.

    Example:
        >>> key_range(jnp.array([0, 1]), jnp.array([1, 1])).dense(2, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [0, 1, 0]]
    """
    return KeyRange(_numbers("first", first, 2), _numbers("last", last, 2), keys=True)


def causal_positions(q_positions: Numbers, k_positions: Numbers | None = None) -> Mask:
    """Query i may attend to keys that stand no later: `k_positions[j] <= q_positions[i]`.

    For tokens that were sorted, gathered or routed. Where both are 0, 1, 2 ... it is `causal()`,
    which is cheaper.

    Args:
        q_positions: `[t]`, `[b, t]` or `[b, h, t]`; axes of 1 are for all.
        k_positions: the same of keys; None means those of queries.

    Returns:
        A `Mask`.

    Raises:
        ValueError: no integers, or more axes.

    Example:
        >>> causal_positions(jnp.array([1, 0])).dense(2, 2)[0, 0].astype(int).tolist()
        [[1, 1], [0, 1]]
    """
    k_positions = q_positions if k_positions is None else k_positions
    return Ordered(_numbers("k_positions", k_positions, 3), _numbers("q_positions", q_positions, 2))


def _numbers(name: str, array: Any, axis: int) -> Any:
    check_array(name, array, "integer")
    if not 1 <= array.ndim <= 3:
        got = list(array.shape)
        raise ValueError(f"{name}: expected [t], [b, t] or [b, h, t], got shape {got}")
    array = exact_integers(name, array)
    return _along(array[None] if array.ndim == 1 else array, axis)


def _along(array: Any, axis: int) -> Any:
    """`[b, t]` or `[b, h, t]` as a leaf of a mask, with tokens on that axis."""
    heads = array.shape[1] if array.ndim == 3 else 1
    shape = [array.shape[0], heads, 1, 1]
    shape[axis] = array.shape[-1]
    return plane(array, tuple(shape))


def _ranked(q_ids: Any, k_ids: Any) -> tuple[Any, Any]:
    """The same segments with 32-bit numbers: those of other types become their ranks."""
    narrow = ("int32", "int16", "int8", "uint16", "uint8", "bool")
    xp = np if known(q_ids, k_ids) else jnp
    if all(str(ids.dtype) in narrow for ids in (q_ids, k_ids)):
        return xp.asarray(q_ids, xp.int32), xp.asarray(k_ids, xp.int32)
    if xp is np:  # As Python has them: signed and unsigned ones of 64 bits compare exactly.
        flat = [int(x) for ids in (q_ids, k_ids) for x in np.asarray(ids).ravel()]
        ranks = {value: rank for rank, value in enumerate(sorted(set(flat)))}
        values = np.array([ranks[x] for x in flat], np.int32)
        cut = np.asarray(q_ids).size
        return values[:cut].reshape(q_ids.shape), values[cut:].reshape(k_ids.shape)
    if {str(q_ids.dtype), str(k_ids.dtype)} & {"uint64"} and q_ids.dtype != k_ids.dtype:
        raise ValueError(
            f"k_ids: expected the dtype of q_ids, {q_ids.dtype}, got {k_ids.dtype}; no type holds "
            "both"
        )
    wide = jnp.promote_types(q_ids.dtype, k_ids.dtype)
    if wide.itemsize < 8 and q_ids.dtype != k_ids.dtype:
        raise ValueError(f"k_ids: expected the dtype of q_ids, {q_ids.dtype}, got {k_ids.dtype}")
    both = [jnp.asarray(ids, wide) for ids in (q_ids, k_ids)]
    order = jnp.sort(jnp.concatenate([ids.ravel() for ids in both]))
    ranks = [jnp.searchsorted(order, ids).astype(jnp.int32) for ids in both]
    return ranks[0], ranks[1]


def _block_ranges(numbers: Any, length: int, block: int) -> tuple[Any, Any]:
    """Least and largest number of each block of tokens: two arrays `[#b, #h, blocks]`."""
    xp = np if known(numbers) else jnp
    numbers = xp.reshape(xp.asarray(numbers), (*numbers.shape[:2], -1))
    grow = ((0, 0), (0, 0), (0, -length % block))
    numbers = xp.pad(numbers, grow, mode="edge").reshape(*numbers.shape[:2], -1, block)
    return numbers.min(-1), numbers.max(-1)


def _check_fits(name: str, array: Any, sizes: tuple[int, int, int], axis: int) -> None:
    """Checks a leaf with tokens on an axis against b, h and the number of tokens; -1: any."""
    b, h, length = sizes
    own = (*array.shape[:2], array.shape[axis] * array.shape[5 - axis])
    fits = (b < 0 or own[0] in (1, b)) and (h < 0 or own[1] in (1, h)) and own[2] == length
    if not fits:
        batch = f"1 or b={b}" if b >= 0 else "b"
        letter = "s" if name.startswith("k_") else "t"
        got = [own[0], *([] if own[1] == 1 else [own[1]]), own[2]]
        raise ValueError(f"mask ({name}): expected shape [{batch}, {letter}={length}], got {got}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments(Mask):
    """q_ids `[#b, #h, t, 1]` == k_ids `[#b, #h, 1, s]`, or both the other way round.

    `one_row` where they are the same numbers: queries and keys of the same tokens.
    """

    q_ids: Any
    k_ids: Any
    one_row: bool = dataclasses.field(default=False, metadata=STATIC)

    def allowed(self, q_index, k_index):
        return self.q_ids == self.k_ids

    def tiles(self, t, s, block_q, block_k):
        q_low, q_high = (x[..., None] for x in _block_ranges(self.q_ids, t, block_q))
        k_low, k_high = (x[:, :, None] for x in _block_ranges(self.k_ids, s, block_k))
        meet = (q_low <= k_high) & (k_low <= q_high)
        same = (q_low == q_high) & (k_low == k_high)
        return summary(meet.any((0, 1)), (meet & same).all((0, 1)))

    def fit(self, b, h, t, s):
        _check_fits("q_ids", self.q_ids, (b, h, t), 2)
        _check_fits("k_ids", self.k_ids, (b, h, s), 3)
        return self

    @property
    def T(self):
        return Segments(self.k_ids.swapaxes(2, 3), self.q_ids.swapaxes(2, 3), self.one_row)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyRange(Mask):
    """first <= key index <= last, both `[#b, #h, t, 1]`.

    Or, not `keys`, the same of the query's index and `[#b, #h, 1, s]`.
    """

    first: Any
    last: Any
    keys: bool = dataclasses.field(metadata=STATIC)

    def allowed(self, q_index, k_index):
        index = k_index if self.keys else q_index
        return (index >= self.first) & (index <= self.last)

    def tiles(self, t, s, block_q, block_k):
        if not self.keys:
            return self.T.tiles(s, t, block_k, block_q).T
        left, right = block_ends(s, block_k)
        first_low, first_high = (x[..., None] for x in _block_ranges(self.first, t, block_q))
        last_low, last_high = (x[..., None] for x in _block_ranges(self.last, t, block_q))
        meet = (first_low <= right) & (last_high >= left)
        return summary(meet.any((0, 1)), ((first_high <= left) & (last_low >= right)).all((0, 1)))

    def fit(self, b, h, t, s):
        for name, array in (("first", self.first), ("last", self.last)):
            _check_fits(name, array, (b, h, t if self.keys else s), 2 if self.keys else 3)
        return self

    @property
    def T(self):
        return KeyRange(self.first.swapaxes(2, 3), self.last.swapaxes(2, 3), not self.keys)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ordered(Mask):
    """low `[#b, #h, 1, s]` <= high `[#b, #h, t, 1]`, or both the other way round."""

    low: Any
    high: Any
    of_keys: bool = dataclasses.field(default=True, metadata=STATIC)

    def allowed(self, q_index, k_index):
        return self.low <= self.high

    def tiles(self, t, s, block_q, block_k):
        if not self.of_keys:
            return self.T.tiles(s, t, block_k, block_q).T
        low_least, low_most = (x[:, :, None] for x in _block_ranges(self.low, s, block_k))
        high_least, high_most = (x[..., None] for x in _block_ranges(self.high, t, block_q))
        return summary((low_least <= high_most).any((0, 1)), (low_most <= high_least).all((0, 1)))

    def fit(self, b, h, t, s):
        own = (("k_positions", self.low, s, 3), ("q_positions", self.high, t, 2))
        turned = (("k_positions", self.low, t, 2), ("q_positions", self.high, s, 3))
        for name, array, length, axis in own if self.of_keys else turned:
            _check_fits(name, array, (b, h, length), axis)
        return self

    @property
    def T(self):
        return Ordered(self.low.swapaxes(2, 3), self.high.swapaxes(2, 3), not self.of_keys)
