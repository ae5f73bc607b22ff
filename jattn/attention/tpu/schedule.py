"""The order in which a kernel's grid meets the tiles of a mask, static or from tables."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jattn.attention.masks import FULL, PARTIAL, Mask, band
from jattn.attention.tiling import ScheduleTables, schedule_tables

LANES = 128
MOST_SORTS = 4  # Of partial tiles that get a program each.


class TileSchedule(NamedTuple):
    """How the blocks of one axis (rows) meet blocks of the other (columns), step by step.

    A band (causal, a window, no mask) is arithmetic on the row; other masks need tables, which a
    kernel gets as prefetched scalars. Hashable: it is part of a compiled program's name.

    Attributes:
        rows, columns: numbers of blocks.
        row_block, column_block: their lengths.
        steps: most columns that any row visits.
        band: bounds of column - row, None for no bound; or None where tables are needed.
        padded: "rows" or "columns" where the last block of that axis must be masked, else None.
        any_full, any_partial: whether such tiles can occur.
        full, partial: numbers of such tiles, for costs; known or the most there can be.
        offsets: for each sort of partial tile of a band, first key minus first query. A program
            for one sort knows which queries each key meets. Empty where there are too many sorts.
        transposed: whether rows are blocks of keys.
    """

    rows: int
    columns: int
    row_block: int
    column_block: int
    steps: int
    band: tuple[int | None, int | None] | None
    padded: str | None
    any_full: bool
    any_partial: bool
    full: int
    partial: int
    offsets: tuple[int, ...]
    transposed: bool

    def tile_at(self, row, step, tables: Any):
        """The column of a step; whether to visit it, whether to mask it, and its offset."""
        if self.band is None:
            order, full, visited = tables
            return order[row, step], step < visited[row], step >= full[row], None
        low, high = self.band
        # All conditions compare plain sums of grid indices: those, libtpu's estimates of a
        # program's cost can follow, while they count both sides of a condition on anything else.
        top, bottom = row * self.row_block, (row + 1) * self.row_block - 1
        wanted = step if low is None else self._column(row, low) + step
        left, right = wanted * self.column_block, (wanted + 1) * self.column_block - 1
        run = wanted < self.columns
        if low is not None:
            run &= wanted >= 0
        if high is not None:
            run &= left <= bottom + high
        column = jnp.clip(wanted, 0, self.columns - 1)
        if high is not None:  # Steps without a tile stay at the last one: nothing is copied in.
            last = self._column(row, self.row_block - 1 + high)
            column = jnp.minimum(column, jnp.maximum(last, 0))
        kinds = []
        if low is not None:
            kinds.append(left - bottom < low)
        if high is not None:
            kinds.append(right - top > high)
        if self.padded == "columns":
            kinds.append(wanted == self.columns - 1)
        if self.padded == "rows":
            kinds.append(row == self.rows - 1)
        masked = functools.reduce(jnp.logical_or, kinds) if kinds else jnp.asarray(False)
        offset = top - left if self.transposed else left - top
        return column, run, masked, offset

    def _column(self, row, distance: int):
        """The column that holds the index `distance` after the row's first; may be negative."""
        if self.row_block % self.column_block == 0:
            ratio = self.row_block // self.column_block
            return row * ratio + distance // self.column_block
        return (row * self.row_block + distance) // self.column_block

    def queries(self, offset: int | None, start: int, part: int) -> tuple[slice, slice]:
        """Which queries of a tile `part` keys from `start` on can meet, and which meet them all.

        In whole registers: the first may be too many, the second too few (or empty).
        """
        length = self.column_block if self.transposed else self.row_block
        if offset is None or self.band is None:
            return slice(0, length), slice(0, 0)
        low, high = self.band
        if self.transposed:
            low, high = (None if x is None else -x for x in (high, low))
        first, last = offset + start, offset + start + part - 1  # keys, counted from query 0
        seen, full = [0, length], [0, length]
        if high is not None:
            seen[0] = max(first - high, 0) // LANES * LANES
            full[0] = max(-(-(last - high) // LANES) * LANES, 0)
        if low is not None:
            seen[1] = min(-(-(last - low + 1) // LANES) * LANES, length)
            full[1] = min((first - low + 1) // LANES * LANES, length)
        if full[0] >= full[1]:
            full = [0, 0]
        return slice(*seen), slice(*full)


def _most_steps(counts: tuple[int, int], blocks: tuple[int, int], bounds) -> int:
    """Most steps of a row of a band, from its first column, which may lie before the array."""
    (rows, columns), (low, high) = counts, bounds
    top = np.arange(rows) * blocks[0]
    first = 0 * top if low is None else (top + low) // blocks[1]
    last = np.full(rows, columns - 1)
    if high is not None:
        last = np.minimum(last, (top + blocks[0] - 1 + high) // blocks[1])
    return max(int((last - first).max()) + 1, 1)


def schedule_rows(mask: Mask | None, summary: Any, blocks: tuple[int, int], s: int):
    """The schedule of each block of queries over blocks of keys, and its tables (or none)."""
    bounds = (None, None) if mask is None else band(mask)
    return _schedule(summary, blocks, bounds, s % blocks[1] > 0, False)


def schedule_columns(
    mask: Mask | None, summary: Any, blocks: tuple[int, int], s: int, q_start: int = 0
):
    """The schedule of each block of keys over blocks of queries, and its tables (or none).

    `summary` may be of a stretch of queries, which starts at `q_start`.
    """
    bounds = (None, None) if mask is None else band(mask)
    if bounds is not None:
        low, high = bounds
        bounds = (
            None if high is None else -high - q_start,
            None if low is None else -low - q_start,
        )
    return _schedule(summary.T, blocks[::-1], bounds, s % blocks[1] > 0, True)


def _schedule(
    summary, blocks, bounds, padded, transposed
) -> tuple[TileSchedule, ScheduleTables | tuple[()]]:
    tables = schedule_tables(summary)
    known = isinstance(summary, np.ndarray)
    full = int((summary == FULL).sum()) if known else 0
    partial = int((summary == PARTIAL).sum()) if known else summary.size
    steps = max(int(np.max(tables.visited)), 1) if known else summary.shape[1]
    if bounds is not None:
        steps = _most_steps(summary.shape, blocks, bounds)
    offsets: tuple[int, ...] = ()
    if known and bounds is not None and not padded:
        rows, columns = np.nonzero(summary == PARTIAL)
        apart = columns * blocks[1] - rows * blocks[0]
        offsets = tuple(int(x) for x in np.unique(-apart if transposed else apart))
    schedule = TileSchedule(
        rows=summary.shape[0],
        columns=summary.shape[1],
        row_block=blocks[0],
        column_block=blocks[1],
        steps=steps,
        band=bounds,
        padded=("rows" if transposed else "columns") if padded else None,
        any_full=not known or full > 0,
        any_partial=not known or partial > 0,
        full=full,
        partial=partial,
        offsets=offsets if len(offsets) <= MOST_SORTS else (),
        transposed=transposed,
    )
    return schedule, () if bounds is not None else tables._replace(order=tables.order[:, :steps])
