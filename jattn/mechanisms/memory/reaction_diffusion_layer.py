"""Reaction and diffusion of cells on a grid, in a row or in time (FluidWorld, arXiv 2603.21315).

    u <- u + dt ( sum_k D_k Lap_{d_k} u + R(u) + a_g h_g + a_l h_l ),   RMSNorm at every second step

`jattn.mechanisms.memory.reaction_diffusion` says what stands for what, and makes a mixer of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_shape
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.memory.grids import (
    interpolation_weights,
    laplacian1d,
    laplacian2d,
    pool_weights,
)
from jattn.mechanisms.mixer import Params

DILATIONS = (1, 4, 16)
STEP_BOUNDS = (0.005, 0.35)
NORM_EPSILON = 1e-8
REGIONS = 4  # a side, whose means h_l is made of


def reaction_diffusion_init(
    key: jax.Array, channels: int, *, dilations: int = len(DILATIONS), local: bool = True
) -> Params:
    """Parameters as the authors begin with them; positive ones are kept before their softplus.

    Args:
        key: a PRNG key.
        channels: c.
        dilations: how many distances the stencil is at.
        local: whether there is h_l.

    Example:
        >>> params = reaction_diffusion_init(jax.random.key(0), 4)
        >>> sorted(params)[:4], params["diffusion"].shape
        (['alpha_global', 'alpha_local', 'diffusion', 'local'], (3, 4))
    """
    keys = jax.random.split(key, 5)

    def affine(key, inputs, outputs):
        weight, bias = jax.random.split(key)
        return {
            "weight": linear_init(weight, inputs, outputs),
            "bias": linear_init(bias, inputs, outputs)[0],
        }

    inner, outer = affine(keys[0], channels, 2 * channels), affine(keys[1], 2 * channels, channels)
    gate, value = (affine(k, channels, channels) for k in keys[2:4])
    params = {
        "diffusion": jnp.full((dilations, channels), 0.1),
        "reaction": {"inner": inner, "outer": outer},
        "memory": {"gate": gate, "value": value},
        "norm": jnp.ones(channels),
        "log_dt": jnp.log(jnp.array(0.1)),
        "alpha_global": jnp.array(0.1),
    }
    if local:
        params |= {"local": affine(keys[4], channels, channels), "alpha_local": jnp.array(0.05)}
    return params


def _affine(params: Any, x: Array) -> Array:
    return x @ params["weight"] + params["bias"]


class Space(NamedTuple):
    """Arrangement of cells: on a grid, in a row, or in time.

    Attributes:
        diffuse: u to the weighted sum of its Laplacians.
        mean: u to the mean over the cells that each one knows of, broadcastable to u.
        local: u and a map to the interpolated map of regions' means; None: there is none.
    """

    diffuse: Callable[[Array], Array]
    mean: Callable[[Array], Array]
    local: Callable[[Array, Callable[[Array], Array]], Array] | None


def image_space(
    params: Params, shape: tuple[int, int], dilations: Sequence[int], regions: int = REGIONS
) -> Space:
    """Cells on a grid of rows and columns, `[b, h, w, c]`.

    Args:
        params: those of `reaction_diffusion_init`.
        shape: rows and columns.
        dilations: distances of the stencil.
        regions: a side, whose means h_l is made of.
    """
    lines = [(jnp.arange(n)[None], jnp.full((1, 1), n)) for n in shape]
    rows, columns = (pool_weights(*line, regions)[0] for line in lines)
    down, across = (interpolation_weights(*line, regions)[0] for line in lines)

    def local(u, change):
        # Weights are float32 at first: as u they must be, or a scan's carry would change its type.
        wide = lambda x: x.astype(u.dtype)
        means = jnp.einsum("yh,bhwc,xw->byxc", wide(rows), u, wide(columns))
        return jnp.einsum("hy,byxc,wx->bhwc", wide(down), change(means), wide(across))

    coefficients = jax.nn.softplus(params["diffusion"])
    return Space(
        lambda u: laplacian2d(u, coefficients, dilations),
        lambda u: u.mean((1, 2), keepdims=True),
        local,
    )


def sequence_space(
    params: Params,
    length: int,
    dilations: Sequence[int],
    *,
    causal: bool = False,
    mask: Bool[Array, "b t"] | None = None,
) -> Space:
    """Cells in a row, `[b, t, c]`, or in time.

    Args:
        params: those of `reaction_diffusion_init`.
        length: t.
        dilations: distances of the stencil.
        causal: cells know of those before them only, and there is no h_l.
        mask: True for real cells; default all are. To its neighbours, one that is not there is as
            the real one before it, or as the first one.
    """
    real = jnp.ones((1, length), bool) if mask is None else mask
    index, count = jnp.cumsum(real, 1) - 1, real.sum(1, keepdims=True)
    latest = lax.cummax(jnp.where(real, jnp.arange(length), -1), axis=1)
    source = jnp.where(latest < 0, real.argmax(1, keepdims=True), latest)
    coefficients = jax.nn.softplus(params["diffusion"])

    def diffuse(u):
        if mask is not None:
            u = jnp.take_along_axis(u, source[..., None], axis=1)
        return laplacian1d(u, coefficients, dilations, causal=causal)

    def mean(u):
        there = jnp.where(real[..., None], u, 0)
        if causal:
            return jnp.cumsum(there, 1) / jnp.maximum(index + 1, 1)[..., None].astype(u.dtype)
        return there.sum(1, keepdims=True) / jnp.maximum(count, 1)[..., None].astype(u.dtype)

    def local(u, change):
        weights = jnp.where(real[:, None], pool_weights(index, count, REGIONS), 0).astype(u.dtype)
        means = weights @ jnp.where(real[..., None], u, 0)
        return interpolation_weights(index, count, REGIONS).astype(u.dtype) @ change(means)

    return Space(diffuse, mean, None if causal else local)


def one_step(
    params: Params, space: Space, norm_every: int, u: Array, memory: Array, index: Int[Array, ""]
) -> tuple[Array, Array, Array]:
    """One step in time.

    Args:
        params: those of `reaction_diffusion_init`.
        space: how cells lie.
        norm_every: RMSNorm follows every so many steps.
        u: `[b, ..., c]`.
        memory: h_g, as `space.mean(u)` is.
        index: how many steps there were before.

    Returns:
        u before the norm, u after it if this step has one, and h_g.
    """
    mean = space.mean(u)
    opened = jax.nn.sigmoid(_affine(params["memory"]["gate"], mean))
    memory = memory + opened * jnp.tanh(_affine(params["memory"]["value"], mean))
    hidden = jax.nn.gelu(_affine(params["reaction"]["inner"], u), approximate=False)
    change = space.diffuse(u) + _affine(params["reaction"]["outer"], hidden)
    change = change + jax.nn.softplus(params["alpha_global"]) * memory
    if space.local is not None:
        regions = space.local(u, lambda means: _affine(params["local"], means))
        change = change + jax.nn.softplus(params["alpha_local"]) * regions
    raw = u + jnp.clip(jnp.exp(params["log_dt"]), *STEP_BOUNDS) * change
    normed = rms_norm(raw, params["norm"], eps=NORM_EPSILON)
    return raw, jnp.where((index + 1) % norm_every == 0, normed, raw), memory


def evolve(
    params: Params, space: Space, u: Float[Array, "b *cells c"], steps: int, norm_every: int = 2
) -> Float[Array, "b *cells c"]:
    """Many steps in time, from an empty memory.

    Args:
        params: those of `reaction_diffusion_init`.
        space: how cells lie.
        u: `[b, ..., c]`.
        steps: how many.
        norm_every: RMSNorm follows every so many of them.

    Returns:
        `[b, ..., c]`.

    Example:
        >>> params = reaction_diffusion_init(jax.random.key(0), 3, local=False)
        >>> space = sequence_space(params, 5, DILATIONS, causal=True)
        >>> evolve(params, space, jnp.ones((1, 5, 3)), 4).shape
        (1, 5, 3)
    """

    def body(carry, index):
        u, memory = carry
        _, u, memory = one_step(params, space, norm_every, u, memory, index)
        return (u, memory), None

    memory = jnp.zeros_like(space.mean(u))
    return lax.scan(body, (u, memory), jnp.arange(steps))[0][0]


def wide_arrays(params: Params, u: Array) -> tuple[Params, Array]:
    """Both in float32 at least: a state that is updated many times keeps its small changes."""
    dtype = jnp.promote_types(u.dtype, jnp.float32)
    return jax.tree.map(lambda x: x.astype(dtype), params), u.astype(dtype)


def reaction_diffusion(
    u: Float[Array, "b h w c"],
    params: Params,
    steps: int,
    *,
    dilations: Sequence[int] = DILATIONS,
    norm_every: int = 2,
    regions: int = REGIONS,
) -> Float[Array, "b h w c"]:
    """Reaction and diffusion of images; see the module's docstring.

    Args:
        u: `[b, h, w, c]`.
        params: those of `reaction_diffusion_init`.
        steps: how many, 0 or more.
        dilations: distances of the stencil.
        norm_every: RMSNorm follows every so many steps.
        regions: h_l is made of the means of regions x regions parts of the image.

    Returns:
        `[b, h, w, c]`, in u's dtype.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2603.21315.

    Example:
        >>> params = reaction_diffusion_init(jax.random.key(0), 3)
        >>> reaction_diffusion(jnp.ones((1, 8, 8, 3)), params, 4).shape
        (1, 8, 8, 3)
    """
    check_shape("u", u, "b h w c", {})
    params, wide = wide_arrays(params, u)
    space = image_space(params, (u.shape[1], u.shape[2]), dilations, regions)
    return evolve(params, space, wide, steps, norm_every).astype(u.dtype)


class Settled(NamedTuple):
    """Result of `settle`, where it stopped.

    Attributes:
        u: `[b, h, w, c]`.
        steps: how many it took.
        history: the relative change at each of max_steps; NaN where none was taken.
    """

    u: Float[Array, "b h w c"]
    steps: Int[Array, ""]
    history: Float[Array, " steps"]


def settle(
    u: Float[Array, "b h w c"],
    params: Params,
    max_steps: int,
    *,
    dilations: Sequence[int] = DILATIONS,
    norm_every: int = 2,
    regions: int = REGIONS,
    epsilon: float | Float[Array, ""] = 0.08,
    min_steps: int = 3,
    patience: int = 2,
    probes: int = 8,
) -> Settled:
    """Runs `reaction_diffusion` until little changes; for evaluation, it has no gradient backwards.

    The change of a step is the mean magnitude of what it adds to the means of 8 x 8 parts, before
    the norm, over that of what they were. It is of the whole batch.

    Args:
        u: `[b, h, w, c]`.
        params: those of `reaction_diffusion_init`.
        max_steps: the largest number of steps, at least 1.
        dilations: distances of the stencil.
        norm_every: RMSNorm follows every so many steps.
        regions: h_l is made of the means of regions x regions parts of the image.
        epsilon: what is little; 0 never stops.
        min_steps: steps that are taken in any case.
        patience: in so many steps running the change must be little.
        probes: it is seen in the means of probes x probes parts of the image.

    Returns:
        `Settled`.

    Raises:
        ValueError: shapes that do not fit, or no steps.

    Reference:
        arXiv 2603.21315.

    Example:
        >>> params = reaction_diffusion_init(jax.random.key(0), 3)
        >>> found = settle(jnp.ones((1, 8, 8, 3)), params, 50, epsilon=1e9)
        >>> int(found.steps)
        3
    """
    check_shape("u", u, "b h w c", {})
    if max_steps < 1:
        raise ValueError(f"max_steps: expected at least 1, got {max_steps}")
    params, wide = wide_arrays(params, u)
    space = image_space(params, (u.shape[1], u.shape[2]), dilations, regions)
    lines = [
        pool_weights(jnp.arange(n)[None], jnp.full((1, 1), n), min(probes, n))[0].astype(wide.dtype)
        for n in u.shape[1:3]
    ]
    probe = lambda u: jnp.einsum("yh,bhwc,xw->byxc", lines[0], u, lines[1])

    def going(carry):
        index, _, _, _, history = carry
        # History that is not there yet is NaN, and no NaN is small.
        recent = lax.dynamic_slice(history, (index,), (patience,))
        return (index < max_steps) & ~((index >= min_steps) & (recent < epsilon).all())

    def body(carry):
        index, u, memory, before, history = carry
        raw, u, memory = one_step(params, space, norm_every, u, memory, index)
        now = probe(raw)
        change = jnp.abs(now - before).mean() / (jnp.abs(before).mean() + NORM_EPSILON)
        return index + 1, u, memory, now, history.at[index + patience].set(change)

    history = jnp.full(max_steps + patience, jnp.nan, wide.dtype)
    start = (jnp.int32(0), wide, jnp.zeros_like(space.mean(wide)), probe(wide), history)
    steps, out, _, _, history = lax.while_loop(going, body, start)
    return Settled(out.astype(u.dtype), steps, history[patience:])
