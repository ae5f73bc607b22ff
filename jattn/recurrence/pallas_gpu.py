"""The recurrence on Hopper GPUs: all but the walk from chunk to chunk is done at once by XLA.

What does not depend on the state that enters a chunk is prepared for all chunks at once, by batched
products. For the delta rule, with P of `jattn.recurrence.chunked` and keys met decayed since the
chunk's start, that is (arXiv 2406.06484, 2412.06464)

    W = T beta v,    U = -T beta met,    T = (I + beta P(k, k) strictly below the diagonal)^-1,

so that a chunk entered with state S writes W + U S. What is left is the walk, which is a kernel
(`jattn.recurrence.gpu_walk`), and the reads, batched products again. Gradients are those of the
parts: the backward pass is the same walk from the end.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.recurrence.chunked import decay_chunk, is_gentle, unit_lower_inverse
from jattn.recurrence.gpu_walk import CHUNK, COLUMNS, Steps, walk


class _Chunks(NamedTuple):
    """What does not depend on states, for every chunk; products' operands in bfloat16."""

    read: Float[Array, "b h n c d"]  # queries times the decay since the chunk's start
    pairs: Float[Array, "b h n c c"]  # P(q, k)
    kept: Float[Array, "b h n c d"]  # keys times the decay until the chunk's end
    writes: Float[Array, "b h n c e"]  # W; the values, where writes do not look
    meet: Float[Array, "b h n c d"] | None  # U
    remains: Float[Array, "b h n d"]  # the whole chunk's decay


def recur_pallas(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    decay: Float[Array, "b t h #d"] | None,
    beta: Float[Array, "b t h"] | None,
    state: Float[Array, "b h d e"],
    interpret: Any = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"]]:
    """`recur` by the kernel; arguments as `recur_chunked` takes them, in float32.

    Products are of bfloat16 operands, with sums and states in float32.

    Args:
        query, key, value, decay, beta, state: as `recur_chunked`; d at most 256.
        interpret: `jax.experimental.pallas.mosaic_gpu.InterpretGPUParams` to run elsewhere, slowly.
    """
    length, d, e = query.shape[1], query.shape[3], value.shape[3]

    def split(x, whole=True):
        # Padding with zeros writes nothing (key 0) and forgets nothing (log decay 0).
        more = -x.shape[3] % COLUMNS if whole else 0
        x = jnp.pad(x, ((0, 0), (0, -length % CHUNK), (0, 0), (0, more)))
        x = jnp.swapaxes(x, 1, 2)
        return x.reshape(*x.shape[:2], -1, CHUNK, x.shape[3])

    prepare = functools.partial(_prepare, gentle=False)
    if decay is not None:
        if decay.shape[3] > 1:
            gentle = functools.partial(_prepare, gentle=True)
            prepare = functools.partial(jax.lax.cond, is_gentle(decay, CHUNK), gentle, prepare)
        decay = split(decay, whole=decay.shape[3] > 1)
    if beta is not None:
        beta = split(beta[..., None], whole=False)
    # Kept for the backward pass are its inputs and its results, not what is between.
    chunks = jax.checkpoint(prepare)(split(query), split(key), split(value), decay, beta)
    state = jnp.pad(state, ((0, 0), (0, 0), (0, -d % COLUMNS), (0, -e % COLUMNS)))
    if beta is None:
        totals = _product(chunks.kept.mT, chunks.writes).astype(jnp.bfloat16)
        steps = Steps(chunks.remains, totals, None, None, None)
    else:
        steps = Steps(chunks.remains, None, chunks.meet, chunks.kept, chunks.writes)
    results: Any = walk(interpret, steps, state)
    entering, writes, last = results
    out = _product(chunks.read, entering)
    out += _product(chunks.pairs, chunks.writes if beta is None else writes)
    out = jnp.swapaxes(out.reshape(*out.shape[:2], -1, out.shape[4]), 1, 2)
    return out[:, :length, :, :e], last[:, :, :d, :e]


@jax.custom_vjp
def _multiply(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def _multiply_backward(saved, d_out):
    x, y = saved
    d_out = d_out.astype(x.dtype)
    return d_out @ y.mT, x.mT @ d_out


_multiply.defvjp(lambda x, y: (_multiply(x, y), (x, y)), _multiply_backward)


def _product(x: Array, y: Array) -> Any:
    """A product of bfloat16 operands, summed in float32; backward too, unlike `jnp.matmul`."""
    return _multiply(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))


def _prepare(
    query: Float[Array, "b h n c d"],
    key: Float[Array, "b h n c d"],
    value: Float[Array, "b h n c e"],
    decay: Float[Array, "b h n c #d"] | None,
    beta: Float[Array, "b h n c 1"] | None,
    gentle: bool,
) -> _Chunks:
    """All chunks' part; if `gentle`, with decays that may be factored, as in `recur_chunked`."""
    own = decay_chunk(query, key, decay, gentle)
    remains = jnp.ones((*key.shape[:3], key.shape[4]), key.dtype)
    if own.remains is not None:
        remains = remains * own.remains[..., 0, :]
    low = lambda x: x.astype(jnp.bfloat16)
    writes, meet = value, None
    if beta is not None:
        inverse = unit_lower_inverse(beta * jnp.tril(own.key_pairs(), -1))
        writes, meet = _product(inverse, beta * value), low(-_product(inverse, beta * own.met))
    return _Chunks(low(own.read), low(own.query_pairs()), low(own.kept), low(writes), meet, remains)
