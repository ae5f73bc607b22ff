"""Reaction and diffusion in the place of attention (FluidWorld, arXiv 2603.21315).

    u <- u + dt ( sum_k D_k Lap_{d_k} u + R(u) + a_g h_g + a_l h_l ),   RMSNorm at every second step

Lap_d is the Laplacian stencil at distance d = 1, 4, 16; R a small MLP of each cell; h_g a memory of
the mean over all cells, h_g <- h_g + sigmoid(W mean u) tanh(W' mean u), which starts at zero; h_l
the means of a few regions, mapped and interpolated. D, a and dt are positive and learned.

Distinctive: no scores and no pairs of tokens. Distant ones meet by diffusion and through the
memories, at linear cost, and the same weights serve any number of steps.

Limits: no steps are the identity. Diffusion alone averages, as long as 4 dt sum_k D_k <= 1 on a
grid. On a sequence the stencil has two neighbours. Causally it is the second difference of what
has been, which averages nothing; means are of the tokens so far, and h_l is left out.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_count
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.layers.size_checks import check_grid, check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.memory.reaction_diffusion_layer import (
    DILATIONS,
    Space,
    evolve,
    one_step,
    reaction_diffusion,
    reaction_diffusion_init,
    sequence_space,
    wide_arrays,
)
from jattn.mechanisms.mixer import Mixer


class RowState(NamedTuple):
    """State of the causal form, for each of its steps.

    Attributes:
        count: how many tokens.
        past: u before the step of the tokens as far back as the stencil reaches, the last one last.
        total: sum of u before the step over all tokens.
    """

    count: Int[Array, ""]
    past: Float[Array, "n b t c"]
    total: Float[Array, "n b c"]


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    steps: int = 6,
    dilations: Sequence[int] = DILATIONS,
    grid: tuple[int, int] | None = None,
) -> Mixer:
    """Reaction and diffusion as a mixer: the tokens are its cells.

    Args:
        dim: model dimension m, the channels.
        heads: there are none; a divisor of m, as everywhere.
        causal: the causal form, on a sequence.
        steps: how many, at least 1.
        dilations: distances of the stencil.
        grid: rows and columns the tokens make up, which then cannot be padding; None: they are a
            sequence.

    Returns:
        A `Mixer`; its state is a `RowState`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=1, grid=(3, 4))
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 12, 8))).shape
        (1, 12, 8)
    """
    check_heads(dim, heads)
    check_count("steps", steps)
    if not isinstance(dilations, Sequence) or isinstance(dilations, str) or not dilations:
        raise ValueError(f"dilations: expected one distance or more, got {dilations!r}")
    for distance in dilations:
        check_count("dilations", distance)
    dilations = tuple(dilations)
    grid = None if grid is None else check_grid(grid)
    if causal and grid is not None:
        raise ValueError(f"grid: expected None if causal, got {grid}")
    reach = 2 * max(dilations)

    def init(key):
        return reaction_diffusion_init(key, dim, dilations=len(dilations), local=not causal)

    def apply(params, given):
        x, real = given.x, given.real
        if grid is None:
            wide, u = wide_arrays(params, x)
            space = sequence_space(wide, x.shape[1], dilations, causal=causal, mask=real)
            return evolve(wide, space, u, steps).astype(x.dtype)
        if x.shape[1] != grid[0] * grid[1] or real is not None:
            wanted = f"{grid[0]} x {grid[1]} tokens without a mask"
            got = f"{x.shape[1]} tokens" + ("" if real is None else " with one")
            raise ValueError(f"x: expected {wanted}, got {got}")
        image = x.reshape(x.shape[0], *grid, dim)
        return reaction_diffusion(image, params, steps, dilations=dilations).reshape(x.shape)

    def init_state(params, batch_size, max_length, dtype):
        dtype = jnp.promote_types(dtype, jnp.float32)
        past = jnp.zeros((steps, batch_size, reach, dim), dtype)
        return RowState(jnp.zeros((), jnp.int32), past, jnp.zeros((steps, batch_size, dim), dtype))

    def step(params, x, state):
        wide, u = wide_arrays(params, x)
        coefficients = jax.nn.softplus(wide["diffusion"])

        def body(carry, now):
            u, memory = carry
            index, past, total = now
            # In front of the first token the sequence is as that token is.
            past = jnp.where(state.count == 0, u[:, None], past)
            total = total + u
            parts = [u - 2 * past[:, -d] + past[:, -2 * d] for d in dilations]
            laplacian = functools.reduce(
                jnp.add, [weight * part for weight, part in zip(coefficients, parts, strict=True)]
            )
            mean = total / (state.count + 1).astype(u.dtype)
            space = Space(lambda _: laplacian, lambda _: mean, None)
            _, after, memory = one_step(wide, space, 2, u, memory, index)
            past = jnp.concatenate([past[:, 1:], u[:, None]], 1)
            return (after, memory), (past, total)

        start = (u, jnp.zeros_like(u))
        inputs = (jnp.arange(steps), state.past.astype(u.dtype), state.total.astype(u.dtype))
        (out, _), (past, total) = lax.scan(body, start, inputs)
        past, total = past.astype(state.past.dtype), total.astype(state.total.dtype)
        return out.astype(x.dtype), RowState(state.count + 1, past, total)

    return framed(
        "reaction_diffusion",
        dim=dim,
        init=init,
        apply=apply,
        init_state=init_state if causal else None,
        step=step if causal else None,
        takes="row" if grid is None else "padding",
        causal=causal,
    )


MECHANISM = Mechanism(
    name="reaction_diffusion",
    title="Reaction and diffusion (FluidWorld)",
    arxiv="2603.21315",
    family="memory",
    equation="u <- u + dt (sum_k D_k Lap_k u + R(u) + a_g h_g + a_l h_l)",
    core=reaction_diffusion,
    make=make,
    causal=True,
    bidirectional=True,
    cross=False,
    streaming=True,
    cost="linear",
    documents="never",
    parameters=(
        "diffusion",
        "reaction",
        "memory",
        "local",
        "norm",
        "log_dt",
        "alpha_global",
        "alpha_local",
    ),
    absent=("query", "key", "value", "output"),
)
