"""One chunk of the recurrence for one head, in matrices only: what a kernel can run.

The same mathematics as `jattn.recurrence.chunked`, arranged for a chip: no axis but rows and
columns, no slices finer than a register, triangular systems by whole products.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SUBCHUNK = 16  # Within so many tokens, decays per channel are taken pair by pair.

EXACT = jax.lax.Precision.HIGHEST


def chunk_step(
    state: Float[Array, "e d"],
    query: Float[Array, "c d"],
    key: Float[Array, "c d"],
    value: Float[Array, "c e"],
    decay: Float[Array, " c #d"] | None,
    beta: Float[Array, "c 1"] | None,
    product: Callable[..., Array],
) -> tuple[Float[Array, "e d"], Float[Array, "c e"]]:
    """The state after a chunk, and the reads in it.

    Args:
        state: transposed, values by keys: decays of key channels then run along its columns.
        query, key, value: the chunk's tokens.
        decay: log decays, of the head or of each key channel.
        beta: strengths of the delta rule; None for plain writes.
        product: `(left, right, (axis, axis)) -> matrix`, a product over those axes.
    """
    read, met, kept, elapsed = query, key, key, None
    remains = None
    if decay is not None:
        elapsed = _elapsed(decay)
        since_start = jnp.exp(elapsed[0] + elapsed[1])
        last = (elapsed[0][-1:], elapsed[1][-1:])
        until_end = jnp.exp(_between(last, elapsed))
        read, met, kept = query * since_start, key * since_start, key * until_end
        remains = since_start[-1:]
    writes = value
    if beta is not None:
        system = jnp.where(_lower(len(key), strictly=True), _pairs(key, key, elapsed, product), 0)
        target = beta * (value - product(met, state, (1, 1)))
        writes = _matmul(_unit_lower_inverse(beta * system), target)
    out = product(read, state, (1, 1))
    out += product(_pairs(query, key, elapsed, product), writes, (1, 0))
    state = state if remains is None else remains * state
    return state + product(writes, kept, (0, 0)), out


def _matmul(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=EXACT)


def _lower(size: int, strictly: bool = False) -> Array:
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
    return row > column if strictly else row >= column


def _elapsed(decay: Array) -> tuple[Array, Array]:
    """Sums of log decays along the chunk, coarse part and fine part; see `chunked._elapsed`."""
    decay = jnp.maximum(decay, 2 * jnp.finfo(decay.dtype).minexp * math.log(2))
    coarse = jnp.round(jax.lax.stop_gradient(decay) * 64) / 64
    sums = jnp.where(_lower(len(decay)), 1.0, 0.0).astype(decay.dtype)
    return _matmul(sums, coarse), _matmul(sums, decay - coarse)


def _between(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> Array:
    return jax.lax.stop_gradient(later[0] - earlier[0]) + (later[1] - earlier[1])


def _pairs(x: Array, y: Array, elapsed: tuple[Array, Array] | None, product) -> Array:
    """Decayed inner products `[c, c]` on and below the diagonal, zeros above."""
    size = len(x)
    if elapsed is None:
        return jnp.where(_lower(size), product(x, y, (1, 1)), 0)
    if elapsed[0].shape[1] == 1:
        square = [jnp.broadcast_to(part, (size, size)) for part in elapsed]
        gap = _between((square[0], square[1]), (square[0].T, square[1].T))
        # Taken where it is at most 0, and constant on the diagonal.
        gap = jnp.where(_lower(size, strictly=True), gap, 0)
        return jnp.where(_lower(size), product(x, y, (1, 1)) * jnp.exp(gap), 0)

    near = _near_pairs(x, y, elapsed)
    rows = [jnp.zeros((SUBCHUNK, size), x.dtype)]
    for start in range(SUBCHUNK, size, SUBCHUNK):
        own = slice(start, start + SUBCHUNK)
        border = (elapsed[0][start - 1 : start], elapsed[1][start - 1 : start])
        after = x[own] * jnp.exp(_between((elapsed[0][own], elapsed[1][own]), border))
        # Keys from the border on are not earlier: their weight is 0, and its exponent too.
        earlier = jax.lax.broadcasted_iota(jnp.int32, y.shape, 0) < start
        gap = jnp.where(earlier, _between(border, elapsed), 0)
        before = jnp.where(earlier, y * jnp.exp(gap), 0)
        rows.append(product(after, before, (1, 1)))
    return near + jnp.concatenate(rows, 0)


def _near_pairs(x: Array, y: Array, elapsed: tuple[Array, Array]) -> Array:
    """The part of `_pairs` within subchunks: a column of each at a time."""
    size = len(x)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
    pairs = jnp.zeros((size, size), x.dtype)
    for offset in range(SUBCHUNK):
        there = column == row // SUBCHUNK * SUBCHUNK + offset
        pick = functools.partial(_matmul, jnp.where(there, 1.0, 0.0).astype(x.dtype))
        gap = _between(elapsed, (pick(elapsed[0]), pick(elapsed[1])))
        later = jax.lax.broadcasted_iota(jnp.int32, gap.shape, 0) % SUBCHUNK > offset
        weight = jnp.exp(jnp.where(later, gap, 0))
        inner = (x * pick(y) * weight).sum(1, keepdims=True)
        pairs += jnp.where(there & (row % SUBCHUNK >= offset), inner, 0)
    return pairs


def _unit_lower_inverse(lower: Array) -> Array:
    """`(I + lower)^-1` of a strictly lower triangular matrix, by blocks that double.

    With diagonal blocks of size n inverted in X, and M the corners between pairs of them, those
    of size 2n are inverted in X - X M X.
    """
    size = len(lower)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
    inverse = jnp.where(row == column, 1.0, 0.0).astype(lower.dtype)
    block = 1
    while block < size:
        corner = (row // (2 * block) == column // (2 * block)) & (row // block > column // block)
        inverse -= _matmul(inverse, _matmul(jnp.where(corner, lower, 0), inverse))
        block *= 2
    return inverse
