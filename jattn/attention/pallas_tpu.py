"""Attention on TPU: one Pallas kernel forward, one backward, for all that can be streamed.

Both hold tiles of scores with keys as rows and queries as columns. What belongs to a query (running
maximum, sum, log-sum-exp) is then a row `[1, block_q]`, an eighth of a register for each 128
queries, and its reductions run down the rows, which costs a vector unit little. Queries and outputs
lie as `[d, t]`, so a head of 64 or 80 dimensions fills its registers.

Forward, a block of queries meets blocks of keys with a running maximum (arXiv 1805.02867). Backward
is one kernel too: a block of keys meets blocks of queries, each tile of weights is computed once
more from the saved log-sum-exp (arXiv 2307.08691), and the gradient of all queries of the head's
group stays on the chip meanwhile. Tiles a mask leaves empty cost nothing, full ones are not masked.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jattn.attention import score_programs
from jattn.attention.blocks import CHIPS, Blocks
from jattn.attention.case import Case
from jattn.attention.masks import band
from jattn.attention.tpu.backward import backward
from jattn.attention.tpu.forward import forward
from jattn.attention.tpu.plan import Floats, Plan, Rest, Tile
from jattn.attention.tpu.walk import LANES
from jattn.platforms import device_kind

# Most chips have 128 MiB of vector memory, these 64. A limit beyond what there is takes all of it,
# and leaves XLA nothing.
VMEM = {"v5p": 48 * 2**20, "tpu7x": 48 * 2**20}


def refusal(case: Case) -> str | None:
    """Why these kernels cannot serve, or None."""
    if case.return_weights:
        return "it never holds the weights (return_weights)"
    if case.dtype == jnp.float64:
        return "a TPU has no float64"
    score_mod = case.score_mod
    if score_mod is not None:
        try:
            b, _, h, _ = case.query.shape
            jax.eval_shape(
                lambda: score_programs.split(score_mod, b, h, (8, 128), jnp.float32).numbers
            )
        except NotImplementedError as error:
            return str(error)
    return None


def pallas_tpu(case: Case, blocks: Blocks, interpret: bool = False):
    """Output `[b, t, h, e]` and lse `[b, t, h]`, as the reference defines them.

    Args:
        case: what `attend` was asked.
        blocks: sizes of tiles.
        interpret: run on another machine, slowly.
    """
    t = case.query.shape[1]
    s = case.key.shape[1]
    dtype = jnp.result_type(case.query, case.key, case.value)
    dtype = jnp.dtype(jnp.bfloat16 if dtype == jnp.bfloat16 else jnp.float32)
    query, key, value = case.query, case.key, case.value
    scale = case.scale
    if isinstance(scale, jax.Array) or scale <= 0:
        query, scale, dtype = query.astype(jnp.float32) * scale, 1.0, jnp.dtype(jnp.float32)
    groups = math.lcm(key.shape[2], value.shape[2])
    key, value = (jnp.repeat(x, groups // x.shape[2], axis=2) for x in (key, value))

    forward = _fit(t, s, blocks.query, blocks.key, blocks.key_part)
    backward = _fit(t, s, blocks.backward_query, blocks.backward_key, blocks.backward_key_part)
    numbers: tuple[Array, ...] = ()
    learned: tuple[bool, ...] = ()
    if case.score_mod is not None:
        numbers, learned, program = _score_program(case, forward)
        forward = forward._replace(program=program)
        backward = backward._replace(program=_score_program(case, backward).apply)
    leaves, structure = jax.tree.flatten(case.mask)
    bias, shift = case.bias, case.normalizer.shift
    plan = Plan(
        t, s, forward, backward,
        case.normalizer.function, case.normalizer.divide, case.normalizer.running_max,
        float(scale), bias is not None, shift is not None, learned,
        structure, case.mask is not None, dtype,
        VMEM.get(CHIPS.get(device_kind(), ""), 100 * 2**20),
        pltpu.InterpretParams() if interpret else False,
    )  # fmt: skip
    planes = [x for x in (bias, shift) if x is not None]
    planes += [x for x, learn in zip(numbers, learned, strict=True) if learn]
    floats = Floats(query, key, value, tuple(planes), case.sink)
    other = tuple(x for x, learn in zip(numbers, learned, strict=True) if not learn)
    out, lse = _run(plan, floats, Rest(tuple(map(jnp.asarray, leaves)), other))
    return out.astype(case.query.dtype), lse


def _fit(t: int, s: int, block_q: int, block_k: int, part: int) -> Tile:
    """As few blocks as can be, all of one length, in multiples of a register's lanes."""

    def fit(length, block):
        count = -(-length // block)
        return -(-length // (LANES * count)) * LANES

    block_q, block_k = fit(t, block_q), fit(s, block_k)
    return Tile(block_q, block_k, math.gcd(block_k, part), None)


def _score_program(case: Case, tile: Tile) -> score_programs.ScoreProgram:
    """Its program for a part of a tile and any queries of it that meet the part.

    A program is for one shape, and can only be made here: what it closes over is gone by the time
    a kernel is traced.
    """
    assert case.score_mod is not None
    b, _, h, _ = case.query.shape
    cut = case.mask is not None and band(case.mask) is not None
    widths = range(LANES, tile.block_q + 1, LANES) if cut else (tile.block_q,)
    programs = {
        n: score_programs.split(case.score_mod, b, h, (tile.part, n), jnp.float32) for n in widths
    }

    def apply(given, score, q_index, k_index):
        return programs[score.shape[1]].apply(given, score, q_index, k_index)

    return programs[tile.block_q]._replace(apply=apply)


def _forward_saving(plan, x, rest):
    out, lse = forward(plan, x, rest)
    return (out, lse), (x, rest, out, lse)


_core = jax.custom_vjp(forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, backward)
_run = jax.jit(_core, static_argnums=0)
