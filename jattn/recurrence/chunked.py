"""The recurrence by chunks: matrix products inside a chunk, a recurrence over chunks only.

Inside a chunk with entering state S, with c_t the sum of the log decays up to and including t,

    o_t = (q_t * exp(c_t)) S + sum_{i<=t} P(q, k)_ti u_i,
    P(x, y)_ti = sum_d x_td y_id exp(c_td - c_id)                                        (i <= t)

where u_i is what token i writes: v_i, or for the delta rule the solution of the triangular system

    u_t + beta_t sum_{i<t} P(r, k)_ti u_i = beta_t (v_t - (r_t * exp(c_t)) S)

with r the key whose value is looked up and taken out: k, unless another is given.

Reference: arXiv 2406.06484 (delta rule), 2312.06635 (decay), 2412.06464 (both).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.recurrence.scan import whole_chunk

# The most that is forgotten in a chunk, in nats, for decays per channel to be taken apart as
# exp(c_t) exp(-c_i): sums of this size are rounded by 1e-6, and what is undone does not overflow.
GENTLE = 16.0


def _elapsed(decay: Float[Array, "... c d"]) -> Float[Array, "2 ... c d"]:
    """Sums of log decays along a chunk, as a coarse part plus a fine part.

    A strong decay makes the sum large, and the difference of two large sums is a poor number.
    Coarse parts are multiples of 1/64, which add without rounding, and fine parts stay small.
    """
    # A hard reset, -inf, must have finite differences; exp of twice the least exponent is 0.
    decay = jnp.maximum(decay, 2 * jnp.finfo(decay.dtype).minexp * math.log(2))
    coarse = jnp.round(decay * 64) / 64  # a step function: gradients go through fine parts
    size = decay.shape[-2]
    parts = jnp.stack([coarse, decay - coarse])
    return jnp.matmul(jnp.tri(size, dtype=decay.dtype), parts, precision="highest")


def _between(later: Float[Array, "2 ..."], earlier: Float[Array, "2 ..."]) -> Float[Array, "..."]:
    """The log decay from one time to another, from their two-part sums."""
    return jax.lax.stop_gradient(later[0] - earlier[0]) + (later[1] - earlier[1])


def _lower_products(
    x: Float[Array, "... c d"], y: Float[Array, "... c d"]
) -> Float[Array, "... c c"]:
    """Inner products on and below the diagonal, zeros above."""
    return jnp.where(jnp.tril(jnp.ones((x.shape[-2],) * 2, bool)), x @ y.mT, 0)


def _pairs(
    x: Float[Array, "... c d"],
    y: Float[Array, "... c d"],
    elapsed: Float[Array, "2 ... c #d"] | None = None,
) -> Float[Array, "... c c"]:
    """`P(x, y)`: decayed inner products on and below the diagonal, zeros above.

    Only differences `c_t - c_i <= 0` are exponentiated. A decay per channel does not factor out
    of the product; over an off-diagonal block it does, as the decay up to the block's border
    times that from the border on, so the diagonal blocks are halved until nothing is left.
    """
    if elapsed is None:
        return _lower_products(x, y)
    size = x.shape[-2]
    lower = jnp.tril(jnp.ones((size, size), bool))
    if elapsed.shape[-1] == 1:
        # The diagonal is a constant 0, lest its gradients cancel less than exactly.
        gap = jnp.where(jnp.eye(size, dtype=bool), 0, _between(elapsed, elapsed.mT))
        return _lower_products(x, y) * jnp.exp(jnp.where(lower, gap, -jnp.inf))
    if size == 1:
        return (x * y).sum(-1, keepdims=True)

    half = size // 2

    def halves(z):
        # Blocks join the axis before them: compilers bound the number of axes.
        return z.reshape(*z.shape[:-3], 2 * z.shape[-3], half, z.shape[-1])

    blocks = _pairs(halves(x), halves(y), halves(elapsed))
    border = elapsed[..., half - 1 : half, :]
    after = x[..., half:, :] * jnp.exp(_between(elapsed[..., half:, :], border))
    before = y[..., :half, :] * jnp.exp(_between(border, elapsed[..., :half, :]))
    first, second = blocks[..., 0::2, :, :], blocks[..., 1::2, :, :]
    top = jnp.concatenate([first, jnp.zeros_like(first)], -1)
    return jnp.concatenate([top, jnp.concatenate([after @ before.mT, second], -1)], -2)


class DecayedChunk(NamedTuple):
    """Queries and keys of a chunk with its decays.

    Attributes:
        read: queries, times what is left since the chunk's start.
        met: keys that values are looked up at, the same.
        kept: keys, times what is left of them at the chunk's end.
        remains: what is left of the state at the chunk's end; None is all.
        query_pairs: gives `P(query, key)`.
        key_pairs: gives `P(met key, key)`.
    """

    read: Float[Array, "... c d"]
    met: Float[Array, "... c d"]
    kept: Float[Array, "... c d"]
    remains: Float[Array, "... 1 #d"] | None
    query_pairs: Callable[[], Float[Array, "... c c"]]
    key_pairs: Callable[[], Float[Array, "... c c"]]


def decay_chunk(
    query: Float[Array, "... c d"],
    key: Float[Array, "... c d"],
    decay: Float[Array, "... c #d"] | None,
    gentle: bool,
    erase_key: Float[Array, "... c d"] | None = None,
) -> DecayedChunk:
    """All that decays have to do with; if `gentle`, they may be taken apart."""
    erased = key if erase_key is None else erase_key
    if decay is None:
        part = functools.partial
        pairs = (part(_pairs, query, key), part(_pairs, erased, key))
        return DecayedChunk(query, erased, key, None, *pairs)
    if gentle:
        total = jnp.matmul(jnp.tri(key.shape[-2], dtype=decay.dtype), decay, precision="highest")
        # No bound where it is true that it is gentle; under vmap both sides are computed.
        total = jnp.maximum(total, -1 - GENTLE)
        # Behind a barrier, or XLA takes the exponential again wherever it is needed.
        since_start = jax.lax.optimization_barrier(jnp.exp(total))
        read, met, undone = query * since_start, erased * since_start, key / since_start
        kept = undone * since_start[..., -1:, :]
        pairs = (lambda: _lower_products(read, undone), lambda: _lower_products(met, undone))
    else:
        elapsed = _elapsed(decay)
        since_start = jnp.exp(_between(elapsed, jnp.zeros_like(elapsed)))
        read, met = query * since_start, erased * since_start
        kept = key * jnp.exp(_between(elapsed[..., -1:, :], elapsed))
        pairs = (lambda: _pairs(query, key, elapsed), lambda: _pairs(erased, key, elapsed))
    return DecayedChunk(read, met, kept, since_start[..., -1:, :], *pairs)


@jax.custom_jvp
def unit_lower_inverse(lower: Float[Array, "... c c"]) -> Any:
    """`(I + lower)^-1` of strictly lower triangular matrices, by halves.

    With diagonal blocks inverted, the corner is one product: A of [[B, 0], [A, C]] becomes
    -C^-1 A B^-1. Matrix products run well everywhere, and batched LAPACK calls of the CPU
    backend can deadlock when two of them run at once, as in a gradient.
    """
    size = lower.shape[-1]
    if size <= 2:
        return jnp.eye(size, dtype=lower.dtype) - lower
    half = size // 2
    # Blocks join the axis of heads as its faster part, along which it may be spread over devices.
    blocks = jnp.stack([lower[..., :half, :half], lower[..., half:, half:]], -3)
    blocks = unit_lower_inverse(blocks.reshape(*lower.shape[:-3], -1, half, half))
    first, second = blocks[..., 0::2, :, :], blocks[..., 1::2, :, :]
    corner = -second @ lower[..., half:, :half] @ first
    top = jnp.concatenate([first, jnp.zeros_like(first)], -1)
    return jnp.concatenate([top, jnp.concatenate([corner, second], -1)], -2)


# Two products, instead of the derivatives of all steps.
unit_lower_inverse.defjvps(lambda change, inverse, _: -inverse @ change @ inverse)


def recur_chunked(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    decay: Float[Array, "b t h #d"] | None,
    beta: Float[Array, "b t h"] | None,
    state: Float[Array, "b h d e"],
    chunk_size: int,
    erase_key: Float[Array, "b t h d"] | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"]]:
    """`recur` in chunks of `chunk_size`: O(t chunk_size (d + e) + t d e) operations, O(t) memory.

    A single chunk over the whole sequence is the parallel, quadratic form.

    Args: as `recur`, all of one floating type, with `h` key and value heads, and a last axis of
        size 1 on a decay per head.

    Returns:
        The reads, and the state after the last token.
    """
    arrays: tuple[Any, ...] = (query, key, value, decay, beta, state, erase_key)
    if decay is None or decay.shape[-1] == 1:
        return _sequences(*arrays, chunk_size=chunk_size, gentle=False)
    # Asked once for all sequences: of a choice under vmap both sides would be computed.
    return jax.lax.cond(
        is_gentle(decay, whole_chunk(chunk_size, decay.shape[1])),
        functools.partial(_sequences, chunk_size=chunk_size, gentle=True),
        functools.partial(_sequences, chunk_size=chunk_size, gentle=False),
        *arrays,
    )


def is_gentle(decay: Float[Array, "b t h d"], size: int) -> Array:
    """Whether no chunk forgets so much that its decays cannot be factored."""
    count = -(-decay.shape[1] // size)
    padded = jnp.pad(decay, ((0, 0), (0, count * size - decay.shape[1]), (0, 0), (0, 0)))
    sums = padded.reshape(decay.shape[0], count, size, *decay.shape[2:]).sum(2)
    return sums.min() >= -GENTLE


def _sequences(
    *arrays: Any, chunk_size: int, gentle: bool
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"]]:
    """`_sequence` for every sequence of a batch."""
    sequence = functools.partial(_sequence, chunk_size=chunk_size, gentle=gentle)
    if arrays[0].shape[0] == 1:
        # Without an axis for the batch of one, for which XLA would copy all inputs.
        return jax.tree.map(lambda x: x[None], sequence(*jax.tree.map(lambda x: x[0], arrays)))
    return jax.vmap(sequence)(*arrays)


def _sequence(
    query: Float[Array, "t h d"],
    key: Float[Array, "t h d"],
    value: Float[Array, "t h e"],
    decay: Float[Array, "t h #d"] | None,
    beta: Float[Array, "t h"] | None,
    state: Float[Array, "h d e"],
    erase_key: Float[Array, "t h d"] | None,
    chunk_size: int,
    gentle: bool,
) -> tuple[Float[Array, "t h e"], Float[Array, "h d e"]]:
    """`recur_chunked` for one sequence; if `gentle`, with decays that may be factored."""
    length = query.shape[0]
    size = whole_chunk(chunk_size, length)
    if beta is not None or (decay is not None and decay.shape[-1] > 1):
        size = 1 << (size - 1).bit_length()  # blocks are going to be halved
    count = -(-length // size)

    def split(x):
        # Padding with zeros writes nothing (key 0) and forgets nothing (log decay 0).
        x = jnp.pad(x, [(0, count * size - length)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(count, size, *x.shape[1:])

    # The backward pass keeps the state that enters each chunk and computes the rest again, which
    # costs less than writing it to memory and reading it back.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(state, inputs):
        inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), inputs)  # [h, c, ...]
        query, key, value, decay, beta, erase_key = inputs
        # 0 * NaN is NaN: what is not finite becomes NaN at the end, from its own token on.
        good = jnp.isfinite(value)
        if beta is not None:
            good &= jnp.isfinite(key).all(-1, keepdims=True)
            key = jnp.where(jnp.isfinite(key), key, 0)
            if erase_key is not None:
                good &= jnp.isfinite(erase_key).all(-1, keepdims=True)
                erase_key = jnp.where(jnp.isfinite(erase_key), erase_key, 0)
        index = jnp.arange(size, dtype=jnp.int32)[:, None]
        first_bad = jnp.where(good, size, index).min(1, keepdims=True)
        value = jnp.where(good, value, 0)
        own = decay_chunk(query, key, decay, gentle, erase_key)
        writes = value
        if beta is not None:
            beta = beta[..., None]
            system = beta * jnp.tril(own.key_pairs(), -1)
            writes = unit_lower_inverse(system) @ (beta * (value - own.met @ state))
        out = own.read @ state + own.query_pairs() @ writes
        rest = state if own.remains is None else own.remains.mT * state
        state = rest + own.kept.mT @ writes
        out = jnp.where(index < first_bad, out, jnp.nan)
        return jnp.where(first_bad == size, state, jnp.nan), jnp.moveaxis(out, 0, 1)

    inputs = jax.tree.map(split, (query, key, value, decay, beta, erase_key))
    state, out = jax.lax.scan(chunk, state, inputs)
    return out.reshape(count * size, *out.shape[2:])[:length], state
