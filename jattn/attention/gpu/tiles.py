"""What the GPU kernels do with a tile of scores in registers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from jattn.attention.gpu.plan import COLUMNS, Plan, Program, Rest, Tile
from jattn.attention.masks import Mask
from jattn.attention.tiling import summarise


def product(left, right, columns: int) -> Array:
    """`left @ right` of two arrays in shared memory, `[64, columns]` in registers."""

    def multiply(sums):
        plgpu.wgmma(sums, left, right)
        return sums[...]

    return pl.run_scoped(multiply, plgpu.ACC((left.shape[0], columns), jnp.float32))


def add_product(sums, left, right) -> None:
    """`sums += left @ right`, from shared memory into an accumulator; waits until it is done."""
    plgpu.wgmma(sums, left, right)
    plgpu.wgmma_wait(0)


def upright(ref):
    """The transpose of a block in shared memory, which costs nothing."""
    return ref.transpose((1, 0))


def put(values: Array, ref) -> Any:
    """Registers to shared memory, where the matrix unit can read them."""
    ref[...] = values.astype(ref.dtype)
    plgpu.commit_smem()
    return ref


def spread(row: Array, shape: tuple[int, ...]) -> Array:
    """A number for each row of a tile, over the tile."""
    return jax.lax.broadcast_in_dim(row, shape, (0,))


def modify(
    plan: Plan, program: Program | None, score: Array, starts: tuple[Any, Any], turned: bool,
    leaves: Sequence[Array] | None, numbers: Sequence[Array], bad: Array | None, scale: float,
) -> Array:  # fmt: skip
    """From products of queries and keys to the scores that the exponential meets.

    Args:
        plan: the plan.
        program: the score modification, for tiles of this size.
        score: `[queries, keys]`, or `[keys, queries]` where `turned`.
        starts: first query and first key.
        turned: keys are rows.
        leaves: the mask's arrays over the tile; None where all pairs are allowed.
        numbers: those of the score program.
        bad: NaN at keys that are not finite, else 0.
        scale: what the products are multiplied by.
    """
    score = score if scale == 1 else score * scale
    q_index, k_index = (
        start + jax.lax.broadcasted_iota(jnp.int32, score.shape, axis ^ turned)
        for axis, start in enumerate(starts)
    )
    if program is not None:
        score = program(numbers, score, q_index, k_index)
    if bad is not None:
        score = score + bad
    if leaves is None:
        return score
    allowed = k_index < plan.s
    if plan.hides:
        allowed &= jax.tree.unflatten(plan.mask, leaves).allowed(q_index, k_index)
    return jnp.where(allowed, score, -jnp.inf)


def weigh_again(
    plan: Plan, score: Array, row: Array, numbers: Sequence[Array], wanted: Sequence[int],
    **rest: Any,
) -> tuple[Array, Callable]:  # fmt: skip
    """The weights of a tile once more, for the backward pass.

    Args:
        plan: the plan.
        score: the products of queries and keys.
        row: log-sum-exp of each query, over the tile.
        numbers: those of the score program, over the tile.
        wanted: which of them have their gradients worked out here.
        rest: for `modify`.

    Returns:
        The weights, and the function that turns their gradient into those of the products and of
        the wanted numbers.
    """
    program = plan.programs[1] if plan.programs else None

    def weigh(score, learned):
        values = list(numbers)
        for n, value in zip(wanted, learned, strict=True):
            values[n] = value
        score = modify(plan, program, score, numbers=values, scale=plan.scale, **rest)
        return jnp.exp(score - row)

    return jax.vjp(weigh, score, [numbers[n] for n in wanted])


def finite_row(row: Array) -> Array:
    return jnp.where(row == -jnp.inf, 0.0, row)


def whole(width: int) -> int:
    """Head dimensions, grown to whole lines of shared memory."""
    return -(-width // COLUMNS) * COLUMNS


def padded(x: Array, length: int) -> Array:
    """`[b, t, h, d]` with t grown to `length`, and d to whole lines of shared memory."""
    more = length - x.shape[1], whole(x.shape[3]) - x.shape[3]
    return jnp.pad(x, ((0, 0), (0, more[0]), (0, 0), (0, more[1])))


def masking(plan: Plan, rest: Rest, blocks: tuple[int, int]) -> tuple[Mask | None, Any]:
    """The mask, and which of the tiles of these sizes are empty, partial or full."""
    mask = jax.tree.unflatten(plan.mask, rest.mask)
    return mask, summarise(mask, plan.t, plan.s, *blocks)


PARAMETERS = plgpu.CompilerParams(
    approx_math=True,  # exp2 and log of the chip: two units in the last place of float32
    lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
)


def compute_registers(tile: Tile) -> None:
    """Takes the registers that the copying warpgroup does not need."""
    if tile.groups == 2:
        plgpu.set_max_registers(232, action="increase")


def copy_registers(tile: Tile) -> None:
    """Leaves registers to the warpgroups that compute."""
    if tile.groups == 2:
        plgpu.set_max_registers(40, action="decrease")
