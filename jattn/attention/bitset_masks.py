"""Masks by tables that are found at run time: which blocks, or which segments, may meet.

Every query has a set of cells, as bits of a few words, and every key lies in one cell. Words lie
along queries and cells along keys, so kernels cut them as the arrays of any mask, hold no `[t, s]`,
and look nothing up; which tiles are skipped is found from the sets.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer

from jattn.attention.mask_function import from_function
from jattn.attention.mask_types import Mask, Prefix, block_ends, known, summary
from jattn.checks import check_array, check_count, check_shape

BITS = 32
BIT = (1 << np.arange(BITS, dtype=np.uint64)).astype(np.uint32).view(np.int32)
MOST_WORDS = 64  # A tile's values take a step for each.

Arrays = Array | np.ndarray


def blocks(table: Bool[Arrays, "#b #h q k"], block_q: int, block_k: int) -> Mask:
    """Query i may attend to key j where `table[b, h, i // block_q, j // block_k]`.

    The table may be found at run time: shapes do not depend on it, so nothing is compiled anew.

    Args:
        table: True = that block of queries sees that block of keys; one for all batch entries or
            heads, or one for each. Behind its last block nothing is seen, and nothing sees.
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
    if columns > MOST_WORDS * BITS:

        def allowed(batch, head, i, j):
            # Behind the last block there is none: look-ups would find the last again.
            inside = (i // block_q < rows) & (j // block_k < columns)
            found = table[batch * (b > 1), head * (h > 1), i // block_q, j // block_k]
            return found & inside

        return from_function(allowed)
    xp = np if known(table) else jnp
    words = tuple(xp.repeat(word[..., None], block_q, axis=2) for word in _words(table))
    cells = np.arange(columns * block_k, dtype=np.int32) // block_k
    return Bitset(words, cells[None, None, None])


def segment_table(
    allow: Bool[Arrays, "n n"],
    q_ids: Integer[Arrays, "#b t"],
    k_ids: Integer[Arrays, "#b s"] | None = None,
) -> Mask:
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
    xp = np if known(allow, q_ids, k_ids) else jnp
    rows = xp.clip(xp.asarray(q_ids), 0, len(allow) - 1)
    columns = xp.clip(xp.asarray(k_ids), 0, len(allow) - 1).astype(xp.int32)
    if len(allow) > MOST_WORDS * BITS:
        table = jnp.asarray(allow)

        def allowed(batch, head, i, j):
            row = jnp.asarray(rows)[batch * (len(rows) > 1), i]
            return table[row, jnp.asarray(columns)[batch * (len(columns) > 1), j]]

        return from_function(allowed)
    words = tuple(xp.asarray(word)[rows][:, None, :, None] for word in _words(allow))
    return Bitset(words, columns[:, None, None])


def _words(table: Any) -> list[Any]:
    """The last axis of a table as bits of 32-bit words, an array for each word of a row."""
    xp = np if known(table) else jnp
    count = -(-table.shape[-1] // BITS)
    grow = [(0, 0)] * (table.ndim - 1) + [(0, count * BITS - table.shape[-1])]
    bits = xp.pad(xp.asarray(table), grow).reshape(*table.shape[:-1], count, BITS)
    words = xp.where(bits, BIT, 0).sum(-1).astype(xp.int32)
    return [words[..., i] for i in range(count)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bitset(Mask):
    """Whether the bit of the key's cell is set in the query's words.

    `words`, each `[#b, #h, t, 1]`, and `cells` `[#b, #h, 1, s]`; or both the other way round.
    """

    words: tuple[Any, ...]
    cells: Any

    def allowed(self, q_index, k_index):
        number, chosen = self.cells // BITS, self.words[0]
        for index, word in enumerate(self.words[1:], 1):
            chosen = jnp.where(number == index, word, chosen)
        found = (chosen >> (self.cells % BITS)) & 1
        return found != 0

    @property
    def _along_keys(self) -> bool:
        """Whether words lie along keys."""
        return self.words[0].shape[3] > 1 or self.cells.shape[2] > 1

    def tiles(self, t, s, block_q, block_k):
        if self._along_keys:
            return self.T.tiles(s, t, block_k, block_q).T
        xp = np if known(*self.words, self.cells) else jnp
        words = xp.concatenate([xp.asarray(word) for word in self.words], 3)  # [#b, #h, t, w]
        some, every = (_folded(words, t, block_q, xp, which) for which in ("or", "and"))
        number = xp.arange(len(self.words), dtype=xp.int32)
        cells = xp.asarray(self.cells)[:, :, 0, :, None]
        own = xp.where(cells // BITS == number, xp.asarray(BIT)[cells % BITS], 0)
        held = _folded(own, s, block_k, xp, "or")[:, :, None]  # [#b, #h, 1, columns, w]
        meets = (some[:, :, :, None] & held) != 0
        covers = (every[:, :, :, None] & held) == held
        return summary(meets.any((0, 1, 4)), covers.all((0, 1, 4)))

    def fit(self, b, h, t, s):
        if self._along_keys:
            return self.T.fit(b, h, s, t).T

        def to(array, axis, length):
            short = length - array.shape[axis]
            if array.shape[axis] == length or length < 0:
                return array
            xp = np if known(array) else jnp
            grow = [(0, 0)] * 4
            grow[axis] = (0, max(short, 0))
            return xp.pad(array, grow)[:, :, : t if axis == 2 else None, : s if axis == 3 else None]

        keys = self.cells.shape[3]
        fitted = Bitset(tuple(to(word, 2, t) for word in self.words), to(self.cells, 3, s))
        for array in (*fitted.words, fitted.cells):
            sizes = zip((b, h), array.shape, strict=False)
            if any(size >= 0 and own not in (1, size) for size, own in sizes):
                raise ValueError(
                    f"mask: expected a table of 1 or b={b} batch entries and 1 or h={h} heads, "
                    f"got {list(array.shape[:2])}"
                )
        return fitted if keys >= s else fitted & Prefix(np.full((1, 1, 1, 1), keys, np.int32), -1)

    @property
    def T(self):
        turned = lambda x: x.swapaxes(2, 3)
        return Bitset(tuple(map(turned, self.words)), turned(self.cells))


def _folded(words: Any, length: int, block: int, xp: Any, which: str) -> Any:
    """Words of a block's tokens joined bit by bit: `[b, h, length, w]` to `[b, h, blocks, w]`."""
    count = len(block_ends(length, block)[0])
    rest = [(0, 0), (0, 0), (0, count * block - length), (0, 0)]
    # What is not there takes nothing away.
    padded = xp.pad(words[:, :, :length], rest, constant_values=0 if which == "or" else -1)
    padded = padded.reshape(*words.shape[:2], count, block, words.shape[3])
    join = xp.bitwise_or if which == "or" else xp.bitwise_and
    return join.reduce(padded, axis=3)
