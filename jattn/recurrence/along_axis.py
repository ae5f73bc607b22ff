"""The recurrence over a sequence that is spread over devices: states travel along the axis."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.recurrence.recur import recur


def recur_along_axis(
    query: Float[Array, "b t gq d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t gv e"],
    *,
    axis_name: str,
    decay: Float[Array, "b t h"] | Float[Array, "b t h d"] | None = None,
    beta: Float[Array, "b t h"] | None = None,
    erase_key: Float[Array, "b t gr d"] | None = None,
    **options: Any,
) -> Float[Array, "b t h e"]:
    """`recur` along a mesh axis; call it inside `jax.shard_map`. The same numbers as on one device.

    Each step of the recurrence is linear in the state, so a device's whole stretch is

        S_out = A S_in + B

    with B the state it reaches from zero, and A that from the identity with values of zero. All
    devices compute both at once; pairs (A, B) are combined along the axis in log2(devices) steps
    of `ppermute`; then S_in is known, and its reads are added: they are linear in it as well.

    Args:
        query: this device's stretch, `[b, t, gq, d]`; stretches follow one another along the axis.
        key: `[b, t, g, d]`.
        value: `[b, t, gv, e]`.
        axis_name: the mesh axis along which the sequence is spread.
        decay: as for `recur`.
        beta: as for `recur`, one a head.
        erase_key: as for `recur`.
        **options: `mode`, `chunk_size`, `implementation` of `recur`.

    Returns:
        The reads of this device's queries, `[b, t, h, e]`.

    Reference:
        arXiv 2404.02882 (sequence parallelism of linear attention).

    Example:
        >>> from jax.sharding import AxisType, PartitionSpec as P
        >>> mesh = jax.make_mesh((2,), ("sequence",), (AxisType.Auto,), devices=jax.devices()[:2])
        >>> f = lambda x: recur_along_axis(x, x, x, axis_name="sequence")
        >>> spread = P(None, "sequence")
        >>> run = jax.shard_map(f, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)
        >>> x = jnp.ones((1, 4, 1, 2))
        >>> bool(jnp.allclose(run(x), recur(x, x, x)))
        True
    """
    if (beta is not None and beta.ndim == 4) or "value_decay" in options:
        raise NotImplementedError(
            "recur_along_axis: a state has no one (A, B) with rates a channel"
        )
    rates = dict(decay=decay, beta=beta, erase_key=erase_key)
    out, reached = recur(query, key, value, **rates, return_state=True, **options)
    b, t, h, _ = out.shape
    d, work = query.shape[3], reached.dtype
    identity = jnp.broadcast_to(jnp.eye(d, dtype=work), (b, h, d, d))
    nothing = jnp.zeros((b, t, h, d), value.dtype)
    reads, carried = recur(
        query.astype(work), key, nothing, **rates, initial_state=identity, return_state=True,
        **options,
    )  # fmt: skip
    entering = _entering(axis_name, carried, reached)
    # A read of the state A_t S_in: the reads of A_t, one for each row of S_in.
    exact = jax.lax.Precision.HIGHEST
    return out + jnp.einsum("bthc,bhce->bthe", reads, entering, precision=exact).astype(out.dtype)


def _entering(axis_name: str, carried: Array, reached: Array) -> Array:
    """The state that enters each device's stretch, from all pairs (A, B) before it."""
    size = jax.lax.axis_size(axis_name)
    own = jax.lax.axis_index(axis_name)
    exact = jax.lax.Precision.HIGHEST

    def from_before(x, distance):
        pairs = [(n, n + distance) for n in range(size - distance)]
        return jax.lax.ppermute(x, axis_name, pairs)  # Zeros where nobody sends.

    distance = 1
    while distance < size:
        before, state = from_before(carried, distance), from_before(reached, distance)
        reached = reached + jnp.matmul(carried, state, precision=exact)
        joined = jnp.matmul(carried, before, precision=exact)
        carried = jnp.where(own >= distance, joined, carried)
        distance *= 2
    return from_before(reached, 1)
