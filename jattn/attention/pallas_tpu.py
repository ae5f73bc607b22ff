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
from jaxtyping import Array

from jattn.attention import score_programs
from jattn.attention.attention_args import AttentionArgs
from jattn.attention.blocks import CHIPS, Blocks
from jattn.attention.mask_function import FunctionMask
from jattn.attention.masks import band, parts
from jattn.attention.nonfinite import finite_lse
from jattn.attention.tiling import known_summary
from jattn.attention.tpu.backward import backward
from jattn.attention.tpu.forward import forward
from jattn.attention.tpu.plan import DifferentiableOperands, OtherOperands, Plan, Tile
from jattn.attention.tpu.schedule import LANES
from jattn.platforms import device_kind

# Most chips have 128 MiB of vector memory, these 64. A limit beyond what there is takes all of it,
# and leaves XLA nothing.
VMEM = {"v5p": 48 * 2**20, "tpu7x": 48 * 2**20}


def unsupported_reason(args: AttentionArgs) -> str | None:
    """Why these kernels cannot serve, or None."""
    if args.return_weights:
        return "it never holds the weights (return_weights)"
    if args.dtype == jnp.float64:
        return "a TPU has no float64"
    for part in parts(args.mask) if args.mask is not None else []:
        if isinstance(part, FunctionMask) and part.lookups():
            return part.lookups()
    if args.score_function is not None:
        score_mod = args.score_function.function
        try:
            b, _, h, _ = args.query.shape
            jax.eval_shape(
                lambda: (
                    score_programs.split(score_mod, b, h, (8, 128), jnp.float32).score_mod_operands
                )
            )
        except NotImplementedError as error:
            return str(error)
        except (TypeError, ValueError, IndexError) as error:
            return f"its score_mod cannot be traced over a tile: {str(error).splitlines()[0]:.120}"
    return None


def pallas_tpu(args: AttentionArgs, blocks: Blocks, interpret: bool = False):
    """Output `[b, t, h, e]`, and lse `[b, t, h]` where asked for, as the reference has them.

    Args:
        args: what `attend` was asked.
        blocks: sizes of tiles.
        interpret: run on another machine, slowly.
    """
    t = args.query.shape[1]
    s = args.key.shape[1]
    dtype = jnp.result_type(args.query, args.key, args.value)
    dtype = jnp.dtype(jnp.bfloat16 if dtype == jnp.bfloat16 else jnp.float32)
    query, key, value = args.query, args.key, args.value
    scale = args.scale
    if isinstance(scale, jax.Array) or scale <= 0:
        query, scale, dtype = query.astype(jnp.float32) * scale, 1.0, jnp.dtype(jnp.float32)
    groups = math.lcm(key.shape[2], value.shape[2])
    key, value = (jnp.repeat(x, groups // x.shape[2], axis=2) for x in (key, value))

    forward = _fit(args, blocks.query, blocks.key, blocks.key_part)
    backward = _fit(args, blocks.backward_query, blocks.backward_key, blocks.backward_key_part)
    score_mod_operands: tuple[Array, ...] = ()
    learned: tuple[bool, ...] = ()
    if args.score_function is not None:
        score_mod_operands, learned, program = _score_program(args, forward)
        forward = forward._replace(program=program)
        backward = backward._replace(program=_score_program(args, backward).apply)
    leaves, structure = jax.tree.flatten(args.mask)
    bias, shift = args.bias, args.normalizer.shift
    plan = Plan(
        t, s, forward, backward,
        args.normalizer.function, args.normalizer.divide, args.normalizer.running_max,
        float(scale), bias is not None, shift is not None, learned,
        structure, args.mask is not None,
        None if args.dropout is None else args.dropout.rate, dtype,
        VMEM.get(CHIPS.get(device_kind(), ""), 100 * 2**20),
        interpret,
    )  # fmt: skip
    logits_operands = [x for x in (bias, shift) if x is not None]
    logits_operands += [x for x, learn in zip(score_mod_operands, learned, strict=True) if learn]
    floats = DifferentiableOperands(query, key, value, tuple(logits_operands), args.sink)
    other = tuple(x for x, learn in zip(score_mod_operands, learned, strict=True) if not learn)
    # Behind a barrier: a mask known when the program is compiled is not folded by the compiler.
    leaves = tuple(jax.lax.optimization_barrier(jnp.asarray(leaf)) for leaf in leaves)
    words = () if args.dropout is None else tuple(args.dropout.words[..., None, None])
    out, lse, total = _run(plan, floats, OtherOperands(leaves, other, words))
    out = out.astype(args.out_dtype)
    return out, jnp.where(total == 0, -jnp.inf, lse) if args.return_lse else None


def _fit(args: AttentionArgs, block_q: int, block_k: int, part: int) -> Tile:
    """As few blocks as can be, all of one length, in multiples of a register's lanes."""
    t, s = args.query.shape[1], args.key.shape[1]

    def fit(length, block):
        count = -(-length // block)
        return -(-length // (LANES * count)) * LANES

    block_q, block_k = fit(t, block_q), fit(s, block_k)
    summary = known_summary(args.mask, t, s, block_q, block_k)
    return Tile(block_q, block_k, math.gcd(block_k, part), None, summary)


def _score_program(args: AttentionArgs, tile: Tile) -> score_programs.ScoreProgram:
    """Its program for a part of a tile and any queries of it that meet the part.

    A program is for one shape, and can only be made here: what it closes over is gone by the time
    a kernel is traced.
    """
    assert args.score_function is not None
    score_mod = args.score_function.function
    b, _, h, _ = args.query.shape
    cut = args.mask is not None and band(args.mask) is not None
    widths = range(LANES, tile.block_q + 1, LANES) if cut else (tile.block_q,)
    programs = {
        n: score_programs.split(score_mod, b, h, (tile.part, n), jnp.float32) for n in widths
    }

    def apply(given, score, q_index, k_index):
        return programs[score.shape[1]].apply(given, score, q_index, k_index)

    return programs[tile.block_q]._replace(apply=apply)


def _forward(plan, x, rest):
    out, largest, total = forward(plan, x, rest)
    return out, finite_lse(largest, total), total


def _forward_saving(plan, x, rest):
    out, largest, total = forward(plan, x, rest)
    return (out, finite_lse(largest, total), total), (x, rest, out, largest, total)


_core = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, backward)
_run = jax.jit(_core, static_argnums=0)
