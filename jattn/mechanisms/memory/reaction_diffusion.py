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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_shape
from jattn.mechanisms import projections as p
from jattn.mechanisms.memory.grids import (
    laplacian1d,
    laplacian2d,
    pool_weights,
    spread_weights,
)
from jattn.mechanisms.mixer import Mechanism, Mixer, Params

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
            "weight": p.linear_init(weight, inputs, outputs),
            "bias": p.linear_init(bias, inputs, outputs)[0],
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
    """How cells lie: on a grid, in a row, or in time.

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
    """Cells on a grid of rows and columns, `[b, h, w, c]`."""
    lines = [(jnp.arange(n)[None], jnp.full((1, 1), n)) for n in shape]
    rows, columns = (pool_weights(*line, regions)[0] for line in lines)
    down, across = (spread_weights(*line, regions)[0] for line in lines)

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
    """Cells in a row, `[b, t, c]`, or in time; what is not there is as the cell before it is."""
    real = jnp.ones((1, length), bool) if mask is None else mask
    place, count = jnp.cumsum(real, 1) - 1, real.sum(1, keepdims=True)
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
            return jnp.cumsum(there, 1) / jnp.maximum(place + 1, 1)[..., None].astype(u.dtype)
        return there.sum(1, keepdims=True) / jnp.maximum(count, 1)[..., None].astype(u.dtype)

    def local(u, change):
        weights = jnp.where(real[:, None], pool_weights(place, count, REGIONS), 0).astype(u.dtype)
        means = weights @ jnp.where(real[..., None], u, 0)
        return spread_weights(place, count, REGIONS).astype(u.dtype) @ change(means)

    return Space(diffuse, mean, None if causal else local)


def _step(
    params: Params, space: Space, norm_every: int, u: Array, memory: Array, index: Int[Array, ""]
) -> tuple[Array, Array, Array]:
    """u before the norm of this step, u after it, and h_g."""
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
    normed = p.rms_norm(raw, params["norm"], eps=NORM_EPSILON)
    return raw, jnp.where((index + 1) % norm_every == 0, normed, raw), memory


def evolve(
    params: Params, space: Space, u: Float[Array, "b *cells c"], steps: int, norm_every: int = 2
) -> Float[Array, "b *cells c"]:
    """u after so many steps in a space."""

    def body(carry, index):
        u, memory = carry
        _, u, memory = _step(params, space, norm_every, u, memory, index)
        return (u, memory), None

    memory = jnp.zeros_like(space.mean(u))
    return lax.scan(body, (u, memory), jnp.arange(steps))[0][0]


def _wide(params: Params, u: Array) -> tuple[Params, Array]:
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
    params, wide = _wide(params, u)
    space = image_space(params, (u.shape[1], u.shape[2]), dilations, regions)
    return evolve(params, space, wide, steps, norm_every).astype(u.dtype)


class Settled(NamedTuple):
    """Where `settle` stopped.

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
    """As `reaction_diffusion`, until little changes; for evaluation, it has no gradient backwards.

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
    params, wide = _wide(params, u)
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
        raw, u, memory = _step(params, space, norm_every, u, memory, index)
        now = probe(raw)
        change = jnp.abs(now - before).mean() / (jnp.abs(before).mean() + NORM_EPSILON)
        return index + 1, u, memory, now, history.at[index + patience].set(change)

    history = jnp.full(max_steps + patience, jnp.nan, wide.dtype)
    start = (jnp.int32(0), wide, jnp.zeros_like(space.mean(wide)), probe(wide), history)
    steps, out, _, _, history = lax.while_loop(going, body, start)
    return Settled(out.astype(u.dtype), steps, history[patience:])


class RowState(NamedTuple):
    """What the causal form remembers, for each of its steps.

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
        >>> params = mixer.init(jax.random.key(0))
        >>> mixer.apply(params, jnp.ones((1, 12, 8))).shape
        (1, 12, 8)
    """
    p.check_heads(dim, heads)
    dilations = tuple(dilations)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations: expected at least 1 each, got {dilations}")
    if causal and grid is not None:
        raise ValueError(f"grid: expected None if causal, got {grid}")
    reach = 2 * max(dilations)

    def init(key):
        return reaction_diffusion_init(key, dim, dilations=len(dilations), local=not causal)

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        p.no_context("reaction_diffusion", context)
        p.check_tokens(dim, x, None, positions)
        if grid is None:
            real = p.padding(mask, *x.shape[:2])
            wide, u = _wide(params, x)
            space = sequence_space(wide, x.shape[1], dilations, causal=causal, mask=real)
            return evolve(wide, space, u, steps).astype(x.dtype)
        if x.shape[1] != grid[0] * grid[1] or mask is not None:
            wanted = f"{grid[0]} x {grid[1]} tokens without a mask"
            got = f"{x.shape[1]} tokens" + ("" if mask is None else " with one")
            raise ValueError(f"x: expected {wanted}, got {got}")
        image = x.reshape(x.shape[0], *grid, dim)
        return reaction_diffusion(image, params, steps, dilations=dilations).reshape(x.shape)

    def init_state(params, batch_size, max_length):
        dtype = params["norm"].dtype
        past = jnp.zeros((steps, batch_size, reach, dim), dtype)
        return RowState(jnp.zeros((), jnp.int32), past, jnp.zeros((steps, batch_size, dim), dtype))

    def step(params, x, state):
        wide, u = _wide(params, x)
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
            _, after, memory = _step(wide, space, 2, u, memory, index)
            past = jnp.concatenate([past[:, 1:], u[:, None]], 1)
            return (after, memory), (past, total)

        start = (u, jnp.zeros_like(u))
        inputs = (jnp.arange(steps), state.past.astype(u.dtype), state.total.astype(u.dtype))
        (out, _), (past, total) = lax.scan(body, start, inputs)
        past, total = past.astype(state.past.dtype), total.astype(state.total.dtype)
        return out.astype(x.dtype), RowState(state.count + 1, past, total)

    return Mixer(init, apply, init_state, step) if causal else Mixer(init, apply)


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
