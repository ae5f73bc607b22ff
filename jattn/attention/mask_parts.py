"""What a mask says of tokens: which are real, whose document they are of, how many keys are seen.

`attend` needs only values of tiles. What looks at tokens in another way (a recurrence, a short
convolution, a score that depends on the number of keys) asks here.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from jattn.attention import masks
from jattn.attention.mask_types import Mask, Padding, Pair, Prefix, Values
from jattn.attention.token_masks import Segments

COUNTED_AT_ONCE = 1 << 20  # values of a mask that are looked at together


class Layout(NamedTuple):
    """A mask taken apart.

    Attributes:
        real: which keys are tokens, `[#b, s]`; None: all are.
        ends: whether it is certain that padding comes after all real tokens.
        documents: the number of the document of each token, `[b, s]`; None: there is one.
        causal: whether keys after the query are hidden.
        rest: the parts of the mask that say something else.
    """

    real: Bool[Array, "#b s"] | None
    ends: bool
    documents: Int[Array, "b s"] | None
    causal: bool
    rest: tuple[Mask, ...]


def layout(mask: Mask | None, length: int) -> Layout:
    """What a mask says of the tokens of one sequence that looks at itself.

    Args:
        mask: any; None hides nothing.
        length: s.

    Example:
        >>> found = layout(masks.causal() & masks.prefix(2), 3)
        >>> found.real.tolist(), found.ends, found.causal, found.rest
        ([[True, True, False]], True, True, ())
    """
    real, ends, documents, causal, rest = None, True, None, False, []
    for part in conjuncts(mask):
        if isinstance(part, Padding | Prefix) and is_of_keys(part):
            there = part.dense(1, length)[:, 0, 0]
            real = there if real is None else real & there
            ends = ends and not isinstance(part, Padding)
        elif isinstance(part, Segments) and part.one_row and documents is None:
            documents = jnp.asarray(part.k_ids)[:, 0, 0]
        elif masks.band(part) == (None, 0):
            causal = True
        else:
            rest.append(part)
    return Layout(real, ends, documents, causal, tuple(rest))


def conjuncts(mask: Mask | None) -> list[Mask]:
    """The masks that are joined by `&`."""
    if mask is None:
        return []
    if isinstance(mask, Pair) and not mask.union:
        return conjuncts(mask.left) + conjuncts(mask.right)
    return [mask]


def is_of_keys(mask: Mask) -> bool:
    """Whether a mask hides the same keys from all queries and heads."""
    if isinstance(mask, Prefix):
        return mask.axis == -1
    return isinstance(mask, Values) and mask.values.shape[1:3] == (1, 1)


def count_visible(mask: Mask | None, t: int, s: int) -> Int[Array, "#b #h t"]:
    """How many keys each query may see.

    From sums along the keys for bands and padding; for other masks from their values, a few rows
    at a time: t s operations, though never as many numbers.

    Args:
        mask: any; None hides nothing.
        t: queries.
        s: keys.

    Example:
        >>> count_visible(masks.causal() & masks.prefix(2), 4, 3).tolist()
        [[[1, 2, 2, 2]]]
        >>> count_visible(masks.segments(jnp.array([[0, 0, 1]])), 3, 3).tolist()
        [[[2, 2, 1]]]
    """
    mask = None if mask is None else mask.fit(-1, -1, t, s)
    parts = conjuncts(mask)
    bands = [part for part in parts if masks.band(part) is not None]
    of_keys = [part for part in parts if is_of_keys(part)]
    if mask is not None and len(bands) + len(of_keys) < len(parts):
        return _count_values(mask, t, s)
    first: Any = jnp.zeros(t, jnp.int32)
    end: Any = jnp.full(t, s, jnp.int32)
    for low, high in map(masks.band, bands):  # type: ignore[misc]
        first = first if low is None else jnp.maximum(first, jnp.arange(t) + low)
        end = end if high is None else jnp.minimum(end, jnp.arange(t) + high + 1)
    first, end = jnp.clip(first, 0, s), jnp.clip(end, 0, s)
    if not of_keys:
        return jnp.maximum(end - first, 0)[None, None]
    real: Any = True
    for part in of_keys:
        real = real & part.dense(1, s)
    before = jnp.pad(jnp.cumsum(real, -1, dtype=jnp.int32), ((0, 0), (0, 0), (0, 0), (1, 0)))
    return jnp.maximum(before[:, :, 0, end] - before[:, :, 0, first], 0)


def _count_values(mask: Mask, t: int, s: int) -> Int[Array, "#b #h t"]:
    rows = min(t, max(1, COUNTED_AT_ONCE // max(s, 1)))
    blocks = -(-t // rows)
    mask = mask.pad(blocks * rows, s)
    count = lambda start: mask.tile(start, 0, rows, s).sum(-1, dtype=jnp.int32)
    if blocks == 1:
        return count(0)[..., :t]
    found = lax.map(count, rows * jnp.arange(blocks))
    return jnp.moveaxis(found, 0, 2).reshape(*found.shape[1:3], -1)[..., :t]
