"""Which tiles of the logits a backend visits, and in what order."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jattn.attention.masks import FULL, PARTIAL, Mask


class ScheduleTables(NamedTuple):
    """For each block of one axis, the blocks of the other to visit: full ones first.

    order `[n, m]`; the first `full[n]` entries are full tiles, those up to `visited[n]` partial,
    the rest repeat the last one visited (a kernel then copies nothing in).
    """

    order: Array | np.ndarray
    full: Array | np.ndarray
    visited: Array | np.ndarray


def summarise(mask: Mask | None, t: int, s: int, block_q: int, block_k: int) -> Any:
    """EMPTY, PARTIAL or FULL for each tile `[n_q, n_k]`; a last short block of keys is PARTIAL.

    NumPy where the mask is known when the program is traced.
    """
    if mask is None:
        summary = np.full((-(-t // block_q), -(-s // block_k)), FULL, np.int8)
    else:
        summary = mask.tiles(t, s, block_q, block_k)
    if s % block_k:  # The last block of keys holds padding, to be masked away.
        xp = np if isinstance(summary, np.ndarray) else jnp
        last = np.arange(summary.shape[1]) == summary.shape[1] - 1
        summary = xp.where(last, xp.minimum(summary, PARTIAL), summary)
    return summary


class Known(NamedTuple):
    """A summary known when a program is traced, as a part of what the program is made for."""

    values: bytes
    rows: int

    def array(self) -> np.ndarray:
        """The summary, int8."""
        return np.frombuffer(self.values, np.int8).reshape(self.rows, -1)


def known_summary(mask: Mask | None, t: int, s: int, block_q: int, block_k: int) -> Known | None:
    """The summary, hashable; None where the mask is known at run time only."""
    summary = summarise(mask, t, s, block_q, block_k)
    if not isinstance(summary, np.ndarray):
        return None
    return Known(np.ascontiguousarray(summary, np.int8).tobytes(), len(summary))


def schedule_tables(summary: Any) -> ScheduleTables:
    """The tables of each row of a summary; those of each column are of `summary.T`."""
    xp: Any = np if isinstance(summary, np.ndarray) else jnp
    order = xp.argsort(-summary, axis=1, stable=True).astype("int32")
    full = (summary == FULL).sum(1).astype("int32")
    visited = full + (summary == PARTIAL).sum(1).astype("int32")
    last = xp.take_along_axis(order, xp.maximum(visited - 1, 0)[:, None], 1)
    order = xp.where(xp.arange(order.shape[1]) < visited[:, None], order, last)
    return ScheduleTables(order.astype("int32"), full, visited)
