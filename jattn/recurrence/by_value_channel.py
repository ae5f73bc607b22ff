"""Rates of value channels: each channel is then a recurrence of its own, over the same keys."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def by_value_channel(
    query: Float[Array, "b t gq d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t gv e"],
    *,
    decay: Float[Array, "b t h"] | Float[Array, "b t h d"] | None,
    value_decay: Float[Array, "b t h e"] | None,
    beta: Float[Array, "b t h"] | Float[Array, "b t h e"] | None,
    erase_key: Float[Array, "b t gr d"] | None,
    state: Float[Array, "b h d e"] | None,
    return_state: bool,
    implementation: str | None,
    **options: Any,
) -> Any:
    """`recur` with each channel of the values as a head whose values have one channel.

    Args: as `recur`, which has checked them.

    Raises:
        NotImplementedError: `implementation="pallas"`.
    """
    from jattn.recurrence.recur import recur  # which calls this in turn

    if implementation == "pallas":
        raise NotImplementedError(
            "implementation='pallas': kernels have no rates per value channel; leave it out"
        )
    b, t, gv, e = value.shape
    heads = max(query.shape[2], gv)
    spread = lambda x: jnp.repeat(x, heads * e // x.shape[2], axis=2)

    def single(x: Array) -> Array:
        return x.reshape(b, t, heads * e, 1)

    value = single(jnp.repeat(value, heads // gv, axis=2))
    if decay is not None:
        decay = spread(decay)
    if value_decay is not None:
        own: Array = single(value_decay)
        own = own if decay is not None and decay.ndim == 4 else own[..., 0]
        decay = own if decay is None else decay + own
    if beta is not None:
        beta = single(beta)[..., 0] if beta.ndim == 4 else spread(beta)
    if state is not None:
        state = jnp.moveaxis(state, 3, 2).reshape(b, heads * e, state.shape[2], 1)
    found: Any = recur(
        spread(query), spread(key), value, decay=decay, beta=beta,
        erase_key=None if erase_key is None else spread(erase_key),
        initial_state=state, return_state=True, implementation="xla", **options,
    )  # fmt: skip
    out = found[0].reshape(b, t, heads, e)
    state = jnp.moveaxis(found[1].reshape(b, heads, e, -1), 2, 3)
    return (out, state) if return_state else out
