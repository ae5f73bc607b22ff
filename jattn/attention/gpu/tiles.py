"""What the GPU kernels do with a tile of scores in registers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from jattn.attention.gpu.plan import COLUMNS, OtherOperands, Plan, Program, Tile
from jattn.attention.masks import Mask
from jattn.attention.tiling import summarise


def modify(
    plan: Plan, program: Program | None, score: Array, starts: tuple[Any, Any], transposed: bool,
    leaves: Sequence[Array] | None, score_mod_operands: Sequence[Array], bad: Array | None,
    scale: float,
) -> Array:  # fmt: skip
    """From products of queries and keys to the scores that the exponential meets.

    Args:
        plan: the plan.
        program: the score modification, for tiles of this size.
        score: `[queries, keys]`, or `[keys, queries]` where `transposed`.
        starts: first query and first key.
        transposed: keys are rows.
        leaves: the mask's arrays over the tile; None where all pairs are allowed.
        score_mod_operands: what the score program takes.
        bad: NaN at keys that are not finite, else 0.
        scale: what the products are multiplied by.
    """
    score = score if scale == 1 else score * scale
    allowed = None
    q_index, k_index = (
        start + jax.lax.broadcasted_iota(jnp.int32, score.shape, axis ^ transposed)
        for axis, start in enumerate(starts)
    )
    if leaves is not None:
        allowed = k_index < plan.s
        if plan.has_mask:
            allowed &= jax.tree.unflatten(plan.mask, leaves).allowed(q_index, k_index)
    if program is not None:
        if allowed is not None:  # No gradient comes back from where a program may have none.
            score = jnp.where(allowed, score, 0.0)
        # Padding gets the indices of the last that are no padding.
        last = jnp.minimum(q_index, plan.t - 1), jnp.minimum(k_index, plan.s - 1)
        score = program(score_mod_operands, score, *last)
    if bad is not None:
        score = score + bad
    return score if allowed is None else jnp.where(allowed, score, -jnp.inf)


def weigh_again(
    plan: Plan, score: Array, row: Array, score_mod_operands: Sequence[Array],
    wanted: Sequence[int], **rest: Any,
) -> tuple[Array, Callable]:  # fmt: skip
    """The weights of a tile once more, for the backward pass.

    Args:
        plan: the plan.
        score: the products of queries and keys.
        row: log-sum-exp of each query, over the tile.
        score_mod_operands: what the score program takes, over the tile.
        wanted: which of them have their gradients worked out here.
        rest: for `modify`.

    Returns:
        The weights, and the function that turns their gradient into those of the products and of
        the wanted operands.
    """
    program = plan.programs[1] if plan.programs else None

    def weigh(score, learned):
        values = list(score_mod_operands)
        for n, value in zip(wanted, learned, strict=True):
            values[n] = value
        score = modify(plan, program, score, score_mod_operands=values, scale=plan.scale, **rest)
        return jnp.exp(score - row)

    return jax.vjp(weigh, score, [score_mod_operands[n] for n in wanted])


def whole(width: int) -> int:
    """Head dimensions, grown to whole lines of shared memory."""
    return -(-width // COLUMNS) * COLUMNS


def padded(x: Array, length: int, mode: str = "constant") -> Array:
    """`[b, t, h, d]` with t grown to `length`, and d to whole lines of shared memory."""
    more = length - x.shape[1], whole(x.shape[3]) - x.shape[3]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more[1])))
    return jnp.pad(x, ((0, 0), (0, more[0]), (0, 0), (0, 0)), mode=mode)


def masking(plan: Plan, rest: OtherOperands, blocks: tuple[int, int]) -> tuple[Mask | None, Any]:
    """The mask, and which of the tiles of these sizes are empty, partial or full."""
    mask = jax.tree.unflatten(plan.mask, rest.mask)
    return mask, summarise(mask, plan.t, plan.s, *blocks)


def compute_registers(tile: Tile) -> None:
    """Takes the registers that the copying warpgroup does not need."""
    if tile.groups == 2:
        plgpu.set_max_registers(232, action="increase")


def copy_registers(tile: Tile) -> None:
    """Leaves registers to the warpgroups that compute."""
    if tile.groups == 2:
        plgpu.set_max_registers(40, action="decrease")
