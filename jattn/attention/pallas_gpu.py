"""Attention on Hopper GPUs: Mosaic kernels, one forward and two backward.

A thread block keeps the rows of a part of the plane of scores, 64 for each of its warpgroups that
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

from jattn.attention.case import Case
from jattn.attention.gpu import programs
from jattn.attention.gpu.backward import backward
from jattn.attention.gpu.forward import forward
from jattn.attention.gpu.lines import is_plane
from jattn.attention.gpu.plan import WARPGROUP_ROWS, WIDEST, Floats, Plan, Program, Rest, Tile


def refusal(case: Case) -> str | None:
    """Why these kernels cannot serve, or None."""
    d, e = case.query.shape[3], case.value.shape[3]
    dtypes = {x.dtype for x in (case.query, case.key, case.value)}
    limits = {
        "it never holds the weights (return_weights)": case.return_weights,
        "its matrix unit takes float16 or bfloat16, one of them": len(dtypes) > 1
        or not dtypes <= {jnp.dtype(jnp.float16), jnp.dtype(jnp.bfloat16)},
        f"it needs d and e of at most {WIDEST}": max(d, e) > WIDEST,
        "beyond 128 it needs d = e": max(d, e) > 128 and d != e,
        "it has softmax only": case.normalizer.name != "softmax",
        "its scale is a positive Python number": isinstance(case.scale, jax.Array)
        or case.scale <= 0,
        "it takes no bias and no mask array over both queries and keys": any(
            is_plane(leaf) for leaf in jax.tree.leaves((case.bias, case.mask))
        ),
    }
    reasons = [reason for reason, holds in limits.items() if holds]
    if case.score_mod is not None:
        reason = programs.refusal(case.score_mod, case.query.shape[0], case.query.shape[2])
        reasons += [reason] if reason else []
    return "; ".join(reasons) or None


def pallas_gpu(case: Case, interpret: Any = None) -> tuple[Array, Array]:
    """Output `[b, t, h, e]` and lse `[b, t, h]`, as the reference defines them.

    Args:
        case: what `attend` was asked.
        interpret: `jax.experimental.pallas.mosaic_gpu.InterpretGPUParams` to run elsewhere, slowly.
    """
    t, s = case.query.shape[1], case.key.shape[1]
    key, value = case.key, case.value
    groups = math.lcm(key.shape[2], value.shape[2])
    key, value = (jnp.repeat(x, groups // x.shape[2], axis=2) for x in (key, value))
    wide = max(case.query.shape[3], value.shape[3]) > 128
    tiles = (
        Tile(groups=2, columns=64 if wide else 128, stages=2),
        Tile(groups=1 if wide else 2, columns=64, stages=2),
    )
    numbers: tuple[Array, ...] = ()
    learned: tuple[bool, ...] = ()
    used: tuple[Program, Program] | None = None
    if case.score_mod is not None:
        b, _, h, _ = case.query.shape
        sizes = ((WARPGROUP_ROWS, tile.columns) for tile in tiles)
        made = [programs.program(case.score_mod, b, h, size) for size in sizes]
        numbers, learned = made[0].numbers, made[0].learned
        used = (made[0].apply, made[1].apply)
    if case.bias is not None:  # A number like others, met first.
        numbers, learned = (case.bias, *numbers), (True, *learned)
        used = programs.with_bias(used)
    leaves, structure = jax.tree.flatten(case.mask)
    plan = Plan(
        t, s, *tiles, float(case.scale), used, learned, structure,
        case.mask is not None, case.query.dtype, interpret,
    )  # fmt: skip
    floats = Floats(case.query, key, value, case.sink, _pick(numbers, learned, True))
    rest = Rest(tuple(map(jnp.asarray, leaves)), _pick(numbers, learned, False))
    return _run(plan, floats, rest)


def _pick(numbers, learned, wanted: bool) -> tuple[Array, ...]:
    return tuple(x for x, learn in zip(numbers, learned, strict=True) if learn == wanted)


def _forward_saving(plan, x, rest):
    out, lse = forward(plan, x, rest)
    return (out, lse), (x, rest, out, lse)


_core = jax.custom_vjp(forward, nondiff_argnums=(0,))
_core.defvjp(_forward_saving, backward)
_run = jax.jit(_core, static_argnums=0)
