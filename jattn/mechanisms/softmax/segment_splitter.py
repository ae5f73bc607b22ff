"""Learned segments of a sequence, and how probably each of their tokens exists (arXiv 2601.21768).

    bos_l = sigmoid(logit_l), between 1e-4 and 1 - 1e-4        a segment begins at token l
    p_k   = prod_{l = s+1 .. k} (1 - bos_l),  p_s = 1          the one from s reaches token k
    share = p / (sum of p over all segments that hold the token + 1e-10)

Where segments begin is drawn, but how far they reach stays a probability: what is computed from a
segment with `probabilistic_attention` has a gradient to every bos, which so learns where to cut.

`stitch` puts together segments that were cut from a sequence, so where they overlap is known. The
paper's stitcher also joins segments that were generated, and infers that: it is not here.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_shape

LEAST = 1e-4  # bos stays this far from 0 and 1
TINY = 1e-10  # a token that no segment reaches has share 0 / TINY


class Segments(NamedTuple):
    """Segments cut out of sequences.

    Attributes:
        index: of each token in its sequence, `[b, n, l]`; t where there is none.
        existence: p, `[b, n, l]`; 0 where there is no token.
    """

    index: Int[Array, "b n l"]
    existence: Float[Array, "b n l"]


def initial_bias(max_length: int) -> float:
    """The logit of 2 / max_length, with which segments begin about twice as often as they must.

    Example:
        >>> round(1 / (1 + math.exp(-initial_bias(20))), 6)
        0.1
    """
    if max_length < 3:
        raise ValueError(f"max_length: expected at least 3, got {max_length}")
    return -math.log(max_length / 2 - 1)


def beginning_probabilities(
    logits: Float[Array, "*batch t"], mask: Bool[Array, "*batch t"] | None = None
) -> Float[Array, "*batch t"]:
    """bos, the probability that a segment begins at each token.

    Args:
        logits: `[..., t]`.
        mask: True = a real token; at others no segment begins.

    Returns:
        `[..., t]` in float32 (float64), between 1e-4 and 1 - 1e-4, or 0 where masked.

    Reference:
        arXiv 2601.21768.

    Example:
        >>> beginning_probabilities(jnp.array([0.0, -50.0])).tolist()
        [0.5, 9.999999747378752e-05]
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    bos = jnp.clip(jax.nn.sigmoid(logits), LEAST, 1 - LEAST)
    return bos if mask is None else jnp.where(mask, bos, 0)


def existence_probabilities(bos: Float[Array, "*batch t"]) -> Float[Array, "*batch t"]:
    """p_k = prod_{l = 1 .. k} (1 - bos_l): a segment that begins at token 0 reaches token k.

    Args:
        bos: in [0, 1], `[..., t]`; the first one is not looked at. 0 and 1 cut exactly.

    Returns:
        `[..., t]`, from 1 downwards.

    Reference:
        arXiv 2601.21768.

    Example:
        >>> existence_probabilities(jnp.array([0.3, 0.0, 0.5, 1.0, 0.5])).tolist()
        [1.0, 1.0, 0.5, 0.0, 0.0]
    """
    first = jnp.arange(bos.shape[-1]) == 0
    # A product and not the exponential of a sum of logarithms: bos = 1 has a gradient, too.
    return jnp.cumprod(jnp.where(first, 1, 1 - bos), axis=-1)


def segment_starts(
    bos: Float[Array, "b t"], *, max_length: int, key: jax.Array | None = None
) -> Bool[Array, "b t"]:
    """Marks where segments begin: at token 0, where bos says so, and max_length after the last.

    Args:
        bos: `[b, t]`.
        max_length: tokens that a segment may have before the next one must begin.
        key: of the draws; None begins a segment where bos > 1/2.

    Returns:
        `[b, t]`.

    Raises:
        ValueError: max_length is not positive.

    Reference:
        arXiv 2601.21768.

    Example:
        >>> bos = jnp.array([[0.0, 0.0, 0.0, 0.9, 0.0, 0.0]])
        >>> segment_starts(bos, max_length=2).astype(int).tolist()
        [[1, 0, 1, 1, 0, 1]]
    """
    check_shape("bos", bos, "b t", {})
    if max_length < 1:
        raise ValueError(f"max_length: expected at least 1, got {max_length}")
    level = 0.5 if key is None else jax.random.uniform(key, bos.shape, bos.dtype)
    drawn = (level < bos) | (jnp.arange(bos.shape[1]) == 0)

    def step(since, drawn):
        begins = drawn | (since >= max_length)
        return jnp.where(begins, 1, since + 1), begins

    since = jnp.zeros(bos.shape[0], jnp.int32)
    return jax.lax.scan(step, since, drawn.T)[1].T


def cut(
    bos: Float[Array, "b t"], starts: Bool[Array, "b t"], *, length: int, count: int
) -> Segments:
    """The first `count` segments of each sequence, as windows of `length` tokens.

    They overlap: a segment ends only as surely as bos says. Fewer starts leave empty segments.

    Args:
        bos: `[b, t]`.
        starts: as `segment_starts` gives them.
        length: tokens l of a window.
        count: segments n of a sequence.

    Returns:
        `Segments`; `existence` has a gradient to bos.

    Raises:
        ValueError: shapes that do not fit, or a size that is not positive.

    Reference:
        arXiv 2601.21768.

    Example:
        >>> bos = jnp.array([[1.0, 0.0, 0.5, 0.5]])
        >>> found = cut(bos, bos == 1, length=3, count=2)
        >>> found.index.tolist()
        [[[0, 1, 2], [4, 4, 4]]]
        >>> found.existence.tolist()
        [[[1.0, 1.0, 0.5], [0.0, 0.0, 0.0]]]
    """
    sizes: dict[str, int] = {}
    check_shape("bos", bos, "b t", sizes)
    check_shape("starts", starts, "b t", sizes)
    for name, size in (("length", length), ("count", count)):
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    t = sizes["t"]
    first = jax.vmap(lambda row: jnp.nonzero(row, size=count, fill_value=t)[0])(starts)
    index = jnp.minimum(first[..., None] + jnp.arange(length), t)
    inside = index < t
    rows = jnp.arange(len(bos))[:, None, None]
    existence = existence_probabilities(bos[rows, jnp.minimum(index, t - 1)])
    return Segments(index, jnp.where(inside, existence, 0))


def existence_shares(segments: Segments, length: int) -> Float[Array, "b n l"]:
    """Shares of its token that each index of a segment has, where segments overlap.

    Args:
        segments: as `cut` gives them.
        length: tokens t of a sequence.

    Returns:
        `[b, n, l]`; the shares of a token that any segment reaches sum to 1.

    Reference:
        arXiv 2601.21768.

    Example:
        >>> found = cut(jnp.array([[1.0, 0.5]]), jnp.array([[True, True]]), length=2, count=2)
        >>> [[round(float(x), 3) for x in row] for row in existence_shares(found, 2)[0]]
        [[1.0, 0.333], [0.667, 0.0]]
    """
    rows = jnp.arange(len(segments.index))[:, None, None]
    total = jnp.zeros((len(segments.index), length + 1), segments.existence.dtype)
    total = total.at[rows, segments.index].add(segments.existence)
    return segments.existence / (total[rows, segments.index] + TINY)


def stitch(
    segments: Segments, values: Float[Array, "b n l m"], length: int
) -> Float[Array, "b t m"]:
    """A sequence put together from its segments: the mean of what they say, weighted by shares.

    Args:
        segments: as `cut` gives them.
        values: `[b, n, l, m]`, something of each token in each segment.
        length: tokens t of a sequence.

    Returns:
        `[b, t, m]`, in values' dtype; 0 at tokens that no segment reaches.

    Example:
        >>> found = cut(jnp.array([[1.0, 0.5]]), jnp.array([[True, True]]), length=2, count=2)
        >>> said = jnp.array([[[[5.0], [3.0]], [[6.0], [9.0]]]])
        >>> [round(float(x), 3) for x in stitch(found, said, 2)[0, :, 0]]
        [5.0, 5.0]
    """
    shares = existence_shares(segments, length)[..., None].astype(values.dtype)
    rows = jnp.arange(len(values))[:, None, None]
    whole = jnp.zeros((len(values), length + 1, values.shape[-1]), values.dtype)
    return whole.at[rows, segments.index].add(shares * values)[:, :length]
