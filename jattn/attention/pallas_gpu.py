"""Attention on Hopper GPUs: Mosaic kernels, one forward and two backward.

A thread block keeps the rows of a part of the logits, 64 for each of its warpgroups that
compute; one more warpgroup copies blocks of the other axis into a ring in shared memory, where the
matrix unit reads them. Forward, queries are the rows, with a running maximum (arXiv 1805.02867,
2407.08608). Backward, weights are computed once more from the saved log-sum-exp (arXiv 2307.08691):
once with queries as rows for their gradient, once with keys as rows for those of keys and values,
so nothing is added up in global memory and the same numbers come out each time.

Tiles a mask leaves empty are never copied; the order of the others is read from a table. Full ones
are not masked. Weights go from one product to the next by way of shared memory: so much can be
interpreted without a GPU, while products with a factor in registers cannot.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.attention_args import AttentionArgs
from jattn.attention.gpu import programs
from jattn.attention.gpu.backward import backward
from jattn.attention.gpu.broadcast_operands import is_full
from jattn.attention.gpu.forward import forward
from jattn.attention.gpu.plan import (
    WARPGROUP_ROWS,
    WIDEST,
    DifferentiableOperands,
    OtherOperands,
    Plan,
    Program,
    Tile,
)
from jattn.attention.mask_function import FunctionMask
from jattn.attention.masks import parts
from jattn.attention.nonfinite import finite_lse


def unsupported_reason(args: AttentionArgs) -> str | None:
    """Why these kernels cannot serve, or None."""
    d, e = args.query.shape[3], args.value.shape[3]
    mask_parts = [] if args.mask is None else parts(args.mask)
    dtypes = {x.dtype for x in (args.query, args.key, args.value)}
    limits = {
        "it never holds the weights (return_weights)": args.return_weights,
        "its matrix unit takes float16 or bfloat16, one of them": len(dtypes) > 1
        or not dtypes <= {jnp.dtype(jnp.float16), jnp.dtype(jnp.bfloat16)},
        f"it needs d and e of at most {WIDEST}": max(d, e) > WIDEST,
        "beyond 128 it needs d = e": max(d, e) > 128 and d != e,
        "it has softmax only": args.normalizer.name != "softmax",
        "its scale is a positive Python number": isinstance(args.scale, jax.Array)
        or args.scale <= 0,
        "it has no dropout": args.dropout is not None,
        "its mask is a function that looks something up": any(
            isinstance(part, FunctionMask) and part.lookups() for part in mask_parts
        ),
        "it takes no bias and no mask array over both queries and keys": any(
            is_full(leaf) for leaf in jax.tree.leaves((args.bias, args.mask))
        ),
    }
    reasons = [reason for reason, holds in limits.items() if holds]
    if args.score_function is not None:
        function = args.score_function.function
        reason = programs.unsupported_reason(function, args.query.shape[0], args.query.shape[2])
        reasons += [reason] if reason else []
    return "; ".join(reasons) or None


def pallas_gpu(args: AttentionArgs, interpret: Any = None) -> tuple[Array, Array | None]:
    """Output `[b, t, h, e]`, and lse `[b, t, h]` where asked for, as the reference has them.

    Args:
        args: what `attend` was asked.
        interpret: `jax.experimental.pallas.mosaic_gpu.InterpretGPUParams` to run elsewhere, slowly.
    """
    t, s = args.query.shape[1], args.key.shape[1]
    key, value = args.key, args.value
    groups = math.lcm(key.shape[2], value.shape[2])
    key, value = (jnp.repeat(x, groups // x.shape[2], axis=2) for x in (key, value))
    wide = max(args.query.shape[3], value.shape[3]) > 128
    tiles = (
        Tile(groups=2, columns=64 if wide else 128, stages=2),
        Tile(groups=1 if wide else 2, columns=64, stages=2),
    )
    score_mod_operands: tuple[Array, ...] = ()
    learned: tuple[bool, ...] = ()
    used: tuple[Program, Program] | None = None
    if args.score_function is not None:
        b, _, h, _ = args.query.shape
        sizes = ((WARPGROUP_ROWS, tile.columns) for tile in tiles)
        made = [programs.program(args.score_function.function, b, h, size) for size in sizes]
        score_mod_operands, learned = made[0].score_mod_operands, made[0].learned
        used = (made[0].apply, made[1].apply)
    if args.bias is not None:  # A number like others, met first.
        score_mod_operands, learned = (args.bias, *score_mod_operands), (True, *learned)
        used = programs.with_bias(used)
    leaves, structure = jax.tree.flatten(args.mask)
    plan = Plan(
        t, s, *tiles, float(args.scale), used, learned, structure,
        args.mask is not None, args.query.dtype, interpret,
    )  # fmt: skip
    floats = DifferentiableOperands(
        args.query, key, value, args.sink, _pick(score_mod_operands, learned, True)
    )
    rest = OtherOperands(tuple(map(jnp.asarray, leaves)), _pick(score_mod_operands, learned, False))
    out, lse, total = _run(plan, floats, rest)
    out = out.astype(args.out_dtype)
    return out, jnp.where(total == 0, -jnp.inf, lse) if args.return_lse else None


def _pick(score_mod_operands, learned, wanted: bool) -> tuple[Array, ...]:
    return tuple(x for x, learn in zip(score_mod_operands, learned, strict=True) if learn == wanted)


def _forward(plan, x, rest):
    out, largest, total = forward(plan, x, rest)
    return out, finite_lse(largest, total), total


def _forward_saving(plan, x, rest):
    out, largest, total = forward(plan, x, rest)
    return (out, finite_lse(largest, total), total), (x, rest, out, largest, total)


_core = jax.custom_vjp(_forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, backward)
_run = jax.jit(_core, static_argnums=0)
