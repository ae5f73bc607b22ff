"""Windows on grids of one axis or more: who sees whom, and which tiles of a kernel that visits."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jattn.attention.mask_types import STATIC, Mask, block_ends, summary


@dataclasses.dataclass(frozen=True)
class Axis:
    """A window along one axis of a grid, as generalized neighbourhood attention has it.

    With dilation n only coordinates that are equal modulo n meet; of those, queries of one stride
    share a window of `window` keys, centred on the stride's middle one and shifted at borders. A
    causal window ends with the query, and starts `window` keys before the end of its stride.

    Attributes:
        length: of the axis.
        window: keys in a window.
        stride: queries that share one.
        dilation: distance of neighbours.
        causal: see no later coordinate.
    """

    length: int
    window: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False

    def window_of(self, query: Any) -> tuple[Any, Any]:
        """The first and last key of queries' windows, in coordinates of their own dilation."""
        place = query // self.dilation
        last = (self.length - query % self.dilation + self.dilation - 1) // self.dilation - 1
        xp = np if isinstance(query, np.ndarray) else jnp
        start = place // self.stride * self.stride
        if self.causal:
            leader = xp.minimum(start + self.stride - 1, last)
            return xp.maximum(leader - self.window + 1, 0), place
        left = self.window // 2
        right = self.window - left - 1
        centre = xp.clip(xp.minimum(start + self.stride // 2, last), left, last - right)
        return centre - left, centre + right

    def allowed(self, query: Any, key: Any) -> Any:
        """Whether coordinates see each other, elementwise."""
        low, high = self.window_of(query)
        there = key // self.dilation
        same = key % self.dilation == query % self.dilation
        return same & (there >= low) & (there <= high)

    def tiles(self, q_tile: int, k_tile: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Which tiles are visited and which are full, `[q tiles, k tiles]`; and keys a query."""
        keys = np.arange(self.length)
        missing = -self.length % k_tile
        visited, full, seen = [], [], 0
        for start in range(0, self.length, q_tile):
            rows = np.arange(start, min(start + q_tile, self.length))
            values = self.allowed(rows[:, None], keys[None])
            seen += int(values.sum())
            # A key behind the end is seen by nobody, so its tile is never full.
            values = np.pad(values, ((0, 0), (0, missing))).reshape(len(rows), -1, k_tile)
            visited.append(values.any((0, 2)))
            full.append(values.all((0, 2)))
        return np.stack(visited), np.stack(full), seen / self.length


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Neighborhood(Mask):
    """Tokens are the cells of a grid; each sees the cells of its window along every axis.

    `order` is None where tokens are cells row by row, or the shape of boxes of which all cells
    follow each other. With `transposed`, keys see queries.
    """

    axes: tuple[Axis, ...] = dataclasses.field(metadata=STATIC)
    order: tuple[int, ...] | None = dataclasses.field(default=None, metadata=STATIC)
    transposed: bool = dataclasses.field(default=False, metadata=STATIC)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return tuple(axis.length for axis in self.axes)

    def allowed(self, q_index, k_index):
        if self.transposed:
            q_index, k_index = k_index, q_index
        cells = zip(self.axes, self._cells(q_index), self._cells(k_index), strict=True)
        return functools.reduce(jnp.logical_and, (axis.allowed(q, k) for axis, q, k in cells))

    def tiles(self, t, s, block_q, block_k):
        if self.transposed:
            return self.T.tiles(s, t, block_k, block_q).T
        some = every = np.ones(
            (len(block_ends(t, block_q)[0]), len(block_ends(s, block_k)[0])), bool
        )
        queries, keys = self._cells(np.arange(t)), self._cells(np.arange(s))
        for axis, q, k in zip(self.axes, queries, keys, strict=True):
            low, high, whole = _reach(axis)
            first, last = _extremes(k, k, block_k)
            lowest, highest = _extremes(low[q], high[q], block_q)
            some = some & (highest[:, None] >= first) & (lowest[:, None] <= last)
            latest, earliest = (-x for x in _extremes(-low[q], -high[q], block_q))
            every = every & whole & (latest[:, None] <= first) & (earliest[:, None] >= last)
        return summary(some, every)

    def fit(self, b, h, t, s):
        count = math.prod(self.shape)
        for name, length in (("t", t), ("s", s)):
            if length != count:
                raise ValueError(
                    f"mask: expected the {count} tokens of a grid of {self.shape}, got "
                    f"{name}={length}"
                )
        return self

    @property
    def T(self):
        return dataclasses.replace(self, transposed=not self.transposed)

    def _cells(self, index: Any) -> list[Any]:
        """Coordinates of tokens, an array for each axis of the grid."""
        if self.order is None:
            return _unravel(index, self.shape)
        inside = math.prod(self.order)
        boxes = [n // size for n, size in zip(self.shape, self.order, strict=True)]
        parts = zip(
            _unravel(index // inside, boxes), self.order, _unravel(index % inside, self.order),
            strict=True,
        )  # fmt: skip
        return [box * size + offset for box, size, offset in parts]


def tile_order(shape: Sequence[int], tile: Sequence[int]) -> Int[np.ndarray, " tokens"]:
    """The cells of a grid, box after box: indices, row by row, of the tokens in that order.

    Args:
        shape: of the grid, a multiple of the tile along every axis.
        tile: shape of a box.

    Raises:
        ValueError: a tile that does not divide the grid.

    Example:
        >>> tile_order((2, 4), (2, 2)).tolist()
        [0, 1, 4, 5, 2, 3, 6, 7]
    """
    if len(shape) != len(tile) or any(n % size for n, size in zip(shape, tile, strict=True)):
        raise ValueError(f"tile: expected one that divides {tuple(shape)}, got {tuple(tile)}")
    split = [part for n, size in zip(shape, tile, strict=True) for part in (n // size, size)]
    index = np.arange(math.prod(shape)).reshape(split)
    axes = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return index.transpose(axes).reshape(-1)


def _unravel(index: Any, shape: Sequence[int]) -> list[Any]:
    found = []
    for size in reversed(shape):
        found.append(index % size)
        index = index // size
    return found[::-1]


@functools.lru_cache(maxsize=64)
def _reach(axis: Axis) -> tuple[np.ndarray, np.ndarray, bool]:
    """The first and last key of each coordinate, and whether it sees all between them."""
    query = np.arange(axis.length)
    back = lambda x: x * axis.dilation + query % axis.dilation
    low, high = axis.window_of(query)
    return back(low), back(high), axis.dilation == 1


def _extremes(low: np.ndarray, high: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The least of one array and the most of another, in each block."""
    starts = np.arange(0, len(low), block)
    return np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
