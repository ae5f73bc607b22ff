"""Score modifications as GPU kernels take them, and whether they can."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.gpu.plan import Program
from jattn.attention.scalar_functions import nested
from jattn.attention.score_programs import ScoreProgram, split
from jattn.attention.scores import ScoreMod

# What Mosaic lowers for tiles in a GPU kernel, of what is elementwise.
ELEMENTWISE = {
    *("abs", "add", "and", "broadcast_in_dim", "clamp", "convert_element_type", "cos", "div", "eq"),
    *("erf", "exp", "exp2", "ge", "gt", "integer_pow", "jit", "le", "log", "logistic", "lt", "max"),
    *("min", "mul", "ne", "neg", "one_minus_square", "or", "pjit", "rem", "round", "rsqrt"),
    *("select_n", "sign", "sin", "square", "sub", "tanh", "xor"),
}


def program(score_mod: ScoreMod, b: int, h: int, tile: tuple[int, int]) -> ScoreProgram:
    """A modification over tiles of that size; indices of queries and keys come as whole tiles."""
    return split(score_mod, b, h, tile, jnp.float32, broadcast_indices=True)


def with_bias(programs: tuple[Program, Program] | None) -> tuple[Program, Program]:
    """The programs for a bias that is their first operand, added before the others have a say."""
    if programs is None:
        return _add_bias, _add_bias
    forward, backward = programs
    return functools.partial(_add_bias_first, forward), functools.partial(_add_bias_first, backward)


def _add_bias(score_mod_operands, score, q_index, k_index) -> Array:
    return score + score_mod_operands[0]  # One of -inf hides.


def _add_bias_first(program: Program, score_mod_operands, score, q_index, k_index) -> Array:
    hidden = score_mod_operands[0] == -jnp.inf
    score = program(
        score_mod_operands[1:],
        score + jnp.where(hidden, 0.0, score_mod_operands[0]),
        q_index,
        k_index,
    )
    return jnp.where(hidden, -jnp.inf, score)


def unsupported_reason(score_mod: ScoreMod, b: int, h: int) -> str | None:
    """Why a modification, or its derivative, cannot be part of a kernel, or None."""
    tile = (64, 64)

    def trace():
        score_mod_operands, learned, apply = program(score_mod, b, h, tile)
        score_mod_operands = [jnp.broadcast_to(n[0, 0], tile) for n in score_mod_operands]

        def both(score, q_index, k_index, *score_mod_operands):
            def of_floats(score, floats):
                floats = iter(floats)
                values = [
                    next(floats) if learn else n
                    for n, learn in zip(score_mod_operands, learned, strict=True)
                ]
                return apply(values, score, q_index, k_index)

            floats = [n for n, learn in zip(score_mod_operands, learned, strict=True) if learn]
            out, pull = jax.vjp(of_floats, score, floats)
            return out, pull(score)

        index, score = jnp.zeros(tile, jnp.int32), jnp.zeros(tile)
        jaxpr = jax.make_jaxpr(both)(score, index, index, *score_mod_operands)
        for equation in nested(jaxpr.jaxpr.eqns):
            name, power = equation.primitive.name, equation.params.get("y", 0)
            if name not in ELEMENTWISE or (name == "integer_pow" and power < -1):
                lacking.add(name)
        return score

    lacking: set[str] = set()
    try:
        jax.eval_shape(trace)
    except NotImplementedError as error:
        return str(error)
    names = ", ".join(sorted(lacking))
    return f"its score_mod needs {names}, which the kernel has not" if names else None
