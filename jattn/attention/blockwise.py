"""Attention by blocks in plain XLA: the logits are met tile by tile.

Forward, each block of queries keeps a running maximum, a running sum and an output while it meets
the blocks of keys (arXiv 1805.02867, 2112.05682). Backward, every tile of weights is computed once
more from the saved log-sum-exp (FlashAttention-2, arXiv 2307.08691). Temporary memory grows with
t + s, not with t * s. Tiles that a mask leaves empty are never visited, full ones are not masked:
the tiles to visit are sorted first, so the loops run over what there is to do, also where the mask
is known at run time only.

The backward pass is the transpose of the tangent map (see `jattn.attention.transposable`). Forward
mode, and derivatives of derivatives, take rows of scores instead, one block of queries against all
keys at a time: any order, with memory for one such row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.attention.attention_args import AttentionArgs
from jattn.attention.dropout import kept
from jattn.attention.logits_operands import add_tile, pad_logits_operand, slice_tile
from jattn.attention.masks import FULL, PARTIAL, Mask
from jattn.attention.nonfinite import finite_lse, hide_nonfinite
from jattn.attention.scalar_functions import ScalarFunction
from jattn.attention.tiling import ScheduleTables, schedule_tables, summarise
from jattn.attention.transposable import with_transpose
from jattn.sharding import vary_like

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
    score_function: ScalarFunction | None
    learned: tuple[bool, ...]  # which of the arrays it closes over are differentiable
    dropout_rate: float | None
    has_mask: bool  # whether there is a mask
    any_full: bool
    any_partial: bool
    dtype: DTypeLike


class _DifferentiableOperands(NamedTuple):
    """Operands that have a gradient: `[b, h, t, d]` here, padded to whole blocks."""

    query: Array
    key: Array
    value: Array
    bias: Array | None
    shift: Array | None
    sink: Array | None
    constants: tuple[Array, ...]


class _OtherOperands(NamedTuple):
    """What has none."""

    mask: Mask | None
    constants: tuple[Any, ...]
    words: Array | None  # of dropout
    by_query: ScheduleTables
    by_key: ScheduleTables


def blockwise(args: AttentionArgs) -> tuple[Array, Array | None]:
    """Output `[b, t, h, e]`, and lse `[b, t, h]` where asked for, as the reference has them."""
    b, t, h, _ = args.query.shape
    s = args.key.shape[1]
    block_q, block_k = _block_sizes(b * h, t, s)
    padded_t, padded_s = -(-t // block_q) * block_q, -(-s // block_k) * block_k

    summary = summarise(args.mask, t, s, block_q, block_k)
    static = isinstance(summary, np.ndarray)
    # Only floating tracers can be under differentiation.
    learned = tuple(
        isinstance(c, Tracer) and jnp.issubdtype(c.dtype, jnp.floating) for c in args.closed_over
    )
    pairs = list(zip(args.closed_over, learned, strict=True))

    def rows(x, length):
        x = jnp.swapaxes(x, 1, 2)
        return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, 0)))

    def padded(x):
        return None if x is None else pad_logits_operand(x, padded_t, padded_s)

    sink = args.sink
    if sink is not None and sink.shape[2] > 1:
        sink = jnp.pad(sink, ((0, 0), (0, 0), (0, padded_t - t)))
    # In the computing dtype: a rounded scale * query would cost bfloat16 half of its accuracy.
    query = rows(args.query, padded_t).astype(args.dtype) * args.scale
    plan = _Plan(
        t,
        s,
        block_q,
        block_k,
        args.normalizer.function,
        args.normalizer.divide,
        args.normalizer.running_max,
        args.score_function,
        learned,
        None if args.dropout is None else args.dropout.rate,
        args.mask is not None,
        not static or bool((summary == FULL).any()),
        not static or bool((summary == PARTIAL).any()),
        args.dtype,
    )
    floats = _DifferentiableOperands(
        query,
        rows(args.key, padded_s),
        rows(args.value, padded_s),
        padded(args.bias),
        padded(args.normalizer.shift),
        sink,
        tuple(c for c, learn in pairs if learn),
    )
    mask = None if args.mask is None else args.mask.pad(padded_t, padded_s)
    rest = _OtherOperands(
        mask,
        tuple(c for c, learn in pairs if not learn),
        None if args.dropout is None else args.dropout.words,
        schedule_tables(summary),
        schedule_tables(summary.T),
    )
    floats, rest = vary_like((floats, rest), floats, rest)
    out, lse, _, total = _run(plan, floats, rest)
    out = jnp.swapaxes(out[:, :, :t], 1, 2).astype(args.out_dtype)
    if not args.return_lse:
        return out, None
    return out, jnp.swapaxes(jnp.where(total == 0, -jnp.inf, lse)[:, :, :t], 1, 2)


def _block_sizes(rows: int, t: int, s: int) -> tuple[int, int]:
    """Block lengths: near MAX_BLOCK, smaller for many rows (b * h), with little padding."""
    most = MAX_BLOCK
    while most > 64 and rows * most * most > TILE_ELEMENTS:
        most //= 2

    def split(length):
        even = -(-length // -(-length // most))
        return -(-even // 8) * 8

    return split(t), split(s)


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


def _tile(
    plan: _Plan,
    rest: _OtherOperands,
    i,
    j,
    masked: bool,
    score,
    bias,
    shift,
    constants,
    nan_markers,
):
    """From raw scores to those that `function` is applied to, and which of them are allowed."""
    q_start, k_start = i * plan.block_q, j * plan.block_k
    allowed = None
    if masked:
        allowed = jnp.ones((1, 1, 1, 1), bool)
        if rest.mask is not None:
            allowed = rest.mask.tile(q_start, k_start, plan.block_q, plan.block_k)
        if plan.s % plan.block_k:
            allowed &= k_start + jnp.arange(plan.block_k, dtype=jnp.int32) < plan.s
    shown = []  # What is not hidden: by the mask, by a bias, by a modification of scores.
    if allowed is not None:
        shown.append(allowed)
    if plan.t % plan.block_q and not (plan.running_max and plan.score_function is None):
        # Padded queries have no gradient that zero times infinity could spoil.
        q_index = q_start + jnp.arange(plan.block_q, dtype=jnp.int32)
        shown.append((q_index < plan.t)[:, None])
    if bias is not None:
        if plan.score_function is not None or not plan.running_max:
            shown.append(bias != -jnp.inf)
            bias = jnp.where(bias != -jnp.inf, bias, 0)
        score += bias
    if plan.score_function is not None:
        if shown:  # No gradient comes back from where a modification may have none.
            score = jnp.where(functools.reduce(jnp.logical_and, shown), score, 0)
        score = _modify(plan, rest, q_start, k_start, constants, score)
        if not plan.running_max:
            shown.append(score != -jnp.inf)
    if nan_markers is not None:
        score += nan_markers
    if shift is not None:
        score -= shift
    if not shown:
        return score, None
    allowed = functools.reduce(jnp.logical_and, shown)
    return jnp.where(allowed, score, -jnp.inf if plan.running_max else 0), allowed


def _modify(plan: _Plan, rest: _OtherOperands, q_start, k_start, constants, score):
    differentiable, other = iter(constants), iter(rest.constants)
    closed_over = [next(differentiable if learn else other) for learn in plan.learned]
    # Padding gets the index of the last true one, so that no look-up runs out of its table.
    q_index = jnp.minimum(q_start + jnp.arange(plan.block_q, dtype=jnp.int32), plan.t - 1)
    k_index = jnp.minimum(k_start + jnp.arange(plan.block_k, dtype=jnp.int32), plan.s - 1)
    b, h = (jnp.arange(size, dtype=jnp.int32) for size in score.shape[:2])
    assert plan.score_function is not None
    return plan.score_function.over_tile(closed_over, q_index, k_index, b, h, score)


def _kept(plan: _Plan, rest: _OtherOperands, i, j):
    """What dropout multiplies the weights of a tile by; None without dropout."""
    if plan.dropout_rate is None:
        return None
    assert rest.words is not None
    words = rest.words[..., None, None]
    q_index = i * plan.block_q + jnp.arange(plan.block_q, dtype=jnp.int32)
    k_index = j * plan.block_k + jnp.arange(plan.block_k, dtype=jnp.int32)
    return kept(plan.dropout_rate, (words[0], words[1]), q_index[:, None], k_index)


def _weigh(plan: _Plan, score, allowed, row):
    """Weights of a tile, not divided; `row` is the (running) maximum of each query."""
    if plan.running_max:  # Hidden scores are -inf here, and exp makes them zero.
        return plan.function(score - row[..., None])
    weight = plan.function(score)
    return weight if allowed is None else jnp.where(allowed, weight, 0)


def _load(plan: _Plan, x: _DifferentiableOperands, j, masked: bool):
    """The block of keys and values of a tile; clean of NaN where some of them are hidden."""
    key = _block(x.key, j, plan.block_k).astype(plan.dtype)
    value = _block(x.value, j, plan.block_k).astype(plan.dtype)
    return hide_nonfinite(key, value, x.query.shape[1]) if masked else (key, value, None)


def _operand_tile(plan: _Plan, operand, i, j):
    if operand is None:
        return None
    corner = (i * plan.block_q, j * plan.block_k, plan.block_q, plan.block_k)
    return slice_tile(operand, *corner).astype(plan.dtype)


def _visit(plan: _Plan, tables: ScheduleTables, n, step, carry):
    """Folds `step(other block, masked, carry)` over the tiles of block n: full, then partial."""
    full, visited = tables.full[n], tables.visited[n]
    for present, masked, start, stop in (
        (plan.any_full, False, jnp.zeros_like(full), full),
        (plan.any_partial, True, full, visited),
    ):
        if present:
            carry = jax.lax.fori_loop(
                start, stop, lambda m, c, masked=masked: step(tables.order[n, m], masked, c), carry
            )
    return carry


def _forward(
    plan: _Plan, x: _DifferentiableOperands, rest: _OtherOperands
) -> tuple[Array, Array, Array]:
    """Output; the largest score of each query, 0 where there is none; the sum of its weights."""
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
            key, value, nan_markers = _load(plan, x, j, masked)
            score, allowed = _tile(
                plan, rest, i, j, masked,
                _scores(query, key),
                _operand_tile(plan, x.bias, i, j), _operand_tile(plan, x.shift, i, j),
                x.constants, nan_markers,
            )  # fmt: skip
            if plan.running_max:
                new = jnp.maximum(largest, score.max(-1))
                shrink = jnp.exp(largest - _finite(new))
                total, out, largest = total * shrink, out * shrink[..., None], new
            weight = _weigh(plan, score, allowed, _finite(largest))
            total += weight.sum(-1)
            factor = _kept(plan, rest, i, j)
            weight = weight if factor is None else weight * factor.astype(weight.dtype)
            out += _product("bgrqk,bgke->bgrqe", weight, value, value.shape[1])
            return largest, total, out

        start = vary_like((largest, total, out), x.query)
        largest, total, out = _visit(plan, rest.by_query, i, step, start)
        safe = jnp.where(total == 0, 1, total)
        return out / safe[..., None] if plan.divide else out, _finite(largest), total

    out, largest, total = jax.lax.map(row, jnp.arange(t // plan.block_q, dtype=jnp.int32))
    return _join(out), _join(largest), _join(total)


def _finite(row):
    """The running maximum, or 0 for rows that have met no key yet: -inf - -inf is NaN."""
    return jnp.where(row == -jnp.inf, 0, row)


def _join(blocks):
    """`[n, b, h, block, ...]` to `[b, h, n * block, ...]`."""
    blocks = jnp.moveaxis(blocks, 0, 2)
    return blocks.reshape(*blocks.shape[:2], -1, *blocks.shape[4:])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _core(plan: _Plan, x: _DifferentiableOperands, rest: _OtherOperands) -> tuple[Array, ...]:
    """Output, finite lse; and the largest score and the sum, which have no derivatives."""
    out, largest, total = _forward(plan, x, rest)
    return out, finite_lse(largest, total), largest, total


@_core.defjvp
def _core_jvp(plan, primals, tangents):
    x, rest = primals
    # By the rule once more, lest an outer derivative turn round the loops inside.
    out, lse, largest, total = _core(plan, x, rest)
    d_out, d_lse = with_transpose(
        functools.partial(_tangents, plan),
        functools.partial(_backward, plan),
        (x, rest, out, largest, total),
        tangents[0],
        like=(out, lse),
    )
    none = vary_like((jnp.zeros_like(largest), jnp.zeros_like(total)), largest)
    return (out, lse, largest, total), (d_out, d_lse, *none)


_run = jax.jit(_core, static_argnums=0)


def _rows(plan: _Plan, x: _DifferentiableOperands, rest: _OtherOperands) -> tuple[Array, Array]:
    """Output and log of sums once more, in plain JAX: a block of queries against all keys."""
    whole = plan._replace(block_k=x.key.shape[2])
    x = x._replace(query=_finite_queries(plan, x.query))

    @jax.checkpoint
    def row(i):
        query = _block(x.query, i, plan.block_q)
        key, value, nan_markers = _load(whole, x, 0, True)
        score, allowed = _tile(
            whole, rest, i, 0, True,
            _scores(query, key),
            _operand_tile(whole, x.bias, i, 0), _operand_tile(whole, x.shift, i, 0),
            x.constants, nan_markers,
        )  # fmt: skip
        largest = jnp.zeros(score.shape[:3], plan.dtype)
        sink = x.sink
        if sink is not None:
            sink = sink if sink.shape[2] == 1 else _block(sink, i, plan.block_q)
        if plan.running_max:
            largest = score.max(-1)
            largest = largest if sink is None else jnp.maximum(largest, sink)
            largest = jax.lax.stop_gradient(_finite(largest))
        weight = _weigh(plan, score, allowed, largest)
        total = weight.sum(-1)
        if sink is not None:
            total += plan.function(sink - largest)
        factor = _kept(whole, rest, i, 0)
        weight = weight if factor is None else weight * factor.astype(weight.dtype)
        out = _product("bgrqk,bgke->bgrqe", weight, value, value.shape[1])
        some = total != 0
        safe = jnp.where(some, total, 1)
        out = jnp.where(some[..., None], out / safe[..., None] if plan.divide else out, 0)
        return out, finite_lse(largest, total)

    out, lse = jax.lax.map(row, jnp.arange(x.query.shape[2] // plan.block_q, dtype=jnp.int32))
    return _join(out), _join(lse)


def _tangents(plan, residuals, tangents):
    x, rest, *_ = residuals
    return jax.jvp(lambda x: _rows(plan, x, rest), (x,), (tangents,))[1]


def _finite_queries(plan: _Plan, query: Array) -> Array:
    """Queries for products with gradients: where one is not finite and sees keys, those are NaN."""
    return jnp.where(jnp.isfinite(query), query, 0) if plan.has_mask else query


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _backward(plan, residuals, cotangents):
    """Gradients, tile by tile: for each block of keys all blocks of queries that meet it.

    With w = f(score), out = sum_j w_j v_j / total and lse = log(total):
        dw_j = (dout . v_j - dout . out + dlse) / total
    For softmax f(score) = exp(score - largest): that and 1 / total are kept apart, since where the
    scores are huge (all keys hidden by a bias of -1e30, say) their log-sum-exp loses the total.
    """
    x, rest, out, largest, total = residuals
    d_out, d_lse = cotangents
    b = x.query.shape[0]
    some = total != 0
    d_out = jnp.where(some[..., None], d_out, 0)
    d_total = jnp.zeros_like(total)
    if plan.divide:
        inverse = jnp.where(some, 1 / jnp.where(some, total, 1), 0)
        d_total = jnp.where(some, d_lse - (d_out * out).sum(-1), 0) * inverse
        d_out = d_out * inverse[..., None]
    query_of = _finite_queries(plan, x.query)

    def wide(a):
        return jnp.zeros_like(a, dtype=jnp.promote_types(a.dtype, plan.dtype))

    d_operands = tuple(None if p is None else wide(p) for p in (x.bias, x.shift))
    carry = (jnp.zeros_like(x.query), d_operands, tuple(map(wide, x.constants)))
    carry = vary_like(carry, x.query)

    def column(carry, j):
        def step(i, masked, carry):
            (d_query, d_operands, d_constants), d_key, d_value = carry
            key, value, nan_markers = _load(plan, x, j, masked)
            query, d_out_i = (_block(a, i, plan.block_q) for a in (query_of, d_out))
            row_i, d_total_i = (_block(a, i, plan.block_q) for a in (largest, d_total))

            def weigh(score, bias, shift, constants):
                tile = _tile(plan, rest, i, j, masked, score, bias, shift, constants, nan_markers)
                return _weigh(plan, *tile, row_i)

            weight, pull = jax.vjp(
                weigh,
                _scores(query, key),
                _operand_tile(plan, x.bias, i, j),
                _operand_tile(plan, x.shift, i, j),
                x.constants,
            )
            d_weight, factor = _scores(d_out_i, value), _kept(plan, rest, i, j)
            if factor is not None:
                factor = factor.astype(weight.dtype)
                weight, d_weight = weight * factor, d_weight * factor
            d_score, d_bias, d_shift, d_own = pull(d_weight + d_total_i[..., None])
            d_operands = tuple(
                None if a is None else add_tile(a, d, i * plan.block_q, j * plan.block_k)
                for a, d in zip(d_operands, (d_bias, d_shift), strict=True)
            )
            d_constants = jax.tree.map(jnp.add, d_constants, d_own)
            d_row = _product("bgrqk,bgkd->bgrqd", d_score, key, key.shape[1])
            d_query = add_tile(d_query, d_row, i * plan.block_q, 0)
            d_key += _product("bgrqk,bgrqd->bgkd", d_score, query, key.shape[1])
            d_value += _product("bgrqk,bgrqe->bgke", weight, d_out_i, value.shape[1])
            return (d_query, d_operands, d_constants), d_key, d_value

        zeros = [
            jnp.zeros((b, a.shape[1], plan.block_k, a.shape[3]), plan.dtype)
            for a in (x.key, x.value)
        ]
        start = (carry, *vary_like(zeros, x.query))
        carry, d_key, d_value = _visit(plan, rest.by_key, j, step, start)
        return carry, (d_key, d_value)

    blocks = jnp.arange(x.key.shape[2] // plan.block_k, dtype=jnp.int32)
    carry, columns = jax.lax.scan(column, carry, blocks)
    d_query, (d_bias, d_shift), d_constants = carry
    d_key, d_value = map(_join, columns)
    d_sink = None
    if x.sink is not None:

        def weigh_sink(sink):
            return plan.function(jnp.broadcast_to(sink, largest.shape) - largest)

        d_sink = jax.vjp(weigh_sink, x.sink)[1](d_total)[0]
    gradients = _DifferentiableOperands(
        d_query, d_key, d_value, d_bias, d_shift, d_sink, d_constants
    )
    return jax.tree.map(lambda g, like: g.astype(like.dtype), gradients, x)


@_backward.defjvp
def _backward_jvp(plan, primals, tangents):
    """The derivative of the gradient, from rows of scores."""

    def again(x, cotangents):
        return jax.vjp(lambda x: _rows(plan, x, rest), x)[1](cotangents)[0]

    (x, rest, *_), cotangents = primals
    given = (x, cotangents)
    return jax.jvp(again, given, (tangents[0][0], tangents[1]))
