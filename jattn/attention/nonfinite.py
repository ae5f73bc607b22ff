"""Numbers that are not finite: kept out of products where a mask hides them, and out of logs."""

import jax.numpy as jnp
from jaxtyping import Array


def finite_lse(largest: Array, total: Array) -> Array:
    """The log of a row's sum from its largest score and the sum; 0, not -inf, without a key."""
    some = total != 0
    return jnp.where(some, largest + jnp.log(jnp.where(some, total, 1)), 0)


def hide_nonfinite(key: Array, value: Array, heads: int) -> tuple[Array, Array, Array]:
    """Takes NaN and infinity out of keys and values that a mask may hide.

    0 * NaN is NaN, so a weight of zero does not keep a bad value out of a product, nor a gradient
    of zero a bad key. The third result has NaN at bad keys: added to the scores before they are
    masked, it makes rows that do attend to one NaN, and leaves all others alone.

    Args:
        key: `[b, gk, s, d]`.
        value: `[b, gv, s, e]`.
        heads: the number h of query heads.

    Returns:
        key and value with zeros instead, and a `[b, h, 1, s]` addend of zeros and NaN.
    """
    good = jnp.ones((), bool)
    clean = []
    for array in (key, value):
        finite = jnp.isfinite(array)
        clean.append(jnp.where(finite, array, 0))
        good &= jnp.repeat(finite.all(-1), heads // array.shape[1], axis=1)
    return clean[0], clean[1], jnp.where(good, 0.0, jnp.nan).astype(key.dtype)[:, :, None, :]


def hide_nonfinite_query(query: Array) -> tuple[Array, Array]:
    """Takes NaN and infinity out of queries `[b, h, t, d]`, which a mask may leave without a key.

    Returns:
        The query with zeros instead, and a `[b, h, t, 1]` addend of zeros and NaN.
    """
    finite = jnp.isfinite(query)
    bad = jnp.where(finite.all(-1, keepdims=True), 0.0, jnp.nan)
    return jnp.where(finite, query, 0), bad.astype(query.dtype)


def finite_row(largest: Array) -> Array:
    """The largest score of each query, with 0 where there is none."""
    return jnp.where(largest == -jnp.inf, 0, largest)
