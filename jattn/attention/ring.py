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
from jaxtyping import Array, Float, Int

from jattn.attention import masks
from jattn.attention.attend import attend
from jattn.attention.attention_args import make_scale, make_sink
from jattn.attention.blocks import Blocks
from jattn.attention.merge import merge
from jattn.attention.normalizers import given_lse
from jattn.checks import check_array, check_count, check_flag, check_shape
from jattn.sharding import vary_like


class _Plan(NamedTuple):
    axis_name: str
    causal: bool
    window: int | None
    striped: bool
    scale: float
    implementation: str | Blocks | None


def ring_attend(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s gv e"],
    *,
    axis_name: str,
    causal: bool = False,
    window: int | None = None,
    segments: Int[Array, "b t"] | tuple[Int[Array, "b t"], Int[Array, "b s"]] | None = None,
    sink: Array | float | None = None,
    striped: bool = False,
    scale: Array | float | None = None,
    implementation: str | Blocks | None = None,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b t h"]]:
    """Softmax attention along a mesh axis; call it inside `jax.shard_map`.

    The same numbers as `attend` on the whole sequence. Memory a device is that of its own stretch.
    With `causal`, the device that holds the end of the sequence works while the first one waits;
    `striped` deals tokens out like cards (see `stripe`), and all work alike.

    Args:
        query: this device's stretch, `[b, t, h, d]`, with the same t on all devices.
        key: `[b, s, g, d]`, g a divisor of h, with the same s on all devices.
        value: `[b, s, gv, e]`, gv a divisor of h.
        axis_name: the mesh axis along which the sequence is spread.
        causal: hide later tokens; the first query is at the first key.
        window: with `causal`, a token sees itself and window - 1 tokens before it. Devices that
            are too far away are passed over.
        segments: this device's stretch of the numbers of segments, of queries and keys alike or a
            pair of them; a query sees keys of its own segment.
        sink: an extra logit that joins the sum and has no value, a number or `[h]`.
        striped: token n of the sequence is on device n % devices, not in stretches.
        scale: default d^-0.5.
        implementation: as for `attend`, of each part.

    Returns:
        out `[b, t, h, e]` and lse `[b, t, h]` of this device's queries.

    Raises:
        ValueError: an argument does not fit.

    Reference:
        arXiv 2310.01889; stripes: arXiv 2311.09431.

    Example:
        >>> from jax.sharding import AxisType, PartitionSpec as P
        >>> mesh = jax.make_mesh((2,), ("sequence",), (AxisType.Auto,), devices=jax.devices()[:2])
        >>> x = jnp.ones((1, 8, 2, 4))
        >>> f = lambda x: ring_attend(x, x, x, axis_name="sequence", causal=True)[0]
        >>> spread = P(None, "sequence")
        >>> jax.shard_map(f, mesh=mesh, in_specs=spread, out_specs=spread)(x).shape
        (1, 8, 2, 4)
    """
    sizes: dict[str, int] = {}
    arrays = {"query": query, "key": key, "value": value}
    for name, axes in (("query", "b t h d"), ("key", "b s g d"), ("value", "b s gv e")):
        check_array(name, arrays[name], "floating")
        check_shape(name, arrays[name], axes, sizes)
    check_flag("causal", causal)
    check_flag("striped", striped)
    if window is not None:
        check_count("window", window, 1)
        if not causal:
            raise ValueError("window: expected causal=True with a window, got causal=False")
    ids: tuple[Array, ...] = ()
    if segments is not None:
        ids = segments if isinstance(segments, tuple) else (segments, segments)
        for name, array, axes in zip(("queries", "keys"), ids, ("b t", "b s"), strict=True):
            check_array(f"segments ({name})", array, "integer")
            check_shape(f"segments ({name})", array, axes, sizes)
    scale, dtype = make_scale(scale, sizes["d"]), query.dtype
    if isinstance(scale, jax.Array):  # Part of the queries, which have a gradient.
        query, scale = query.astype(jnp.promote_types(dtype, jnp.float32)) * scale, 1.0
    plan = _Plan(axis_name, causal, window, striped, float(scale), implementation)
    floats, ids = vary_like(((query, key, value), ids), query, key, value, ids)
    out, lse = _ring(plan, *floats, ids)
    out = out.astype(dtype)
    if sink is None:
        return out, lse
    # One more part, without a value, joined in the end.
    shared = jnp.logaddexp(lse, make_sink(sink, sizes)[0, :, 0].astype(lse.dtype))
    kept = jnp.exp(jnp.where(lse == -jnp.inf, -jnp.inf, lse - shared))
    return (out * kept[..., None]).astype(out.dtype), shared


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


def _part(plan: _Plan, lengths, ids, held_ids, source, run, empty):
    """`run(mask)` for the keys that come from device `source`, or `empty` if all are hidden.

    Without windows, for equal stretches, what hides what depends on two devices only: one of a few
    masks, each known to the compiler. Other masks are known when the program runs.
    """
    within = None if not ids else masks.segments(ids[0], held_ids)

    def go(mask):
        mask = within if mask is None else mask if within is None else mask & within
        return run(mask)

    if not plan.causal:
        return go(None)
    own, devices = jax.lax.axis_index(plan.axis_name), jax.lax.axis_size(plan.axis_name)
    t, s = lengths
    if plan.window is None and plan.striped:
        # Token a of ours comes after their token c if a > c, or a = c and we do.
        return jax.lax.cond(own >= source, lambda: go(masks.causal()), lambda: go(masks.causal(-1)))
    if plan.window is None and t == s:
        where = jnp.sign(own - source) + 1
        return jax.lax.switch(where, [lambda: empty, lambda: go(masks.causal()), lambda: go(None)])
    # Ours is at p = own + devices a (or own t + a), theirs at p' alike: p - window < p' <= p.
    if plan.striped:
        ahead, step = own - source, devices
        first, last = -t * devices, (s + t) * devices
    else:
        ahead, step = own * t - source * s, 1
        first, last = -(t - 1) - ahead, s - 1 - ahead
    mask = masks.causal(ahead // step)
    useful = first <= 0
    if plan.window is not None:
        # c - a > (ahead - window) / step, in whole numbers.
        mask = mask & ~masks.causal((ahead - plan.window) // step)
        useful &= last > -plan.window
    return jax.lax.cond(useful, lambda: go(mask), lambda: empty)


def _hand_on(plan: _Plan, tree: Any) -> Any:
    size = jax.lax.axis_size(plan.axis_name)
    pairs = [(n, (n + 1) % size) for n in range(size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, plan.axis_name, pairs), tree)


def _source(plan: _Plan, step):
    """Whose keys a device holds at a step."""
    size = jax.lax.axis_size(plan.axis_name)
    return (jax.lax.axis_index(plan.axis_name) - step) % size


def _attend(plan: _Plan, query, key, value, mask, **options):
    return attend(
        query,
        key,
        value,
        mask=mask,
        scale=plan.scale,
        implementation=plan.implementation,
        **options,
    )


def _forward(plan: _Plan, query, key, value, ids):
    dtype = jnp.promote_types(jnp.result_type(query, key, value), jnp.float32)
    empty = vary_like(
        (
            jnp.zeros((*query.shape[:3], value.shape[3]), dtype),
            jnp.full(query.shape[:3], -jnp.inf, dtype),
        ),
        query,
    )

    def part(held, step):
        key, value, *held_ids = held

        def run(mask):
            out, lse = _attend(plan, query, key, value, mask, return_lse=True)
            return out.astype(dtype), lse

        lengths = query.shape[1], key.shape[1]
        source = _source(plan, step)
        return _part(plan, lengths, ids, held_ids[0] if held_ids else None, source, run, empty)

    def advance(carry, step):
        joined, held = carry
        held = _hand_on(plan, held)
        return (merge(joined, part(held, step)), held), None

    steps = jnp.arange(1, jax.lax.axis_size(plan.axis_name), dtype=jnp.int32)
    start = (key, value, *ids[1:])
    (joined, _), _ = jax.lax.scan(advance, (part(start, 0), start), steps)
    return joined[0].astype(query.dtype), joined[1]


def _forward_saving(plan: _Plan, query, key, value, ids):
    out, lse = _forward(plan, query, key, value, ids)
    return (out, lse), (query, key, value, ids, out, lse)


def _backward(plan: _Plan, saved, cotangents):
    """With w_j = exp(s_j - lse) of the whole row, ds_j = w_j (v_j . dout + dlse - out . dout).

    That is the gradient of `attend` with the whole row's lse given and held, where each value has
    one more entry, 1, whose cotangent is dlse - out . dout.
    """
    query, key, value, ids, out, lse = saved
    d_out, d_lse = cotangents
    dtype = lse.dtype
    last = d_lse - (d_out.astype(dtype) * out.astype(dtype)).sum(-1)
    last = jnp.where(lse == -jnp.inf, 0, last)[..., None]
    d_mixed = jnp.concatenate([d_out.astype(dtype), last], -1).astype(query.dtype)
    rule = given_lse(jnp.where(lse == -jnp.inf, 0, lse))

    def part(held, step):
        key, value, *held_ids = held

        def run(mask):
            def mixed(query, key, value):
                ones = jnp.ones((*value.shape[:3], 1), value.dtype)
                value = jnp.concatenate([value, ones], -1)
                return _attend(plan, query, key, value, mask, normalizer=rule)

            gradients = jax.vjp(mixed, query, key, value)[1](d_mixed)
            return jax.tree.map(lambda g: g.astype(dtype), gradients)

        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), (query, key, value))
        lengths = query.shape[1], key.shape[1]
        source = _source(plan, step)
        empty = vary_like(empty, query)
        return _part(plan, lengths, ids, held_ids[0] if held_ids else None, source, run, empty)

    def advance(carry, step):
        d_query, held, d_held = carry
        d_own, *d_theirs = part(held, step)
        d_held = jax.tree.map(jnp.add, d_held, tuple(d_theirs))
        return (d_query + d_own, *_hand_on(plan, (held, d_held))), None

    zeros = functools.partial(jnp.zeros_like, dtype=dtype)
    start = (zeros(query), (key, value, *ids[1:]), (zeros(key), zeros(value)))
    start = vary_like(start, query)
    steps = jnp.arange(jax.lax.axis_size(plan.axis_name), dtype=jnp.int32)
    (d_query, _, (d_key, d_value)), _ = jax.lax.scan(advance, start, steps)
    gradients = tuple(
        g.astype(x.dtype)
        for g, x in zip((d_query, d_key, d_value), (query, key, value), strict=True)
    )
    return (*gradients, None)


_ring = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_ring.defvjp(_forward_saving, _backward)
