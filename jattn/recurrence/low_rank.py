"""A recurrence whose transition is a diagonal and a matrix of rank one with two keys of its own."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.recurrence.recur import recur

MOST = 60.0  # nats of one token that are taken back; the exponential of more overflows


def before_decay(
    read_key: Float[Array, "b t h d"], decay: Float[Array, "b t h"] | Float[Array, "b t h d"]
) -> Float[Array, "b t h d"]:
    """The key that reads from a_t S_{t-1} what r_t reads from S_{t-1}: r_t / a_t.

    Args:
        read_key: r, `[b, t, h, d]`.
        decay: log a, of each head or each channel; where it is -inf nothing is read, and where it
            is below -60, less than r reads.

    Returns:
        `[b, t, h, d]`.

    Example:
        >>> before_decay(jnp.ones((1, 1, 1, 2)), jnp.log(jnp.full((1, 1, 1), 0.5)))[0, 0, 0]
        Array([2., 2.], dtype=float32)
    """
    lasting = jnp.isfinite(decay)
    undone = jnp.where(lasting, jnp.exp(-jnp.maximum(jnp.where(lasting, decay, 0), -MOST)), 0)
    undone = undone if decay.ndim == 4 else undone[..., None]
    return (read_key * undone).astype(read_key.dtype)


def recur_low_rank(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    *,
    read_key: Float[Array, "b t h d"],
    erase_key: Float[Array, "b t h d"],
    decay: Float[Array, "b t h"] | Float[Array, "b t h d"] | None = None,
    **options: Any,
) -> Any:  # One array, or with `return_state` a pair, as `recur`.
    """Runs a recurrence that takes out at one key what it reads at another, and writes at a third.

        S_t = a_t S_{t-1} - e_t (r_t^T S_{t-1})^T + k_t v_t^T,     o_t = S_t^T q_t

    with r_t the read key, e_t the erase key and a_t = exp(decay_t): diagonal plus low rank (DPLR),
    or without a decay identity plus low rank (IPLR). It is `recur` over twice the tokens: the first
    of a pair forgets and erases, the second writes. What is read is the state before it decays, and
    so the read key is divided by a_t; decays are those of models that keep some of each channel.

    Args:
        query: what reads, `[b, t, h, d]`.
        key: where to write, likewise.
        value: what to write, `[b, t, h, e]`.
        read_key: r, `[b, t, h, d]`.
        erase_key: e, likewise; 0 erases nothing.
        decay: as for `recur`; where it is -inf, nothing is left that could be erased.
        **options: `initial_state`, `return_state`, `mode`, `chunk_size` of `recur`.

    Returns:
        As `recur`.

    Reference:
        arXiv 2503.14456 (RWKV-7), appendix; flash-linear-attention's name for it is DPLR.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4)) / 2
        >>> recur_low_rank(x, x, x, read_key=x, erase_key=x).shape
        (1, 6, 2, 4)
    """
    b, t, h, _ = query.shape
    pairs = lambda first, second: jnp.stack([first, second], 2).reshape(b, 2 * t, *first.shape[2:])
    if decay is not None:
        read_key = before_decay(read_key, decay)
        decay = pairs(decay, jnp.zeros_like(decay))
    nothing, beta = jnp.zeros_like, jnp.ones((b, 2 * t, h), value.dtype)
    found = recur(
        pairs(nothing(query), query), pairs(erase_key, key), pairs(nothing(value), value),
        decay=decay, beta=beta, erase_key=pairs(read_key, nothing(read_key)), **options,
    )  # fmt: skip
    if options.get("return_state"):
        return found[0][:, 1::2], found[1]
    return found[:, 1::2]
