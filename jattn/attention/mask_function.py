"""A mask given by a function of batch entry, head, query and key."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jattn.attention.mask_types import STATIC, Mask, block_ends, known, summary
from jattn.attention.scalar_functions import INDEX, ScalarFunction, nested, trace

LOOKUPS = ("gather", "dynamic_slice", "sort", "cumsum", "scan", "while", "dot_general")


def from_function(function: Callable[..., Any]) -> Mask:
    """A mask as a function of four indices, as for `jax.vmap` written for scalars.

    Arrays that it closes over are looked up by index, as in `document[b, i] == document[b, j]`,
    and may be traced. Which tiles can be skipped is found by evaluating the function for all pairs,
    O(t s) operations but O(t + s) memory, once for each function that looks nothing up. Kernels
    take functions without look-ups. Where a shape of `jattn.masks` says the same, it is cheaper.

    Args:
        function: `(batch, head, q_index, k_index) -> bool`, int32 scalars to one bool; True = may
            attend.

    Returns:
        A `Mask`.

    Raises:
        ValueError: the function does not return one bool.

    Example:
        >>> from_function(lambda b, h, i, j: i >= j).dense(3, 3)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    traced, closed_over = trace("mask", function, *[INDEX] * 4)
    dtype = traced.jaxpr.outvars[0].aval.dtype
    if dtype != jnp.bool_:
        raise ValueError(f"mask: expected a function that returns a bool, got {dtype}")
    zero = np.zeros((1, 1, 1, 1), np.int32)
    return FunctionMask(zero, zero, tuple(closed_over), traced)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FunctionMask(Mask):
    """What a function says; see `from_function`.

    `batch` `[#b, 1, 1, 1]` and `head` `[1, #h, 1, 1]` are indices. What the function closes over
    has any shape, and is not cut where leaves of other masks are.
    """

    batch: Any
    head: Any
    closed_over: tuple[Any, ...]
    function: ScalarFunction = dataclasses.field(metadata=STATIC)

    def allowed(self, q_index, k_index):
        return self.function.function(self.batch, self.head, q_index, k_index)

    def tile(self, q_start, k_start, block_q, block_k):
        return self.function.over_tile(
            self.closed_over,
            q_start + jnp.arange(block_q, dtype=jnp.int32),
            k_start + jnp.arange(block_k, dtype=jnp.int32),
            jnp.asarray(self.batch)[:, 0, 0, 0],
            jnp.asarray(self.head)[0, :, 0, 0],
        )

    def tiles(self, t, s, block_q, block_k):
        grid = (t, s, block_q, block_k)
        if not self.closed_over and known(self.batch, self.head):
            return _tiles(self.function, len(self.batch), self.head.shape[1], grid)
        if known(self.batch, self.head, *self.closed_over):
            with jax.ensure_compile_time_eval():
                return np.asarray(_evaluate(self, grid))
        return _evaluate(self, grid)

    def fit(self, b, h, t, s):
        jaxpr = self.function.jaxpr
        inputs = [v for e in jaxpr.eqns for v in e.invars] + list(jaxpr.outvars)
        used = {v for v in inputs if not isinstance(v, Literal)}
        indices = []
        for size, own, variable in zip(
            (b, h), (self.batch, self.head), jaxpr.invars[:2], strict=True
        ):
            count = size if variable in used else 1
            indices.append(own if size < 0 else np.arange(count, dtype=np.int32))
        batch, head = indices
        return dataclasses.replace(
            self, batch=batch.reshape(-1, 1, 1, 1), head=head.reshape(1, -1, 1, 1)
        )

    def pad(self, t, s):
        return self

    @property
    def T(self):
        function = self.function.function
        return from_function(lambda b, h, i, j: function(b, h, j, i))

    def lookups(self) -> str | None:
        """Why no kernel can evaluate it tile by tile, or None."""
        names = {e.primitive.name for e in nested(self.function.jaxpr.eqns)} & set(LOOKUPS)
        if self.closed_over or names:
            return "its mask is a function that looks something up"
        return None


@functools.lru_cache(maxsize=64)
def _tiles(function: ScalarFunction, b: int, h: int, grid: tuple[int, ...]) -> np.ndarray:
    """Of a function that closes over nothing: evaluated when a program is traced, once."""
    batch, head = np.arange(b, dtype=np.int32), np.arange(h, dtype=np.int32)
    mask = FunctionMask(batch.reshape(-1, 1, 1, 1), head.reshape(1, -1, 1, 1), (), function)
    with jax.ensure_compile_time_eval():
        return np.asarray(_evaluate(mask, grid))


def _evaluate(mask: FunctionMask, grid: tuple[int, ...]) -> Any:
    """The summary of all tiles, one row of them at a time."""
    t, s, block_q, block_k = grid
    rows, columns = len(block_ends(t, block_q)[0]), len(block_ends(s, block_k)[0])
    if rows == 0 or columns == 0:
        return jnp.zeros((rows, columns), jnp.int8)

    def row(i):
        values = mask.tile(i * block_q, 0, block_q, columns * block_k)
        real = (i * block_q + jnp.arange(block_q) < t)[:, None]
        real = real & (jnp.arange(columns * block_k) < s)

        def over(values, reduce):
            values = values.reshape(*values.shape[:3], columns, block_k)
            return reduce(values, axis=(0, 1, 2, 4))

        return summary(over(values & real, jnp.any), over(values | ~real, jnp.all))

    return jax.lax.map(row, jnp.arange(rows, dtype=jnp.int32))
