"""Score modifications as kernels take them: operands of each batch entry and head, and a program.

A kernel works on one batch entry and head at a time and can look nothing up. So what a modification
computes from `batch`, `head` and arrays it closes over (a slope of the head, say) is computed
outside, for all of them at once; what remains is elementwise in the score and the two indices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import Literal
from jax.typing import DTypeLike
from jaxtyping import Array

from jattn.attention.mask_function import LOOKUPS
from jattn.attention.scalar_functions import nested
from jattn.attention.scores import ScoreMod


class ScoreProgram(NamedTuple):
    """A modification over one tile.

    Attributes:
        score_mod_operands: what it needs of each batch entry and head, each `[b, h, 1, 1]`.
        learned: which of them may have a gradient: floats that come from a traced array, not from
            a constant.
        apply: `(operands of one entry and head, score, q_index, k_index) -> score`; the operands
            broadcast against the tile.
    """

    score_mod_operands: tuple[Array, ...]
    learned: tuple[bool, ...]
    apply: Callable[[Sequence[Array], Array, Array, Array], Array]


def split(
    score_mod: ScoreMod, batch: int, heads: int, tile: tuple[int, int], dtype: DTypeLike,
    broadcast_indices: bool = False,
) -> ScoreProgram:  # fmt: skip
    """Splits a modification for tiles `[keys, queries]`.

    Args:
        score_mod: as `attend` takes it.
        batch: number of batch entries b.
        heads: number of heads h.
        tile: the tile's numbers of keys and of queries; keys are its rows.
        dtype: of the scores.
        broadcast_indices: both indices come over the whole tile, whichever its rows are, not as one
            row of queries and one column of keys.

    Returns:
        A `ScoreProgram`, for tiles of that size.

    Raises:
        NotImplementedError: it looks something up by position, which a kernel cannot.
    """
    score = jax.ShapeDtypeStruct(tile, dtype)
    index = jax.ShapeDtypeStruct((), jnp.int32)
    columns = jax.ShapeDtypeStruct(tile if broadcast_indices else (1, tile[1]), jnp.int32)
    rows = jax.ShapeDtypeStruct(tile if broadcast_indices else (tile[0], 1), jnp.int32)

    def modified(batch, head, score, q_index, k_index):
        out = score_mod(score, batch, head, q_index, k_index)
        return jnp.broadcast_to(out, tile).astype(dtype)

    closed = jax.make_jaxpr(modified)(index, index, score, columns, rows)
    jaxpr = closed.jaxpr
    inner = set(jaxpr.invars[2:])
    consts = zip(jaxpr.constvars, closed.consts, strict=True)
    traced = {v for v, const in consts if isinstance(const, Tracer)}
    outside, inside = [], []
    for equation in jaxpr.eqns:
        inputs = {v for v in equation.invars if not isinstance(v, Literal)}
        depends = not inner.isdisjoint(inputs)
        (inside if depends else outside).append(equation)
        inner.update(equation.outvars if depends else ())
        traced.update(() if traced.isdisjoint(inputs) else equation.outvars)
    lookups = {e.primitive.name for e in nested(inside)} & set(LOOKUPS)
    if lookups:
        raise NotImplementedError(
            f"its score_mod needs {', '.join(sorted(lookups))} by position, which no kernel has"
        )
    used = [v for e in inside for v in e.invars] + list(jaxpr.outvars)
    needed = list(dict.fromkeys(u for u in used if not isinstance(u, Literal)))
    needed = [v for v in needed if v not in inner]
    if any(v.aval.shape for v in needed):
        raise NotImplementedError("its score_mod uses arrays that are not one number a head")

    def score_mod_operands(batch, head):
        env = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        env |= dict(zip(jaxpr.invars[:2], (batch, head), strict=True))
        _evaluate(outside, env)
        return tuple(env[v] for v in needed)

    per_head = jax.vmap(jax.vmap(score_mod_operands, (None, 0)), (0, None))
    values = per_head(jnp.arange(batch, dtype=jnp.int32), jnp.arange(heads, dtype=jnp.int32))

    def apply(given, score, q_index, k_index):
        env: dict[Any, Any] = dict(zip(needed, given, strict=True))
        env |= dict(zip(jaxpr.invars[2:], (score, q_index, k_index), strict=True))
        _evaluate(inside, env)
        out = jaxpr.outvars[0]
        return jnp.broadcast_to(out.val if isinstance(out, Literal) else env[out], score.shape)

    learned = tuple(v in traced and jnp.issubdtype(v.aval.dtype, jnp.floating) for v in needed)
    return ScoreProgram(tuple(v[..., None, None] for v in values), learned, apply)


def _evaluate(equations, env: dict[Any, Any]) -> None:
    """Runs equations on the values in `env`, and puts their results there."""
    for equation in equations:
        values = [v.val if isinstance(v, Literal) else env[v] for v in equation.invars]
        parameters = equation.primitive.get_bind_params(equation.params)
        out = equation.primitive.bind(*values, **parameters)
        out = out if equation.primitive.multiple_results else [out]
        env.update(zip(equation.outvars, out, strict=True))
