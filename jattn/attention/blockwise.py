"""Attention by blocks in plain XLA: the plane of scores is walked over tile by tile.

Forward, each block of queries keeps a running maximum, a running sum and an output while it meets
the blocks of keys (arXiv 1805.02867, 2112.05682). Backward, every tile of weights is computed once
more from the saved log-sum-exp (FlashAttention-2, arXiv 2307.08691). Temporary memory grows with
t + s, not with t * s. Tiles that a mask leaves empty are never visited, full ones are not masked:
the tiles to visit are sorted first, so the loops run over what there is to do, also where the mask
is known at run time only.

The backward pass is a rule of its own, so forward-mode differentiation is not to be had here; the
reference has it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_jaxpr
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.attention.case import Case, apply_score_mod, hide_nonfinite
from jattn.attention.masks import FULL, PARTIAL, Mask
from jattn.attention.planes import add_tile, pad_plane, slice_tile
from jattn.attention.tiling import Visits, summarise, visits

MAX_BLOCK = 256  # Longer blocks gain nothing on a CPU, need more memory and skip less of a mask.
TILE_ELEMENTS = 2**21  # Scores held at a time, over batch, heads, queries and keys.


class _Plan(NamedTuple):
    """What is fixed when the program is traced. Hashable: equal plans share a compiled program."""

    t: int
    s: int
    block_q: int
    block_k: int
    function: Callable[[Array], Array]
    divide: bool
    running_max: bool
    score_mod: Callable[..., Array] | None
    any_full: bool
    any_partial: bool
    dtype: DTypeLike


class _Floats(NamedTuple):
    """What has a gradient. Arrays are `[b, h, t, d]` here, planes and sink have padded lengths."""

    query: Array
    key: Array
    value: Array
    bias: Array | None
    shift: Array | None
    sink: Array | None
    constants: tuple[Array, ...]


class _Rest(NamedTuple):
    """What has none."""

    mask: Mask | None
    constants: tuple[Any, ...]
    by_query: Visits
    by_key: Visits


def blockwise(case: Case) -> tuple[Array, Array]:
    """Output `[b, t, h, e]` and lse `[b, t, h]`, as the reference defines them."""
    b, t, h, _ = case.query.shape
    s = case.key.shape[1]
    block_q, block_k = _block_sizes(b * h, t, s)
    padded_t, padded_s = -(-t // block_q) * block_q, -(-s // block_k) * block_k

    summary = summarise(case.mask, t, s, block_q, block_k)
    static = isinstance(summary, np.ndarray)
    differentiable, other, score_mod = _close(case, block_q, block_k)

    def rows(x, length):
        x = jnp.swapaxes(x, 1, 2)
        return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, 0)))

    def plane(x):
        return None if x is None else pad_plane(x, padded_t, padded_s)

    sink = case.sink
    if sink is not None and sink.shape[2] > 1:
        sink = jnp.pad(sink, ((0, 0), (0, 0), (0, padded_t - t)))
    # In the computing dtype: a rounded scale * query would cost bfloat16 half of its accuracy.
    query = rows(case.query, padded_t).astype(case.dtype) * case.scale
    plan = _Plan(
        t,
        s,
        block_q,
        block_k,
        case.normalizer.function,
        case.normalizer.divide,
        case.normalizer.running_max,
        score_mod,
        not static or bool((summary == FULL).any()),
        not static or bool((summary == PARTIAL).any()),
        case.dtype,
    )
    floats = _Floats(
        query,
        rows(case.key, padded_s),
        rows(case.value, padded_s),
        plane(case.bias),
        plane(case.normalizer.shift),
        sink,
        differentiable,
    )
    mask = None if case.mask is None else case.mask.pad(padded_t, padded_s)
    rest = _Rest(mask, other, visits(summary), visits(summary.T))
    out, lse = _run(plan, floats, rest)
    out, lse = jnp.swapaxes(out[:, :, :t], 1, 2), jnp.swapaxes(lse[:, :, :t], 1, 2)
    return out.astype(case.query.dtype), lse


def _block_sizes(rows: int, t: int, s: int) -> tuple[int, int]:
    """Block lengths: near MAX_BLOCK, smaller for many rows (b * h), with little padding."""
    most = MAX_BLOCK
    while most > 64 and rows * most * most > TILE_ELEMENTS:
        most //= 2

    def split(length):
        even = -(-length // -(-length // most))
        return -(-even // 8) * 8

    return split(t), split(s)


def _close(case: Case, block_q: int, block_k: int):
    """Splits a score modification into a pure function and the arrays it closes over.

    The rule for the backward pass cannot see arrays in a closure, so they become arguments. Only
    floating tracers can be under differentiation.
    """
    if case.score_mod is None:
        return (), (), None
    b, _, h, _ = case.query.shape
    closed = jax.make_jaxpr(functools.partial(apply_score_mod, case.score_mod))(
        jax.ShapeDtypeStruct((b, h, block_q, block_k), case.dtype),
        jax.ShapeDtypeStruct((block_q,), jnp.int32),
        jax.ShapeDtypeStruct((block_k,), jnp.int32),
    )
    learned = [
        isinstance(c, Tracer) and jnp.issubdtype(c.dtype, jnp.floating) for c in closed.consts
    ]

    def score_mod(differentiable, other, score, q_index, k_index):
        differentiable, other = iter(differentiable), iter(other)
        constants = [next(differentiable) if learn else next(other) for learn in learned]
        return eval_jaxpr(closed.jaxpr, constants, score, q_index, k_index)[0]

    pairs = list(zip(closed.consts, learned, strict=True))
    differentiable = tuple(c for c, learn in pairs if learn)
    return differentiable, tuple(c for c, learn in pairs if not learn), score_mod


def _block(x, index, size):
    return jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=2)


def _product(subscripts: str, left: Array, right: Array, groups: int) -> Array:
    """An einsum over heads "gr": g groups with r heads each; arrays without r have g heads."""
    inputs, out_axes = subscripts.split("->")
    split = [
        x.reshape(x.shape[0], groups, -1, *x.shape[2:]) if "r" in axes else x
        for x, axes in zip((left, right), inputs.split(","), strict=True)
    ]
    out = jnp.einsum(subscripts, *split)
    return out.reshape(out.shape[0], -1, *out.shape[3:]) if "r" in out_axes else out


def _scores(left: Array, right: Array) -> Array:
    return _product("bgrqd,bgkd->bgrqk", left, right, right.shape[1])


def _tile(plan: _Plan, rest: _Rest, i, j, masked: bool, score, bias, shift, constants, poison):
    """From raw scores to those that `function` is applied to, and which of them are allowed."""
    q_start, k_start = i * plan.block_q, j * plan.block_k
    if bias is not None:
        score += bias
    if plan.score_mod is not None:
        # Padding gets the index of the last true one, so that no look-up runs out of its table.
        q_index = jnp.minimum(q_start + jnp.arange(plan.block_q, dtype=jnp.int32), plan.t - 1)
        k_index = jnp.minimum(k_start + jnp.arange(plan.block_k, dtype=jnp.int32), plan.s - 1)
        score = plan.score_mod(constants, rest.constants, score, q_index, k_index)
    if poison is not None:
        score += poison
    if shift is not None:
        score -= shift
    if not masked:
        return score, None
    allowed = jnp.ones((1, 1, 1, 1), bool)
    if rest.mask is not None:
        allowed = rest.mask.tile(q_start, k_start, plan.block_q, plan.block_k)
    if plan.s % plan.block_k:
        allowed &= k_start + jnp.arange(plan.block_k) < plan.s
    hidden = -jnp.inf if plan.running_max else 0
    return jnp.where(allowed, score, hidden), allowed


def _weigh(plan: _Plan, score, allowed, row):
    """Weights of a tile; `row` is the running maximum or the lse of each query."""
    if plan.running_max:  # Hidden scores are -inf here, and exp makes them zero.
        return plan.function(score - row[..., None])
    weight = plan.function(score)
    return weight if allowed is None else jnp.where(allowed, weight, 0)


def _load(plan: _Plan, x: _Floats, j, masked: bool):
    """The block of keys and values of a tile; clean of NaN where some of them are hidden."""
    key = _block(x.key, j, plan.block_k).astype(plan.dtype)
    value = _block(x.value, j, plan.block_k).astype(plan.dtype)
    return hide_nonfinite(key, value, x.query.shape[1]) if masked else (key, value, None)


def _plane_tile(plan: _Plan, plane, i, j):
    if plane is None:
        return None
    place = (i * plan.block_q, j * plan.block_k, plan.block_q, plan.block_k)
    return slice_tile(plane, *place).astype(plan.dtype)


def _visit(plan: _Plan, visits: Visits, n, step, carry):
    """Folds `step(other block, masked, carry)` over the tiles of block n: full, then partial."""
    full, visited = visits.full[n], visits.visited[n]
    for present, masked, start, stop in (
        (plan.any_full, False, jnp.zeros_like(full), full),
        (plan.any_partial, True, full, visited),
    ):
        if present:
            carry = jax.lax.fori_loop(
                start, stop, lambda m, c, masked=masked: step(visits.order[n, m], masked, c), carry
            )
    return carry


def _forward(plan: _Plan, x: _Floats, rest: _Rest) -> tuple[Array, Array]:
    b, h, t, _ = x.query.shape
    rows = (b, h, plan.block_q)

    def row(i):
        query = _block(x.query, i, plan.block_q)
        largest = jnp.full(rows, -jnp.inf if plan.running_max else 0, plan.dtype)
        total = jnp.zeros(rows, plan.dtype)
        if x.sink is not None:  # One more logit, met first, without a value.
            sink = x.sink if x.sink.shape[2] == 1 else _block(x.sink, i, plan.block_q)
            sink = jnp.broadcast_to(sink, rows)
            largest = sink if plan.running_max else largest
            total = plan.function(sink - _finite(largest))
        out = jnp.zeros((*rows, x.value.shape[-1]), plan.dtype)

        def step(j, masked, carry):
            largest, total, out = carry
            key, value, poison = _load(plan, x, j, masked)
            score, allowed = _tile(
                plan, rest, i, j, masked,
                _scores(query, key),
                _plane_tile(plan, x.bias, i, j), _plane_tile(plan, x.shift, i, j),
                x.constants, poison,
            )  # fmt: skip
            if plan.running_max:
                new = jnp.maximum(largest, score.max(-1))
                shrink = jnp.exp(largest - _finite(new))
                total, out, largest = total * shrink, out * shrink[..., None], new
            weight = _weigh(plan, score, allowed, _finite(largest))
            out += _product("bgrqk,bgke->bgrqe", weight, value, value.shape[1])
            return largest, total + weight.sum(-1), out

        largest, total, out = _visit(plan, rest.by_query, i, step, (largest, total, out))
        safe = jnp.where(total == 0, 1, total)
        lse = jnp.where(total == 0, -jnp.inf, _finite(largest) + jnp.log(safe))
        return out / safe[..., None] if plan.divide else out, lse

    out, lse = jax.lax.map(row, jnp.arange(t // plan.block_q))
    return _join(out), _join(lse)


def _finite(row):
    """The running maximum, or 0 for rows that have met no key yet: -inf - -inf is NaN."""
    return jnp.where(row == -jnp.inf, 0, row)


def _join(blocks):
    """`[n, b, h, block, ...]` to `[b, h, n * block, ...]`."""
    blocks = jnp.moveaxis(blocks, 0, 2)
    return blocks.reshape(*blocks.shape[:2], -1, *blocks.shape[4:])


def _forward_saving(plan, x, rest):
    out, lse = _forward(plan, x, rest)
    return (out, lse), (x, rest, out, lse)


def _backward(plan, saved, cotangents):
    """Gradients, tile by tile: for each block of keys all blocks of queries that meet it.

    With w = f(score) and out = sum_j w_j v_j / total, lse = log(total):
        dw_j = (dout . v_j - dout . out + dlse) / total
    For softmax w / total = exp(score - lse), so the division goes into the exponent.
    """
    x, rest, out, lse = saved
    d_out, d_lse = cotangents
    b = x.query.shape[0]
    row, d_total = _finite(lse), jnp.zeros_like(lse)
    if plan.divide:
        d_total = jnp.where(lse == -jnp.inf, 0, d_lse - (d_out * out).sum(-1))
        if not plan.running_max:
            inverse = jnp.where(lse == -jnp.inf, 0, jnp.exp(-row))
            d_out, d_total = d_out * inverse[..., None], d_total * inverse

    wide = functools.partial(jnp.zeros_like, dtype=plan.dtype)
    planes = tuple(None if p is None else wide(p) for p in (x.bias, x.shift))
    carry = (jnp.zeros_like(x.query), planes, tuple(map(wide, x.constants)))

    def column(carry, j):
        def step(i, masked, carry):
            (d_query, planes, d_constants), d_key, d_value = carry
            key, value, poison = _load(plan, x, j, masked)
            query, d_out_i = (_block(a, i, plan.block_q) for a in (x.query, d_out))
            row_i, d_total_i = (_block(a, i, plan.block_q) for a in (row, d_total))

            def weigh(score, bias, shift, constants):
                tile = _tile(plan, rest, i, j, masked, score, bias, shift, constants, poison)
                return _weigh(plan, *tile, row_i)

            weight, pull = jax.vjp(
                weigh,
                _scores(query, key),
                _plane_tile(plan, x.bias, i, j),
                _plane_tile(plan, x.shift, i, j),
                x.constants,
            )
            d_weight = _scores(d_out_i, value) + d_total_i[..., None]
            d_score, d_bias, d_shift, d_own = pull(d_weight)
            planes = tuple(
                None if a is None else add_tile(a, d, i * plan.block_q, j * plan.block_k)
                for a, d in zip(planes, (d_bias, d_shift), strict=True)
            )
            d_constants = jax.tree.map(jnp.add, d_constants, d_own)
            d_row = _product("bgrqk,bgkd->bgrqd", d_score, key, key.shape[1])
            d_query = add_tile(d_query, d_row, i * plan.block_q, 0)
            d_key += _product("bgrqk,bgrqd->bgkd", d_score, query, key.shape[1])
            d_value += _product("bgrqk,bgrqe->bgke", weight, d_out_i, value.shape[1])
            return (d_query, planes, d_constants), d_key, d_value

        zeros = [
            jnp.zeros((b, a.shape[1], plan.block_k, a.shape[3]), plan.dtype)
            for a in (x.key, x.value)
        ]
        carry, d_key, d_value = _visit(plan, rest.by_key, j, step, (carry, *zeros))
        return carry, (d_key, d_value)

    carry, columns = jax.lax.scan(column, carry, jnp.arange(x.key.shape[2] // plan.block_k))
    d_query, (d_bias, d_shift), d_constants = carry
    d_key, d_value = map(_join, columns)
    d_sink = None
    if x.sink is not None:

        def weigh_sink(sink):
            return plan.function(jnp.broadcast_to(sink, row.shape) - shift)

        shift = row if plan.running_max else jnp.zeros_like(row)
        d_sink = jax.vjp(weigh_sink, x.sink)[1](d_total)[0]
    gradients = _Floats(d_query, d_key, d_value, d_bias, d_shift, d_sink, d_constants)
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x), None


_core = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, _backward)
_run = jax.jit(_core, static_argnums=0)
