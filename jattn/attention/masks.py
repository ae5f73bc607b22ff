"""Mask algebra: small descriptions of who may attend to whom, combined with `&`, `|` and `~`.

A mask answers two questions. `tile` gives the bool values of one tile of the `[t, s]` plane, so a
backend never holds the whole plane. `tiles` says for every tile of a grid whether it is EMPTY (no
pair allowed: skip it), FULL (all pairs allowed: no need to mask) or PARTIAL. The summary is
conservative: PARTIAL may stand for either of the others. It is computed with NumPy where the
mask's arrays are known when a program is traced, and is part of the program where they are not.

Query i and key j are counted from 0 on both axes, whatever the lengths. To let the last query
meet the last key when `t != s` (a cache, say), give `offset=s - t`.

Masks are pytrees: they pass through `jax.jit` as arguments. Their arrays are leaves; the integers
that shape a band or a block are part of the tree's structure, so changing one compiles anew. Every
leaf has four axes that broadcast against `[b, h, t, s]`, so a tile of a mask is the same mask over
the tiles of its leaves: backends, kernels too, cut those and call `allowed`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from jattn.attention.planes import as_plane, pad_plane, slice_tile
from jattn.checks import check_shape

EMPTY, PARTIAL, FULL = 0, 1, 2

Index = int | Int[Array, ""]


class Mask:
    """Base of all masks. `True` means: this query may attend to this key."""

    def allowed(self, q_index: Array, k_index: Array) -> Array:
        """The values at these indices, elementwise; the leaves are those of the same places.

        Indices are integers that broadcast against each other and against the leaves.
        """
        raise NotImplementedError

    def tile(
        self, q_start: Index, k_start: Index, block_q: int, block_k: int
    ) -> Bool[Array, "..."]:
        """Values of the tile at (q_start, k_start), `[#b, #h, block_q, block_k]`."""
        place = (q_start, k_start, block_q, block_k)
        part = jax.tree.map(lambda leaf: slice_tile(jnp.asarray(leaf), *place), self)
        q_index = (q_start + jnp.arange(block_q))[None, None, :, None]
        values = part.allowed(q_index, (k_start + jnp.arange(block_k))[None, None, None])
        return jnp.broadcast_to(values, (*values.shape[:2], block_q, block_k))

    def tiles(self, t: int, s: int, block_q: int, block_k: int) -> Any:
        """EMPTY, PARTIAL or FULL for each tile, int8 `[ceil(t/block_q), ceil(s/block_k)]`.

        NumPy where the mask's arrays are concrete, a traced array otherwise. A tile counts as
        empty or full only if it is so for every batch entry and head.
        """
        raise NotImplementedError

    def pad(self, t: int, s: int) -> "Mask":
        """The same mask with its arrays grown to lengths t and s; the new values mean nothing."""
        return jax.tree.map(lambda leaf: pad_plane(jnp.asarray(leaf), t, s), self)

    def check(self, b: int, h: int, t: int, s: int) -> None:
        """Raises ValueError where the mask's arrays do not fit these sizes."""

    @property
    def T(self) -> "Mask":
        """The mask with the parts of queries and keys exchanged."""
        raise NotImplementedError

    def dense(self, t: int, s: int) -> Bool[Array, "..."]:
        """All values at once, `[#b, #h, t, s]`."""
        return self.tile(0, 0, t, s)

    def __and__(self, other: "Mask | Array") -> "Mask":
        return _Pair(self, as_mask(other), union=False)

    def __or__(self, other: "Mask | Array") -> "Mask":
        return _Pair(self, as_mask(other), union=True)

    def __invert__(self) -> "Mask":
        return _Not(self)


def causal(offset: int = 0) -> Mask:
    """Query i may attend to keys j <= i + offset.

    Args:
        offset: 0 aligns the first query with the first key; `s - t` aligns the last ones.

    Returns:
        A `Mask`.

    Example:
        >>> causal().dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return _Band(None, offset)


def sliding_window(left: int, right: int = 0, offset: int = 0) -> Mask:
    """Query i may attend to `left` keys ending with its own, and to `right` keys after it.

    With p = i + offset: p - left < j <= p + right. `right=0` is causal already; a symmetric
    window that sees w - 1 keys on each side is `sliding_window(w, w - 1)`.

    Args:
        left: number of keys up to and with the query's own position, >= 1.
        right: number of keys after it.
        offset: as for `causal`.

    Returns:
        A `Mask`.

    Raises:
        ValueError: `left < 1` or `right < 0`.

    Example:
        >>> sliding_window(2).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    if left < 1:
        raise ValueError(f"left: expected at least 1 (the query's own position), got {left}")
    if right < 0:
        raise ValueError(f"right: expected at least 0, got {right}")
    return _Band(offset - left + 1, offset + right)


def prefix(length: int | Int[Array, " b"]) -> Mask:
    """Every query may attend to the first `length` keys.

    `causal() | prefix(n)` is a prefix language model; `prefix(lengths)` alone hides the padding
    after each sequence of a batch.

    Args:
        length: one number, or one for each batch entry `[b]`.

    Returns:
        A `Mask`.

    Example:
        >>> (causal() | prefix(2)).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    return _Prefix(_plane(length, (-1, 1, 1, 1)), -1)


def segments(q_ids: Int[Array, "b t"], k_ids: Int[Array, "b s"] | None = None) -> Mask:
    """A query may attend to keys that carry its own segment number: packed sequences.

    Any integers serve. Tiles are skipped where the ranges of numbers in the query block and in the
    key block do not meet, so contiguous segments cost what they should.

    Args:
        q_ids: segment of each query.
        k_ids: segment of each key; None means `q_ids`.

    Returns:
        A `Mask`.

    Example:
        >>> segments(jnp.array([[0, 0, 1]])).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    k_ids = q_ids if k_ids is None else k_ids
    for name, ids in (("q_ids", q_ids), ("k_ids", k_ids)):
        check_shape(name, ids, "b t", {})
    return _Segments(_plane(q_ids, (len(q_ids), 1, -1, 1)), _plane(k_ids, (len(k_ids), 1, 1, -1)))


def block_diagonal(size: int) -> Mask:
    """Query i may attend to keys of its own block: i // size == j // size.

    Raises:
        ValueError: `size < 1`.

    Example:
        >>> block_diagonal(2).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    return _BlockDiagonal(size)


def from_array(array: Bool[Array, "..."]) -> Mask:
    """A mask given by its values.

    Args:
        array: bool, broadcastable to `[b, h, t, s]`; True = may attend.

    Returns:
        A `Mask`.

    Raises:
        ValueError: not a bool array, or more than four axes.

    Example:
        >>> from_array(jnp.array([[True, False]])).tiles(4, 2, 2, 1).tolist()
        [[2, 0], [2, 0]]
    """
    if array.dtype != bool:
        raise ValueError(f"mask: expected a bool array, got {array.dtype}")
    if array.ndim > 4:
        raise ValueError(
            f"mask: expected an array broadcastable to [b, h, t, s], got shape {list(array.shape)}"
        )
    return _Values(_plane(array, (1,) * (4 - array.ndim) + array.shape))


def as_mask(mask: "Mask | Array") -> Mask:
    """A mask as it is, a bool array through `from_array`."""
    return mask if isinstance(mask, Mask) else from_array(mask)


def band(mask: Mask) -> tuple[int | None, int | None] | None:
    """Bounds of (key index - query index) if the mask is that and nothing else, or None.

    Example:
        >>> band(sliding_window(3)), band(prefix(2))
        ((-2, 0), None)
    """
    if isinstance(mask, _Band):
        return mask.low, mask.high
    if isinstance(mask, _Pair) and not mask.union:
        left, right = band(mask.left), band(mask.right)
        if left is not None and right is not None:
            lows = [low for low in (left[0], right[0]) if low is not None]
            highs = [high for high in (left[1], right[1]) if high is not None]
            return max(lows, default=None), min(highs, default=None)
    return None


_STATIC = {"static": True}  # Fields of the tree's structure; the other fields are its leaves.


def _plane(array: Any, shape: tuple[int, ...]) -> Any:
    """Reshapes; in NumPy what is known when the program is traced, for summaries made there."""
    xp = np if _known(array) else jnp
    return xp.reshape(xp.asarray(array), shape)


def _known(*arrays: Any) -> bool:
    return not any(isinstance(array, Tracer) for array in arrays)


def _blocks(length: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last index of every block of an axis; the last block may be short."""
    first = np.arange(0, length, block)
    return first, np.minimum(first + block, length) - 1


def _summary(any_allowed: Any, all_allowed: Any) -> Any:
    """From two bool arrays (or cautious bounds: too many True, too few True) to the summary."""
    return any_allowed.astype("int8") + all_allowed.astype("int8")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Band(Mask):
    """low <= j - i <= high; None is no bound."""

    low: int | None = dataclasses.field(metadata=_STATIC)
    high: int | None = dataclasses.field(metadata=_STATIC)

    def allowed(self, q_index, k_index):
        bounds = []
        if self.low is not None:
            bounds.append(k_index >= q_index + self.low)
        if self.high is not None:
            bounds.append(k_index <= q_index + self.high)
        return functools.reduce(jnp.logical_and, bounds)

    def tiles(self, t, s, block_q, block_k):
        (q_first, q_last), (k_first, k_last) = _blocks(t, block_q), _blocks(s, block_k)
        least, most = k_first - q_last[:, None], k_last - q_first[:, None]
        low = -t - s if self.low is None else self.low
        high = t + s if self.high is None else self.high
        return _summary((most >= low) & (least <= high), (least >= low) & (most <= high))

    @property
    def T(self):
        return _Band(
            None if self.high is None else -self.high, None if self.low is None else -self.low
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Prefix(Mask):
    """The index along `axis` (-1 keys, -2 queries) is below `length`, `[#b, 1, 1, 1]`."""

    length: Any
    axis: int = dataclasses.field(metadata=_STATIC)

    def allowed(self, q_index, k_index):
        return (k_index if self.axis == -1 else q_index) < self.length

    def tiles(self, t, s, block_q, block_k):
        length = np.asarray(self.length) if _known(self.length) else jnp.asarray(self.length)
        first, last = _blocks(s, block_k) if self.axis == -1 else _blocks(t, block_q)
        line = _summary(first < length.max(), last < length.min())
        shape = (-(-t // block_q), -(-s // block_k))
        xp = np if _known(self.length) else jnp
        return xp.broadcast_to(line if self.axis == -1 else line[:, None], shape)

    def check(self, b, h, t, s):
        if self.length.shape[0] > 1:
            check_shape("mask (prefix length)", self.length[:, 0, 0, 0], "b", {"b": b})

    @property
    def T(self):
        return _Prefix(self.length, -3 - self.axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Segments(Mask):
    """q_ids `[b, 1, t, 1]` == k_ids `[b, 1, 1, s]`, or both the other way round."""

    q_ids: Any
    k_ids: Any

    def allowed(self, q_index, k_index):
        return self.q_ids == self.k_ids

    def tiles(self, t, s, block_q, block_k):
        xp = np if _known(self.q_ids, self.k_ids) else jnp

        def ranges(ids, block):
            ids = xp.reshape(ids, (len(ids), -1))
            ids = xp.pad(ids, ((0, 0), (0, -ids.shape[1] % block)), mode="edge")
            ids = ids.reshape(ids.shape[0], -1, block)
            return ids.min(-1), ids.max(-1)

        (q_low, q_high), (k_low, k_high) = ranges(self.q_ids, block_q), ranges(self.k_ids, block_k)
        meet = (q_low[:, :, None] <= k_high[:, None]) & (k_low[:, None] <= q_high[:, :, None])
        same = (q_low == q_high)[:, :, None] & (k_low == k_high)[:, None]
        return _summary(meet.any(0), (meet & same).all(0))

    def check(self, b, h, t, s):
        sizes = {"b": b, "t": t, "s": s}
        check_shape("mask (q_ids)", self.q_ids[:, 0, :, 0], "b t", sizes)
        check_shape("mask (k_ids)", self.k_ids[:, 0, 0], "b s", sizes)

    @property
    def T(self):
        return _Segments(self.k_ids.swapaxes(2, 3), self.q_ids.swapaxes(2, 3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _BlockDiagonal(Mask):
    """i // size == j // size."""

    size: int = dataclasses.field(metadata=_STATIC)

    def allowed(self, q_index, k_index):
        return q_index // self.size == k_index // self.size

    def tiles(self, t, s, block_q, block_k):
        q_low, q_high = (x[:, None] // self.size for x in _blocks(t, block_q))
        k_low, k_high = (x // self.size for x in _blocks(s, block_k))
        meet = (q_low <= k_high) & (k_low <= q_high)
        return _summary(meet, meet & (q_low == q_high) & (k_low == k_high))

    @property
    def T(self):
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Values(Mask):
    """An array `[#b, #h, #t, #s]`."""

    values: Any

    def allowed(self, q_index, k_index):
        return self.values

    def tiles(self, t, s, block_q, block_k):
        xp = np if _known(self.values) else jnp
        values = xp.asarray(self.values)
        for axis, length in ((2, t), (3, s)):
            if values.shape[axis] == 1:
                shape = list(values.shape)
                shape[axis] = length
                values = xp.broadcast_to(values, shape)
        pad = [(0, 0), (0, 0), (0, -t % block_q), (0, -s % block_k)]

        def blocked(fill):
            padded = xp.pad(values, pad, constant_values=fill)
            b, h, rows, columns = padded.shape
            return padded.reshape(b, h, rows // block_q, block_q, columns // block_k, block_k)

        return _summary(blocked(False).any((0, 1, 3, 5)), blocked(True).all((0, 1, 3, 5)))

    def check(self, b, h, t, s):
        as_plane("mask", self.values, b, h, t, s)

    @property
    def T(self):
        return _Values(self.values.swapaxes(2, 3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Pair(Mask):
    """left | right where `union`, else left & right."""

    left: Any
    right: Any
    union: bool = dataclasses.field(metadata=_STATIC)

    def allowed(self, q_index, k_index):
        left, right = (part.allowed(q_index, k_index) for part in (self.left, self.right))
        return left | right if self.union else left & right

    def tiles(self, *grid):
        left, right = self.left.tiles(*grid), self.right.tiles(*grid)
        xp = np if _known(left, right) else jnp
        return xp.maximum(left, right) if self.union else xp.minimum(left, right)

    def check(self, b, h, t, s):
        self.left.check(b, h, t, s)
        self.right.check(b, h, t, s)

    @property
    def T(self):
        return _Pair(self.left.T, self.right.T, self.union)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Not(Mask):
    mask: Any

    def allowed(self, q_index, k_index):
        # Not `~`, which Mosaic cannot lower for bools in a GPU kernel.
        return jnp.logical_xor(self.mask.allowed(q_index, k_index), True)

    def tiles(self, *grid):
        return 2 - self.mask.tiles(*grid)

    def check(self, b, h, t, s):
        self.mask.check(b, h, t, s)

    @property
    def T(self):
        return _Not(self.mask.T)
