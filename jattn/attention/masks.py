"""Mask algebra: small descriptions of who may attend to whom, combined with `&`, `|` and `~`.

A mask answers two questions. `tile` gives the bool values of one tile of the `[t, s]` plane, so a
backend never holds the whole plane. `tiles` says for every tile of a grid whether it is EMPTY (no
pair allowed: skip it), FULL (all pairs allowed: no need to mask) or PARTIAL. The summary is
conservative: PARTIAL may stand for either of the others. It is computed with NumPy where the
mask's arrays are known when a program is traced, and is part of the program where they are not.

Query i and key j are counted from 0 on both axes, whatever the lengths. Where queries are a later
stretch of the sequence (a chunk against a cache, say), `offset` says how far they are ahead:
a number, one a batch entry, known when the program is traced or not; `align="end"` lets the last
query meet the last key.

Masks are pytrees: they pass through `jax.jit` as arguments. Their arrays are leaves; the integers
that shape a band or a block are part of the tree's structure, so changing one compiles anew.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Bool, Integer

from jattn.attention.bitset_masks import blocks, segment_table
from jattn.attention.mask_function import from_function
from jattn.attention.mask_types import (
    EMPTY,
    FARTHEST,
    FULL,
    PARTIAL,
    Band,
    BlockDiagonal,
    Mask,
    MaskLike,
    Padding,
    Pair,
    Prefix,
    ShiftedBand,
    as_mask,
    exact_integers,
    from_array,
    known,
    near,
    parts,
    plane,
)
from jattn.attention.neighborhoods import Axis, Neighborhood, tile_order
from jattn.attention.token_masks import causal_positions, key_range, packed, segments
from jattn.checks import check_array, check_choice, check_count, check_shape

__all__ = [
    "EMPTY",
    "FULL",
    "PARTIAL",
    "Mask",
    "MaskLike",
    "Padding",
    "as_mask",
    "band",
    "block_diagonal",
    "blocks",
    "causal",
    "causal_positions",
    "from_array",
    "from_function",
    "key_range",
    "neighborhood",
    "packed",
    "padding",
    "prefix",
    "query_offset",
    "segment_table",
    "segments",
    "sliding_window",
]

Arrays = Array | np.ndarray
Offset = int | Integer[Arrays, ""] | Integer[Arrays, " b"]


def causal(offset: Offset = 0, *, align: Literal["start", "end"] = "start") -> Mask:
    """Query i may attend to keys j <= i + offset.

    Args:
        offset: how far queries are ahead of keys; one for all, or one for each batch entry `[b]`.
            It may be traced: one program then serves all offsets.
        align: what offset 0 means: the first query is at the first key, or with "end" the last
            query at the last key, which adds s - t.

    Returns:
        A `Mask`.

    Raises:
        ValueError: an offset that is no integer.

    Example:
        >>> causal().dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        >>> causal(align="end").dense(2, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 1]]
    """
    return _band(None, 0, offset, align)


def sliding_window(
    left: int | None,
    right: int | None = 0,
    offset: Offset = 0,
    *,
    align: Literal["start", "end"] = "start",
) -> Mask:
    """Query i may attend to `left` keys ending with its own, and to `right` keys after it.

    With p = i + offset: p - left < j <= p + right. `right=0` is causal already; a symmetric
    window that sees w - 1 keys on each side is `sliding_window(w, w - 1)`.

    Args:
        left: number of keys up to and with the query's own position, >= 1; None: all of them.
        right: number of keys after it; None: all of them.
        offset: as for `causal`.
        align: as for `causal`.

    Returns:
        A `Mask`.

    Raises:
        ValueError: `left < 1` or `right < 0`, or they are no integers; or both are None.

    Example:
        >>> sliding_window(2).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
        >>> sliding_window(1, None).dense(2, 2)[0, 0].astype(int).tolist()
        [[1, 1], [0, 1]]
    """
    if left is None and right is None:
        raise ValueError("left, right: expected a bound on one side, got None for both")
    if left is not None:
        check_count("left", left, 1)
    if right is not None:
        check_count("right", right, 0)
    low = None if left is None else 1 - min(left, FARTHEST)
    return _band(low, None if right is None else min(right, FARTHEST), offset, align)


def _band(low: int | None, high: int | None, offset: Any, align: str) -> Mask:
    check_choice("align", align, ("start", "end"))
    values = exact_integers("offset", offset)
    if values.ndim > 1:
        raise ValueError(f"offset: expected a number or [b], got shape {list(values.shape)}")
    if known(values) and values.ndim == 0:
        ahead = int(values)
        low, high = (None if x is None else near(x + ahead) for x in (low, high))
        return Band(low, high, near(ahead), from_end=align == "end")
    if align == "end":
        raise ValueError('align: expected "start" with an offset that is an array')
    return ShiftedBand(values.reshape(-1, 1, 1, 1), low, high)


def prefix(length: Offset) -> Mask:
    """Every query may attend to the first `length` keys.

    `causal() | prefix(n)` is a prefix language model; `prefix(lengths)` alone hides the padding
    after each sequence of a batch.

    Args:
        length: one number, or one for each batch entry `[b]`; >= 0.

    Returns:
        A `Mask`.

    Raises:
        ValueError: no integers, or one below 0.

    Example:
        >>> (causal() | prefix(2)).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    lengths = exact_integers("length", length)
    if lengths.ndim > 1:
        raise ValueError(f"length: expected a number or [b], got shape {list(lengths.shape)}")
    if known(lengths) and lengths.min(initial=0) < 0:
        raise ValueError(f"length: expected at least 0, got {int(lengths.min())}")
    return Prefix(plane(lengths, (-1, 1, 1, 1)), -1)


def block_diagonal(size: int) -> Mask:
    """Query i may attend to keys of its own block: i // size == j // size.

    Raises:
        ValueError: `size < 1`, or no integer.

    Example:
        >>> block_diagonal(2).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    check_count("size", size, 1)
    return BlockDiagonal(min(size, FARTHEST))


def neighborhood(
    shape: Sequence[int],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    causal: bool | Sequence[bool] = False,
    tile: Sequence[int] | None = None,
) -> Mask:
    """Tokens are the cells of a grid, each of which sees the cells of a window round it.

    Along each axis, among cells that are equal modulo the dilation: the queries of a stride share
    a window of `window` keys round its middle one, which is shifted at borders, never cut; an even
    window has one key more before than behind. A causal axis sees up to the query itself.

    Args:
        shape: of the grid; tokens are its cells row by row.
        window: keys along each axis; one number for all, or one an axis.
        stride: queries that share a window, at most `window`. 1 slides, `window` cuts the grid
            into windows.
        dilation: distance of neighbours; windows must fit: window * dilation <= length.
        causal: whether no later cell is seen, for all axes or for each.
        tile: shape of boxes of which all cells follow each other, as `jattn.attention.tile_order`
            puts them: a kernel's tile is then a box, and skips more.

    Returns:
        A `Mask`.

    Raises:
        ValueError: numbers that do not fit the grid.

    Reference:
        arXiv 2504.16922.

    Example:
        >>> neighborhood((5,), 3).dense(5, 5)[0, 0].astype(int).tolist()[:2]
        [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
        >>> neighborhood((4, 4), 2).dense(16, 16).sum(-1).tolist()[0][0][:3]
        [4, 4, 4]
    """
    shape = tuple(shape)
    given = {"window": window, "stride": stride, "dilation": dilation, "causal": causal}
    each = {}
    for name, value in given.items():
        values = tuple(value) if isinstance(value, Sequence) else (value,) * len(shape)
        if len(values) != len(shape):
            raise ValueError(f"{name}: expected one for each axis of {shape}, got {value}")
        each[name] = values
    axes = []
    for length, w, st, dl, late in zip(shape, *each.values(), strict=True):
        for name, value in (("shape", length), ("window", w), ("stride", st), ("dilation", dl)):
            check_count(name, value)
        if st > w:
            raise ValueError(f"stride: expected at most window={w}, got {st}")
        if w * dl > length:
            raise ValueError(f"window: expected window * dilation <= {length}, got {w} * {dl}")
        axes.append(Axis(length, w, st, dl, bool(late)))
    if tile is not None:
        tile_order(shape, tile)
    return Neighborhood(tuple(axes), None if tile is None else tuple(tile))


def padding(real: Bool[Arrays, "b s"]) -> Mask:
    """Every query may attend to the keys that are real tokens; the others are padding.

    A bool array `[b, s]` says the same to a mixer, but not where b is also the number of queries:
    there it could be meant as `[t, s]`. This says it everywhere, and combines with other masks.

    Args:
        real: True = a real token, False = padding.

    Returns:
        A `Mask`.

    Raises:
        ValueError: not a bool array of two axes.

    Example:
        >>> padding(np.array([[True, True, False]])).dense(2, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0]]
    """
    check_array("real", real, "bool")
    check_shape("real", real, "b s", {})
    return Padding(plane(real, (real.shape[0], 1, 1, real.shape[1])))


def band(mask: Mask) -> tuple[int | None, int | None] | None:
    """Bounds of (key index - query index) if the mask is that and nothing else, or None.

    Example:
        >>> band(sliding_window(3)), band(prefix(2))
        ((-2, 0), None)
    """
    if isinstance(mask, Band) and not mask.from_end:
        return mask.low, mask.high
    if isinstance(mask, Pair) and not mask.union:
        left, right = band(mask.left), band(mask.right)
        if left is not None and right is not None:
            lows = [low for low in (left[0], right[0]) if low is not None]
            highs = [high for high in (left[1], right[1]) if high is not None]
            return max(lows, default=None), min(highs, default=None)
    return None


def query_offset(mask: Mask | None) -> Any:
    """How far the queries of a mask are ahead of their index: 0, an integer or an array `[#b]`.

    Raises:
        ValueError: parts of the mask were given different offsets.

    Example:
        >>> query_offset(causal(3) & prefix(5)), query_offset(prefix(5))
        (3, 0)
    """
    found = []
    for part in parts(mask) if mask is not None else []:
        if isinstance(part, Band):
            found.append(part.offset)
        elif isinstance(part, ShiftedBand):
            found.append(part.offset[:, 0, 0, 0])
    for other in found[1:]:
        same = other is found[0] or (
            known(other, found[0]) and np.array_equal(np.asarray(other), np.asarray(found[0]))
        )
        if not same:
            raise ValueError(
                "mask: its parts have different offsets, so a score modification by position "
                "cannot tell which is meant; give the modification its own offset="
            )
    return found[0] if found else 0
