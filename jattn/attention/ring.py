"""Attention over a sequence that is spread over devices: keys and values travel round a ring.

Each device holds a stretch of queries, keys and values. In as many steps as there are devices, it
attends to the keys it holds and hands them on to its neighbour, and the parts are joined by their
log-sum-exps. Nobody ever holds the whole sequence, forward or backward: the backward pass sends
the keys round once more, and their gradients with them.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention.attend import attend
from jattn.attention.blocks import Blocks
from jattn.attention.masks import causal as causal_mask
from jattn.attention.merge import merge
from jattn.attention.normalizers import given_lse


class _Plan(NamedTuple):
    axis_name: str
    causal: bool
    striped: bool
    scale: float | None
    implementation: str | Blocks | None


def ring_attend(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t gv e"],
    *,
    axis_name: str,
    causal: bool = False,
    striped: bool = False,
    scale: float | None = None,
    implementation: str | Blocks | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b t h"]]:
    """Softmax attention along a mesh axis; call it inside `jax.shard_map`.

    The same numbers as `attend` on the whole sequence. Memory a device is that of its own stretch.
    With `causal`, the device that holds the end of the sequence works while the first one waits;
    `striped` deals tokens out like cards (see `stripe`), and all work alike.

    Args:
        query: this device's stretch, `[b, t, h, d]`, with the same t on all devices.
        key: `[b, t, g, d]`, g a divisor of h.
        value: `[b, t, gv, e]`, gv a divisor of h.
        axis_name: the mesh axis along which the sequence is spread.
        causal: hide later tokens.
        striped: token n of the sequence is on device n % devices, not in stretches.
        scale: default d^-0.5.
        implementation: as for `attend`, of each part.

    Returns:
        out `[b, t, h, e]` and lse `[b, t, h]` of this device's queries.

    Reference:
        arXiv 2310.01889; stripes: arXiv 2311.09431.

    Example:
        >>> from jax.sharding import AxisType, PartitionSpec as P
        >>> mesh = jax.make_mesh((2,), ("sequence",), (AxisType.Auto,), devices=jax.devices()[:2])
        >>> x = jnp.ones((1, 8, 2, 4))
        >>> f = lambda x: ring_attend(x, x, x, axis_name="sequence", causal=True)[0]
        >>> spread = P(None, "sequence")
        >>> run = jax.shard_map(f, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)
        >>> run(x).shape
        (1, 8, 2, 4)
    """
    plan = _Plan(axis_name, causal, striped, scale, implementation)
    return _ring(plan, query, key, value)


def stripe(x: Array, devices: int, axis: int = 1) -> Array:
    """Orders a sequence so that equal stretches of it are its stripes.

    Token n goes to stretch n % devices.

    Args:
        x: any array; the length of `axis` is a multiple of `devices`.
        devices: number of stretches.
        axis: that of the sequence.

    Returns:
        The reordered array; `stripe(x, length // devices)` undoes it.

    Raises:
        ValueError: the length is no multiple.

    Example:
        >>> stripe(jnp.arange(6), 2, axis=0).tolist()
        [0, 2, 4, 1, 3, 5]
        >>> stripe(stripe(jnp.arange(6), 2, axis=0), 3, axis=0).tolist()
        [0, 1, 2, 3, 4, 5]
    """
    length = x.shape[axis]
    if length % devices:
        raise ValueError(f"x: expected a length that {devices} divides, got {length}")
    split = x.reshape(*x.shape[:axis], length // devices, devices, *x.shape[axis + 1 :])
    return jnp.swapaxes(split, axis, axis + 1).reshape(x.shape)


def _part(plan: _Plan, query, key, value, source, run, empty):
    """`run(mask)` for the keys that come from device `source`, or `empty` if all are hidden.

    What hides what depends on two devices only: one of a few masks, each known to the compiler.
    """
    if not plan.causal:
        return run(None)
    own = jax.lax.axis_index(plan.axis_name)
    if plan.striped:  # Token a of ours comes after their token c if a > c, or a = c and we do.
        return jax.lax.cond(own >= source, lambda: run(causal_mask()), lambda: run(causal_mask(-1)))
    where = jnp.sign(own - source) + 1
    return jax.lax.switch(where, [lambda: empty, lambda: run(causal_mask()), lambda: run(None)])


def _hand_on(plan: _Plan, tree: Any) -> Any:
    size = jax.lax.axis_size(plan.axis_name)
    pairs = [(n, (n + 1) % size) for n in range(size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, plan.axis_name, pairs), tree)


def _source(plan: _Plan, step):
    """Whose keys a device holds at a step."""
    size = jax.lax.axis_size(plan.axis_name)
    return (jax.lax.axis_index(plan.axis_name) - step) % size


def _forward(plan: _Plan, query, key, value):
    dtype = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)
    empty = (
        jnp.zeros((*query.shape[:3], value.shape[3]), dtype),
        jnp.full(query.shape[:3], -jnp.inf, dtype),
    )

    def part(key, value, step):
        def run(mask):
            out, lse = attend(
                query, key, value, mask=mask, scale=plan.scale, return_lse=True,
                implementation=plan.implementation,
            )  # fmt: skip
            return out.astype(dtype), lse

        return _part(plan, query, key, value, _source(plan, step), run, empty)

    def advance(carry, step):
        joined, held = carry
        held = _hand_on(plan, held)
        return (merge(joined, part(held[0], held[1], step)), held), None

    steps = jnp.arange(1, jax.lax.axis_size(plan.axis_name))
    (joined, _), _ = jax.lax.scan(advance, (part(key, value, 0), (key, value)), steps)
    return joined[0].astype(query.dtype), joined[1]


def _forward_saving(plan: _Plan, query, key, value):
    out, lse = _forward(plan, query, key, value)
    return (out, lse), (query, key, value, out, lse)


def _backward(plan: _Plan, saved, cotangents):
    """With w_j = exp(s_j - lse) of the whole row, ds_j = w_j (v_j . dout + dlse - out . dout).

    That is the gradient of `attend` with the whole row's lse given and held, where each value has
    one more entry, 1, whose cotangent is dlse - out . dout.
    """
    query, key, value, out, lse = saved
    d_out, d_lse = cotangents
    dtype = lse.dtype
    last = d_lse - (d_out.astype(dtype) * out.astype(dtype)).sum(-1)
    last = jnp.where(lse == -jnp.inf, 0, last)[..., None]
    d_mixed = jnp.concatenate([d_out.astype(dtype), last], -1).astype(query.dtype)
    rule = given_lse(jnp.where(lse == -jnp.inf, 0, lse))

    def part(key, value, step):
        def run(mask):
            def mixed(query, key, value):
                ones = jnp.ones((*value.shape[:3], 1), value.dtype)
                return attend(
                    query, key, jnp.concatenate([value, ones], -1), mask=mask, scale=plan.scale,
                    normalizer=rule, implementation=plan.implementation,
                )  # fmt: skip

            gradients = jax.vjp(mixed, query, key, value)[1](d_mixed)
            return jax.tree.map(lambda g: g.astype(dtype), gradients)

        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), (query, key, value))
        return _part(plan, query, key, value, _source(plan, step), run, empty)

    def advance(carry, step):
        d_query, held, d_held = carry
        d_own, *d_theirs = part(held[0], held[1], step)
        d_held = jax.tree.map(jnp.add, d_held, tuple(d_theirs))
        return (d_query + d_own, *_hand_on(plan, (held, d_held))), None

    zeros = functools.partial(jnp.zeros_like, dtype=dtype)
    start = (zeros(query), (key, value), (zeros(key), zeros(value)))
    steps = jnp.arange(jax.lax.axis_size(plan.axis_name))
    (d_query, _, (d_key, d_value)), _ = jax.lax.scan(advance, start, steps)
    return tuple(
        g.astype(x.dtype)
        for g, x in zip((d_query, d_key, d_value), (query, key, value), strict=True)
    )


_ring = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_ring.defvjp(_forward_saving, _backward)
