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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer

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
    Segments,
    ShiftedBand,
    as_mask,
    from_array,
    known,
    parts,
    plane,
)
from jattn.attention.neighborhoods import Axis, Neighborhood, tile_order
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
    "from_array",
    "from_function",
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
QueryIds = Integer[Arrays, "#b t"] | Bool[Arrays, "#b t"]
KeyIds = Integer[Arrays, "#b s"] | Bool[Arrays, "#b s"]


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
    left: int, right: int = 0, offset: Offset = 0, *, align: Literal["start", "end"] = "start"
) -> Mask:
    """Query i may attend to `left` keys ending with its own, and to `right` keys after it.

    With p = i + offset: p - left < j <= p + right. `right=0` is causal already; a symmetric
    window that sees w - 1 keys on each side is `sliding_window(w, w - 1)`.

    Args:
        left: number of keys up to and with the query's own position, >= 1.
        right: number of keys after it.
        offset: as for `causal`.
        align: as for `causal`.

    Returns:
        A `Mask`.

    Raises:
        ValueError: `left < 1` or `right < 0`, or they are no integers.

    Example:
        >>> sliding_window(2).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    check_count("left", left, 1)
    check_count("right", right, 0)
    return _band(1 - min(left, FARTHEST), min(right, FARTHEST), offset, align)


def _band(low: int | None, high: int, offset: Any, align: str) -> Mask:
    check_choice("align", align, ("start", "end"))
    values = exact_integers("offset", offset)
    if values.ndim > 1:
        raise ValueError(f"offset: expected a number or [b], got shape {list(values.shape)}")
    if known(values) and values.ndim == 0:
        ahead = int(values)
        low = None if low is None else _near(low + ahead)
        return Band(low, _near(high + ahead), _near(ahead), from_end=align == "end")
    if align == "end":
        raise ValueError('align: expected "start" with an offset that is an array')
    return ShiftedBand(values.reshape(-1, 1, 1, 1), low, high)


def _near(x: int) -> int:
    """Within reach of any index; beyond it, bounds all mean the same."""
    return min(max(x, -FARTHEST), FARTHEST)


def exact_integers(name: str, value: Any) -> Any:
    """Exact 32-bit integers, in NumPy where they are known; far ones are brought within reach."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = np.asarray(_near(value), np.int32)
    check_array(name, value, "integer")
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    xp = np if known(array) else jnp
    kind = jnp.iinfo(array.dtype)
    low, high = max(-FARTHEST, int(kind.min)), min(FARTHEST, int(kind.max))
    return xp.clip(xp.asarray(array), low, high).astype(xp.int32)


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


def segments(q_ids: QueryIds, k_ids: KeyIds | None = None) -> Mask:
    """A query may attend to keys that carry its own segment number: packed sequences.

    Any integers serve, of any width. Tiles are skipped where the ranges of numbers in the query
    block and in the key block do not meet, so contiguous segments cost what they should.

    Args:
        q_ids: segment of each query; a batch axis of 1 is one layout for the whole batch.
        k_ids: segment of each key; None means `q_ids`.

    Returns:
        A `Mask`.

    Raises:
        ValueError: no integers, or not two axes.

    Example:
        >>> segments(jnp.array([[0, 0, 1]])).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    one_row = k_ids is None
    k_ids = q_ids if k_ids is None else k_ids
    arrays = []
    for name, ids in (("q_ids", q_ids), ("k_ids", k_ids)):
        if getattr(ids, "dtype", None) != jnp.bool_:
            check_array(name, ids, "integer")
        if ids.ndim != 2:
            raise ValueError(f"{name}: expected 2 axes [b, t], got shape {list(ids.shape)}")
        arrays.append(ids)
    q_ids, k_ids = _ranked(*arrays)
    return Segments(_as_axis(q_ids, 2), _as_axis(k_ids, 3), one_row)


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
    return segments(number.astype(xp.int32)[None]) & prefix(xp.asarray(ends[-1]))


def _as_axis(ids: Any, axis: int) -> Any:
    shape = [ids.shape[0], 1, 1, 1]
    shape[axis] = ids.shape[1]
    return plane(ids, tuple(shape))


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


def blocks(table: Bool[Arrays, "#b #h q k"], block_q: int, block_k: int) -> Mask:
    """Query i may attend to key j where `table[b, h, i // block_q, j // block_k]`.

    The table may be found at run time: shapes do not depend on it, so nothing is compiled anew.

    Args:
        table: True = that block of queries sees that block of keys; one for all batch entries or
            heads, or one for each.
        block_q, block_k: tokens of a block.

    Returns:
        A `Mask`.

    Raises:
        ValueError: not a bool array of four axes.

    Example:
        >>> table = jnp.array([[[[True, False], [True, True]]]])
        >>> blocks(table, 1, 2).dense(2, 4)[0, 0].astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 1, 1]]
    """
    check_array("table", table, "bool")
    check_shape("table", table, "b h q k", {})
    check_count("block_q", block_q)
    check_count("block_k", block_k)
    b, h, rows, columns = table.shape

    def allowed(batch, head, i, j):
        # Behind the last block there is none: look-ups would find the last again.
        inside = (i // block_q < rows) & (j // block_k < columns)
        found = table[batch * (b > 1), head * (h > 1), i // block_q, j // block_k]
        return found & inside

    return from_function(allowed)


def segment_table(allow: Bool[Arrays, "n n"], q_ids: QueryIds, k_ids: KeyIds | None = None) -> Mask:
    """Query i may attend to key j where their segments may: `allow[q_ids[i], k_ids[j]]`.

    Args:
        allow: True = queries of the row's segment see keys of the column's.
        q_ids: segment of each query, from 0; a batch axis of 1 is one layout for all.
        k_ids: segment of each key; None means `q_ids`.

    Returns:
        A `Mask`.

    Raises:
        ValueError: arrays of other types or shapes.

    Example:
        >>> allow = jnp.array([[True, False], [True, True]])
        >>> segment_table(allow, jnp.array([[0, 1]])).dense(2, 2)[0, 0].astype(int).tolist()
        [[1, 0], [1, 1]]
    """
    check_array("allow", allow, "bool")
    check_shape("allow", allow, "n n", {})
    k_ids = q_ids if k_ids is None else k_ids
    for name, ids in (("q_ids", q_ids), ("k_ids", k_ids)):
        check_array(name, ids, "integer")
        check_shape(name, ids, "b t", {})
    table, rows, columns = jnp.asarray(allow), jnp.asarray(q_ids), jnp.asarray(k_ids)

    def allowed(batch, head, i, j):
        row = rows[batch * (len(rows) > 1), i]
        return table[row, columns[batch * (len(columns) > 1), j]]

    return from_function(allowed)


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
        >>> padding(jnp.array([[True, True, False]])).dense(2, 3)[0, 0].astype(int).tolist()
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
