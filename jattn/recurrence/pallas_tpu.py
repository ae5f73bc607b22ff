"""The recurrence on TPU: a kernel that walks over chunks with the state on the chip.

Forward, the state never leaves the chip but for a copy at the start of every chunk, kept where
gradients are wanted. Backward, the chunks are met in reverse, and each is differentiated by
`jax.vjp` of `chunk_step` inside the kernel, with the state's gradient on the chip.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from jattn.pallas.tpu import as_column, as_row, product
from jattn.recurrence.chunk_step import chunk_step

CHUNK = 128


class _Plan(NamedTuple):
    """What is fixed when the program is traced; hashable."""

    dtype: Any  # of operands of products: float32, which is then exact, or bfloat16
    interpret: Any


class _Inputs(NamedTuple):
    """Arrays by head, padded to whole chunks. Numbers of each token are rows `[b, h, 1, t]`."""

    query: Float[Array, "b h t d"]
    key: Float[Array, "b h t d"]
    value: Float[Array, "b h t e"]
    decay: Array | None  # [b, h, 1, t] or [b, h, t, d]
    beta: Float[Array, "b h 1 t"] | None
    state: Float[Array, "b h e d"]


def recur_pallas(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    decay: Float[Array, "b t h #d"] | None,
    beta: Float[Array, "b t h"] | None,
    state: Float[Array, "b h d e"],
    *,
    exact: bool = True,
    interpret: bool = False,
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h d e"]]:
    """`recur` by the kernel; arguments as `recur_chunked` takes them, in float32.

    Args:
        query, key, value, decay, beta, state: as `recur_chunked`.
        exact: products in full float32; else their operands are rounded to bfloat16.
        interpret: run on another machine, slowly.
    """
    length = query.shape[1]

    def by_head(x):
        # Padding with zeros writes nothing (key 0) and forgets nothing (log decay 0).
        x = jnp.swapaxes(x, 1, 2)
        return jnp.pad(x, ((0, 0), (0, 0), (0, -length % CHUNK), (0, 0)))

    per_channel = decay is not None and decay.shape[-1] > 1
    if decay is not None:
        decay = by_head(decay) if per_channel else jnp.swapaxes(by_head(decay), 2, 3)
    if beta is not None:
        beta = jnp.swapaxes(by_head(beta[..., None]), 2, 3)
    inputs = _Inputs(
        by_head(query), by_head(key), by_head(value), decay, beta, jnp.swapaxes(state, 2, 3)
    )
    plan = _Plan(jnp.dtype(jnp.float32 if exact else jnp.bfloat16), interpret)
    out, state = _run(plan, inputs)
    return jnp.swapaxes(out[:, :, :length], 1, 2), jnp.swapaxes(state, 2, 3)


def _blocks(inputs: _Inputs, chunk) -> list[pl.BlockSpec]:
    """How the tokens' arrays are cut: all but the state. `chunk` maps a step to its chunk."""
    specs = []
    for x in inputs[:5]:
        if x is None:
            continue
        if x.shape[2] == 1:
            specs.append(pl.BlockSpec((1, 1, 1, CHUNK), lambda b, h, n: (b, h, 0, chunk(n))))
        else:
            block = (1, 1, CHUNK, x.shape[3])
            specs.append(pl.BlockSpec(block, lambda b, h, n: (b, h, chunk(n), 0)))
    return specs


def _tokens(inputs: _Inputs, refs: Sequence[Any]) -> Any:
    """Query, key, value, decay and beta of the chunk at hand, as `chunk_step` takes them."""
    refs = list(refs)
    values: list[Array | None] = []
    for x in inputs[:5]:
        if x is None:
            values.append(None)
        else:
            value = refs.pop(0)[0, 0]
            values.append(as_column(value) if x.shape[2] == 1 else value)
    return values


def _parameters(plan: _Plan, inputs: _Inputs, operands, outputs, passes: int):
    """What all calls share, and a cost: the products of a chunk, times passes over it."""
    b, h, t, d = inputs.query.shape
    e = inputs.value.shape[3]
    pairs = CHUNK * (2 * d + e) + 2 * d * e + (14 * CHUNK**2 if inputs.beta is not None else 0)
    return {
        "compiler_params": pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=64 * 2**20,
        ),
        "cost_estimate": pl.CostEstimate(
            flops=2 * passes * b * h * t * pairs,
            transcendentals=b * h * t * CHUNK if inputs.decay is not None else 0,
            bytes_accessed=sum(4 * x.size for x in (*operands, *outputs)),
        ),
        "interpret": plan.interpret,
    }


def _forward(plan: _Plan, inputs: _Inputs, keep: bool):
    """Reads, final state and, if kept, the state that enters each chunk `[b, h, n, e, d]`."""
    b, h, t, d = inputs.query.shape
    e, count = inputs.value.shape[3], t // CHUNK
    operands = [x for x in inputs if x is not None]

    def kernel(*refs):
        *tokens, first = refs[: len(operands)]
        out, last, *entering = refs[len(operands) : -1]
        state = refs[-1]

        @pl.when(pl.program_id(2) == 0)
        def _():
            state[...] = first[0, 0]

        if keep:
            entering[0][0, 0, 0] = state[...]
        multiply = functools.partial(product, dtype=plan.dtype)
        state[...], out[0, 0] = chunk_step(state[...], *_tokens(inputs, tokens), product=multiply)

        @pl.when(pl.program_id(2) == count - 1)
        def _():
            last[0, 0] = state[...]

    whole = pl.BlockSpec((1, 1, e, d), lambda b, h, n: (b, h, 0, 0))
    give = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    outputs = [give(b, h, t, e), give(b, h, e, d)]
    out_specs = [pl.BlockSpec((1, 1, CHUNK, e), lambda b, h, n: (b, h, n, 0)), whole]
    if keep:
        outputs.append(give(b, h, count, e, d))
        out_specs.append(pl.BlockSpec((1, 1, 1, e, d), lambda b, h, n: (b, h, n, 0, 0)))
    return pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid=(b, h, count),
        in_specs=[*_blocks(inputs, lambda n: n), whole],
        out_specs=out_specs,
        scratch_shapes=[pltpu.VMEM((e, d), jnp.float32)],
        name="recur_forward",
        **_parameters(plan, inputs, operands, outputs, 1),
    )(*operands)


def _run_forward(plan, inputs):
    return tuple(_forward(plan, inputs, keep=False))


def _forward_saving(plan, inputs):
    out, last, entering = _forward(plan, inputs, keep=True)
    return (out, last), (inputs, entering)


def _backward(plan, saved, cotangents):
    inputs, entering = saved
    d_out, d_last = cotangents
    b, h, t, d = inputs.query.shape
    e, count = inputs.value.shape[3], t // CHUNK
    tokens = [x for x in inputs[:5] if x is not None]
    operands = [*tokens, entering, d_out, d_last]

    def kernel(*refs):
        token_refs = refs[: len(tokens)]
        entering, d_out, d_last = refs[len(tokens) : len(operands)]
        *d_tokens, d_first, d_state = refs[len(operands) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            d_state[...] = d_last[0, 0]

        values = _tokens(inputs, token_refs)
        present = [n for n, x in enumerate(values) if x is not None]

        def step(state, *given):
            full: list[Any] = [None] * 5
            for n, x in zip(present, given, strict=True):
                full[n] = x
            return chunk_step(state, *full, product=functools.partial(product, dtype=plan.dtype))

        pull = jax.vjp(step, entering[0, 0, 0], *(values[n] for n in present))[1]
        carried, *gradients = pull((d_state[...], d_out[0, 0]))
        d_state[...] = carried
        for x, ref, gradient in zip(tokens, d_tokens, gradients, strict=True):
            ref[0, 0] = as_row(gradient) if x.shape[2] == 1 else gradient

        @pl.when(pl.program_id(2) == count - 1)
        def _():
            d_first[0, 0] = d_state[...]

    reverse = lambda n: count - 1 - n
    whole = pl.BlockSpec((1, 1, e, d), lambda b, h, n: (b, h, 0, 0))
    give = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32)
    outputs = [*map(give, tokens), give(inputs.state)]
    *d_tokens, d_state = pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid=(b, h, count),
        in_specs=[
            *_blocks(inputs, reverse),
            pl.BlockSpec((1, 1, 1, e, d), lambda b, h, n: (b, h, reverse(n), 0, 0)),
            pl.BlockSpec((1, 1, CHUNK, e), lambda b, h, n: (b, h, reverse(n), 0)),
            whole,
        ],
        out_specs=[*_blocks(inputs, reverse), whole],
        scratch_shapes=[pltpu.VMEM((e, d), jnp.float32)],
        name="recur_backward",
        **_parameters(plan, inputs, operands, outputs, 3),
    )(*operands)
    gradients = iter(d_tokens)
    by_field = [None if x is None else next(gradients) for x in inputs[:5]]
    return (_Inputs._make([*by_field, d_state]),)


_core = jax.custom_vjp(_run_forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, _backward)
_run = jax.jit(_core, static_argnums=0)
