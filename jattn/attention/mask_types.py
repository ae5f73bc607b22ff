"""What masks are made of: one class a shape, all of them pytrees; `jattn.masks` makes them.

Every leaf has four axes that broadcast against `[b, h, t, s]`, so a tile of a mask is the same mask
over the tiles of its leaves: backends, kernels too, cut those and call `allowed`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from jattn.attention.logits_operands import as_logits_operand, pad_logits_operand, slice_tile
from jattn.checks import check_array, check_shape, said

EMPTY, PARTIAL, FULL = 0, 1, 2

# Indices and bounds stay below this, so that no sum of two of them leaves 32 bits.
FARTHEST = 2**30

Index = int | Int[Array, ""]


class Mask:
    """Base of all masks. `True` means: this query may attend to this key."""

    # NumPy then leaves `array & mask` to the mask.
    __array_ufunc__ = None

    def allowed(self, q_index: Array, k_index: Array) -> Array:
        """The values at these indices, elementwise; the leaves are those at these indices.

        Indices are integers that broadcast against each other and against the leaves.
        """
        raise NotImplementedError

    def tile(
        self, q_start: Index, k_start: Index, block_q: int, block_k: int
    ) -> Bool[Array, "..."]:
        """Values of the tile at (q_start, k_start), `[#b, #h, block_q, block_k]`."""
        corner = (q_start, k_start, block_q, block_k)
        part = jax.tree.map(lambda leaf: slice_tile(jnp.asarray(leaf), *corner), self)
        q_index = (q_start + jnp.arange(block_q, dtype=jnp.int32))[None, None, :, None]
        k_index = (k_start + jnp.arange(block_k, dtype=jnp.int32))[None, None, None]
        values = part.allowed(q_index, k_index)
        return jnp.broadcast_to(values, (*values.shape[:2], block_q, block_k))

    def tiles(self, t: int, s: int, block_q: int, block_k: int) -> Any:
        """EMPTY, PARTIAL or FULL for each tile, int8 `[ceil(t/block_q), ceil(s/block_k)]`.

        NumPy where the mask's arrays are concrete, a traced array otherwise. A tile counts as
        empty or full only if it is so for every batch entry and head.
        """
        raise NotImplementedError

    def fit(self, b: int, h: int, t: int, s: int) -> "Mask":
        """The mask for these sizes: masks counted from the end are counted from the start.

        Raises:
            ValueError: its arrays do not fit these sizes.
        """
        return self

    def pad(self, t: int, s: int) -> "Mask":
        """The same mask with its arrays grown to lengths t and s; the new values mean nothing."""
        return jax.tree.map(lambda leaf: pad_logits_operand(jnp.asarray(leaf), t, s), self)

    @property
    def T(self) -> "Mask":
        """The mask with the parts of queries and keys exchanged."""
        raise NotImplementedError

    def dense(self, t: int, s: int) -> Bool[Array, "..."]:
        """All values at once, `[#b, #h, t, s]`."""
        return self.fit(-1, -1, t, s).tile(0, 0, t, s)

    def __and__(self, other: "Mask | Array") -> "Mask":
        return Pair(self, as_mask(other), union=False)

    def __or__(self, other: "Mask | Array") -> "Mask":
        return Pair(self, as_mask(other), union=True)

    def __rand__(self, other: "Mask | Array") -> "Mask":
        return Pair(as_mask(other), self, union=False)

    def __ror__(self, other: "Mask | Array") -> "Mask":
        return Pair(as_mask(other), self, union=True)

    def __invert__(self) -> "Mask":
        return Not(self)

    def __bool__(self) -> bool:
        raise ValueError(
            "mask: a mask has no truth value, so `and`, `or` and `not` would drop one; "
            "combine masks with &, | and ~"
        )


MaskLike = Mask | Bool[Array | np.ndarray, "..."] | Callable[..., Any]


def as_mask(mask: Any) -> Mask:
    """A mask as it is, a bool array by its values, a function of four indices by what it says.

    Raises:
        ValueError: it is none of these; one line says what came.
    """
    if isinstance(mask, Mask):
        return mask
    if callable(mask):
        if str(getattr(mask, "__module__", None)).startswith("jattn.attention."):
            name = getattr(mask, "__name__", type(mask).__name__)
            raise ValueError(f"mask: expected a Mask, got the function that makes it: {name}(...)")
        from jattn.attention.mask_function import from_function

        return from_function(mask)
    if not isinstance(mask, jax.Array | np.ndarray | np.generic):
        raise ValueError(
            "mask: expected a Mask, a bool array or a function (batch, head, q_index, k_index) -> "
            f"bool, got {said(mask)}"
        )
    return from_array(mask)


def from_array(array: Any) -> Mask:
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
    check_array("mask", array, "bool")
    if array.ndim > 4:
        raise ValueError(
            f"mask: expected an array broadcastable to [b, h, t, s], got shape {list(array.shape)}"
        )
    return Values(plane(array, (1,) * (4 - array.ndim) + array.shape))


STATIC = {"static": True}  # Fields of the tree's structure; the other fields are its leaves.


def plane(array: Any, shape: tuple[Any, ...]) -> Any:
    """Reshapes; in NumPy what is known when the program is traced, for summaries made there."""
    xp = np if known(array) else jnp
    return xp.reshape(xp.asarray(array), shape)


def known(*arrays: Any) -> bool:
    """Whether the values are there when a program is traced."""
    return not any(isinstance(array, Tracer) for array in arrays)


def near(x: int) -> int:
    """Within reach of any index; beyond it, bounds all mean the same."""
    return min(max(x, -FARTHEST), FARTHEST)


def exact_integers(name: str, value: Any) -> Any:
    """Exact 32-bit integers, in NumPy where they are known; far ones are brought within reach."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = np.asarray(near(value), np.int32)
    check_array(name, value, "integer")
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    xp = np if known(array) else jnp
    kind = jnp.iinfo(array.dtype)
    low, high = max(-FARTHEST, int(kind.min)), min(FARTHEST, int(kind.max))
    return xp.clip(xp.asarray(array), low, high).astype(xp.int32)


def block_ends(length: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last index of every block of an axis; the last block may be short."""
    first = np.arange(0, length, block)
    return first, np.minimum(first + block, length) - 1


def summary(any_allowed: Any, all_allowed: Any) -> Any:
    """From two bool arrays (or cautious bounds: too many True, too few True) to the summary."""
    return any_allowed.astype("int8") + all_allowed.astype("int8")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Band(Mask):
    """low <= j - i <= high; None is no bound.

    `offset` is how far queries are ahead of their index, as the caller said; the bounds have it in
    them. With `from_end`, s - t more is to be added to all three.
    """

    low: int | None = dataclasses.field(metadata=STATIC)
    high: int | None = dataclasses.field(metadata=STATIC)
    offset: int = dataclasses.field(default=0, metadata=STATIC)
    from_end: bool = dataclasses.field(default=False, metadata=STATIC)

    def allowed(self, q_index, k_index):
        bounds = []
        if self.low is not None:
            bounds.append(k_index >= q_index + self.low)
        if self.high is not None:
            bounds.append(k_index <= q_index + self.high)
        return functools.reduce(jnp.logical_and, bounds)

    def tiles(self, t, s, block_q, block_k):
        (q_first, q_last), (k_first, k_last) = block_ends(t, block_q), block_ends(s, block_k)
        least, most = k_first - q_last[:, None], k_last - q_first[:, None]
        low = -t - s if self.low is None else self.low
        high = t + s if self.high is None else self.high
        return summary((most >= low) & (least <= high), (least >= low) & (most <= high))

    def fit(self, b, h, t, s):
        if not self.from_end:
            return self
        low, high = (None if x is None else x + s - t for x in (self.low, self.high))
        return Band(low, high, self.offset + s - t)

    @property
    def T(self):
        low, high = (None if x is None else -x for x in (self.high, self.low))
        return Band(low, high, -self.offset, self.from_end)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ShiftedBand(Mask):
    """low <= j - i - offset <= high, with an offset `[#b, 1, 1, 1]` known at run time."""

    offset: Any
    low: int | None = dataclasses.field(metadata=STATIC)
    high: int | None = dataclasses.field(metadata=STATIC)

    def allowed(self, q_index, k_index):
        return Band(self.low, self.high).allowed(q_index + self.offset, k_index)

    def tiles(self, t, s, block_q, block_k):
        (q_first, q_last), (k_first, k_last) = block_ends(t, block_q), block_ends(s, block_k)
        xp = np if known(self.offset) else jnp
        shift = xp.reshape(xp.asarray(self.offset), (-1, 1, 1))
        least, most = k_first - q_last[:, None] - shift, k_last - q_first[:, None] - shift
        some, every = most == most, most == most
        if self.low is not None:
            some, every = some & (most >= self.low), every & (least >= self.low)
        if self.high is not None:
            some, every = some & (least <= self.high), every & (most <= self.high)
        return summary(some.any(0), every.all(0))

    def fit(self, b, h, t, s):
        if b >= 0 and self.offset.shape[0] > 1:
            check_shape("mask (offset)", self.offset[:, 0, 0, 0], "b", {"b": b})
        return self

    @property
    def T(self):
        low, high = (None if x is None else -x for x in (self.high, self.low))
        return ShiftedBand(-self.offset, low, high)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix(Mask):
    """The index along `axis` (-1 keys, -2 queries) is below `length`, `[#b, 1, 1, 1]`."""

    length: Any
    axis: int = dataclasses.field(metadata=STATIC)

    def allowed(self, q_index, k_index):
        return (k_index if self.axis == -1 else q_index) < self.length

    def tiles(self, t, s, block_q, block_k):
        length = np.asarray(self.length) if known(self.length) else jnp.asarray(self.length)
        first, last = block_ends(s, block_k) if self.axis == -1 else block_ends(t, block_q)
        line = summary(first < length.max(initial=0), last < length.min(initial=FARTHEST))
        shape = (-(-t // block_q), -(-s // block_k))
        xp = np if known(self.length) else jnp
        return xp.broadcast_to(line if self.axis == -1 else line[:, None], shape)

    def fit(self, b, h, t, s):
        if b >= 0 and self.length.shape[0] > 1:
            check_shape("mask (prefix length)", self.length[:, 0, 0, 0], "b", {"b": b})
        return self

    @property
    def T(self):
        return Prefix(self.length, -3 - self.axis)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockDiagonal(Mask):
    """i // size == j // size."""

    size: int = dataclasses.field(metadata=STATIC)

    def allowed(self, q_index, k_index):
        return q_index // self.size == k_index // self.size

    def tiles(self, t, s, block_q, block_k):
        q_low, q_high = (x[:, None] // self.size for x in block_ends(t, block_q))
        k_low, k_high = (x // self.size for x in block_ends(s, block_k))
        meet = (q_low <= k_high) & (k_low <= q_high)
        return summary(meet, meet & (q_low == q_high) & (k_low == k_high))

    @property
    def T(self):
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Values(Mask):
    """An array `[#b, #h, #t, #s]`."""

    values: Any

    def allowed(self, q_index, k_index):
        return self.values

    def tiles(self, t, s, block_q, block_k):
        xp = np if known(self.values) else jnp
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

        return summary(blocked(False).any((0, 1, 3, 5)), blocked(True).all((0, 1, 3, 5)))

    def fit(self, b, h, t, s):
        own = self.values.shape
        sizes = [size if size >= 0 else now for size, now in zip((b, h, t, s), own, strict=True)]
        as_logits_operand("mask", self.values, *sizes)
        return self

    @property
    def T(self):
        return Values(self.values.swapaxes(2, 3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Padding(Values):
    """Values `[b, 1, 1, s]` that tell real tokens from padding."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pair(Mask):
    """left | right where `union`, else left & right."""

    left: Any
    right: Any
    union: bool = dataclasses.field(metadata=STATIC)

    def allowed(self, q_index, k_index):
        left, right = (part.allowed(q_index, k_index) for part in (self.left, self.right))
        return left | right if self.union else left & right

    def tile(self, *corner):
        left, right = self.left.tile(*corner), self.right.tile(*corner)
        return left | right if self.union else left & right

    def pad(self, *lengths):
        return Pair(self.left.pad(*lengths), self.right.pad(*lengths), self.union)

    def tiles(self, *grid):
        left, right = self.left.tiles(*grid), self.right.tiles(*grid)
        xp = np if known(left, right) else jnp
        return xp.maximum(left, right) if self.union else xp.minimum(left, right)

    def fit(self, *sizes):
        return Pair(self.left.fit(*sizes), self.right.fit(*sizes), self.union)

    @property
    def T(self):
        return Pair(self.left.T, self.right.T, self.union)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Not(Mask):
    """What the mask does not allow."""

    mask: Any

    def allowed(self, q_index, k_index):
        # Not `~`, which Mosaic cannot lower for bools in a GPU kernel.
        return jnp.logical_xor(self.mask.allowed(q_index, k_index), True)

    def tile(self, *corner):
        return jnp.logical_xor(self.mask.tile(*corner), True)

    def pad(self, *lengths):
        return Not(self.mask.pad(*lengths))

    def tiles(self, *grid):
        return 2 - self.mask.tiles(*grid)

    def fit(self, *sizes):
        return Not(self.mask.fit(*sizes))

    @property
    def T(self):
        return Not(self.mask.T)


def parts(mask: Mask) -> list[Mask]:
    """The masks that a mask is combined of."""
    if isinstance(mask, Pair):
        return parts(mask.left) + parts(mask.right)
    return parts(mask.mask) if isinstance(mask, Not) else [mask]
