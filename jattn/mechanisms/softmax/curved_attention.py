"""Curvature-adaptive attention, CAT (arXiv 2510.01634): flat, hyperbolic and spherical heads.

    o_i = sum_c G_ic sum_j softmax_j( score_c(q_i, k_j) ) v_j,    G_i = softmax(W_2 gelu(W_1 x_i))

    euclidean    q . k / tau
    hyperbolic   -dist(exp q, exp k) / tau, on the hyperboloid of curvature -c
                 sinh(dist sqrt(c) / 2)^2 = sinh((a - b) / 2)^2 + sinh(a) sinh(b) (1 - cos) / 2
                 where a = sqrt(c) |q|, b = sqrt(c) |k|, cos is that of the angle between them
    spherical    cos(q, k) / tau, or -angle / (tau sqrt(c))

c and tau are learned; tau starts at sqrt(d), c at 1. Values are summed in the tangent space at the
origin. A hyperbolic or spherical score is a function of one inner product of directions and of two
lengths, so no array of all distances is made, and no length is too large.

Distinctive: trees want negative curvature and rings a positive one, and a token chooses.

Limits: a router that always takes one geometry is that geometry alone; c -> 0 makes the hyperbolic
distance the one of the tangents. The paper's text leaves most of this open; these are the simplest
forms that have its parts. `jattn.mechanisms.combinators.mixture` does the same with whole mixers.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.checks import check_choice, check_count
from jattn.mechanisms.combinators.mixture import router_init, router_shares
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

GEOMETRIES = ("euclidean", "hyperbolic", "spherical")
SPHERES = ("cosine", "angle")
BRANCHES = ("shared", "separate")

FAR = 15.0  # in units of 1 / sqrt(c), half a distance from which on logarithms are added

Number = float | Float[Array, ""]


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x in float32 at least: distances are differences of large numbers."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def lorentz_lift(u: Float[Array, "*batch d"], c: Number) -> Float[Array, "*batch n"]:
    """The point of the hyperboloid that a tangent vector at the origin leads to.

        ( cosh(r), sinh(r) u / |u| ) / sqrt(c),   r = sqrt(c) |u|

    Args:
        u: tangent vectors `[..., d]`.
        c: minus the curvature, > 0.

    Returns:
        `[..., d + 1]`, time first, in float32 (float64); -time^2 + |space|^2 = -1 / c.

    Reference:
        arXiv 2510.01634; the model of hyperbolic space, arXiv 1806.03417.

    Example:
        >>> lorentz_lift(jnp.zeros((1, 2)), 1.0).tolist()
        [[1.0, 0.0, 0.0]]
    """
    u = wide(u)
    square = c * (u**2).sum(-1, keepdims=True)
    # sinh(r) / r is 1 at 0, where the root has no slope.
    small = square < 1e-12
    r = jnp.sqrt(jnp.where(small, 1.0, square))
    time = jnp.where(small, 1 + square / 2, jnp.cosh(r))
    return jnp.concatenate([time / jnp.sqrt(c), u * jnp.where(small, 1.0, jnp.sinh(r) / r)], -1)


def _polar(u: Float[Array, "*batch d"], c: Number) -> tuple[Array, Array]:
    """The distance r = sqrt(c) |u| of a point from the origin, and its direction u / |u|."""
    u = wide(u)
    square = (u**2).sum(-1)
    length = jnp.sqrt(jnp.where(square == 0, 1, square))
    return jnp.sqrt(c) * jnp.where(square == 0, 0, length), u / length[..., None]


def _distance(cosine: Array, a: Array, b: Array, c: Number) -> Array:
    """Distance of two points at distances a and b from the origin, by the angle between them.

        sinh(d / 2)^2 = sinh((a - b) / 2)^2 + sinh(a) sinh(b) (1 - cos) / 2

    The cosine law without differences of large numbers; where its terms leave the range of floats,
    their logarithms are added: d = 2 log(2 sinh(d / 2)).
    """
    # Directions that are equal up to rounding are equal: far out, no other distance is this short.
    rounding = 4 * jnp.finfo(cosine.dtype).eps
    apart = 1 - cosine > rounding
    half_gap = jnp.abs(a - b) / 2
    safe = lambda x: jnp.where(x > 0, x, 1)
    # log sinh(x) = x + log(1 - exp(-2 x)) - log 2
    log_sinh = lambda x: x + jnp.log(-jnp.expm1(-2 * x)) - math.log(2)
    there = apart & (a > 0) & (b > 0)
    between = jnp.where(there, (1 - cosine) / 2, 1)
    across = (log_sinh(safe(a)) + log_sinh(safe(b)) + jnp.log(between)) / 2
    across = jnp.where(there, across, 0)
    far = jnp.maximum(across, half_gap) > FAR
    # Close by: the sum itself.
    small = lambda x: jnp.where(far, 0, x)
    square = jnp.sinh(small(half_gap)) ** 2 + jnp.where(there, jnp.exp(small(2 * across)), 0)
    near = jnp.arcsinh(jnp.sqrt(jnp.where(square > 0, square, 1)))
    near = jnp.where(square > 0, near, 0)
    # Far away: arcsinh(x) = log(2 x), and x is the larger term, or both.
    gap = jnp.where(half_gap > 0, log_sinh(safe(half_gap)), -jnp.inf)
    gap, across = jnp.where(far, gap, 0), jnp.where(far & there, across, -jnp.inf)
    larger = jnp.maximum(gap, across)
    larger = jnp.where(far, larger, 0)
    beyond = larger + jnp.log(jnp.exp(2 * (gap - larger)) + jnp.exp(2 * (across - larger))) / 2
    return 2 * jnp.where(far, beyond + math.log(2), near) / jnp.sqrt(c)


def lorentz_distance(
    u: Float[Array, "*#batch d"], w: Float[Array, "*#batch d"], c: Number
) -> Float[Array, "*batch"]:
    """Distance of the points that two tangent vectors at the origin lead to.

    Args:
        u, w: `[..., d]`, as long as floats are.
        c: minus the curvature, > 0.

    Returns:
        `[...]`. Directions less than about 1e-3 apart (in float32) are taken for equal.

    Example:
        >>> round(float(lorentz_distance(jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.0]), 1.0)), 3)
        2.0
    """
    (a, u), (b, w) = _polar(u, c), _polar(w, c)
    return _distance((u * w).sum(-1), a, b, c)


def lorentz_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    c: Number,
    tau: Number,
    *,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Attention by nearness on the hyperboloid: softmax of -distance / tau.

    Args:
        query, key: tangent vectors at the origin, `[b, t, h, d]`, `[b, s, g, d]`.
        value: `[b, s, g, e]`.
        c: minus the curvature, > 0.
        tau: temperature, > 0.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, in value's dtype.

    Reference:
        arXiv 2510.01634.

    Example:
        >>> x = jnp.ones((1, 5, 2, 4))
        >>> lorentz_attention(x, x, x, c=1.0, tau=2.0).shape
        (1, 5, 2, 4)
    """
    shared = query.shape[2] // key.shape[2]
    (a, query), (b, key) = _polar(query, c), _polar(key, c)

    def score_mod(cosine, batch, head, q_index, k_index):
        of_query, of_key = a[batch, q_index, head], b[batch, k_index, head // shared]
        return -_distance(cosine, of_query, of_key, c) / tau

    out = attend(query, key, value, mask=mask, scale=1.0, score_mod=score_mod)
    return out.astype(value.dtype)


def spherical_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    tau: Number,
    c: Number | None = None,
    *,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Attention by nearness on the sphere of directions.

    Args:
        query, key: `[b, t, h, d]`, `[b, s, g, d]`; their lengths do not matter.
        value: `[b, s, g, e]`.
        tau: temperature, > 0.
        c: None for scores cos / tau; the curvature, > 0, for -angle / (tau sqrt(c)).
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, in value's dtype.

    Reference:
        arXiv 2510.01634.

    Example:
        >>> x = jnp.ones((1, 5, 2, 4))
        >>> spherical_attention(x, 3 * x, x, tau=2.0).shape
        (1, 5, 2, 4)
    """
    query, key = unit(query), unit(key)
    if c is None:
        out = attend(query / tau, key, value, mask=mask, scale=1.0)
        return out.astype(value.dtype)

    def score_mod(product, batch, head, q_index, k_index):
        bound = 1 - 8 * jnp.finfo(product.dtype).eps
        return -jnp.arccos(jnp.clip(product, -bound, bound)) / (tau * jnp.sqrt(c))

    out = attend(query, key, value, mask=mask, scale=1.0, score_mod=score_mod)
    return out.astype(value.dtype)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    geometries: Sequence[str] = GEOMETRIES,
    branches: str = "shared",
    sphere: str = "cosine",
    hidden: int | None = None,
) -> Mixer:
    """Makes the mixer.

    Its parameters are `log_temperature` `[n]`, `curvature`, a number for each geometry that has one
    (c is its softplus), and, for more than one geometry, `router_up` and `router_down`.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        geometries: n of `"euclidean"`, `"hyperbolic"`, `"spherical"`.
        branches: `"shared"`, every geometry has all queries, keys and values; or `"separate"`, an
            n-th of the heads each, of which there must be a multiple of n.
        sphere: scores by `"cosine"` or `"angle"`; only the second has a curvature.
        hidden: inner size of the router; default m / 4, one at least.

    Raises:
        ValueError: an unknown value, or a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    check_choice("branches", branches, BRANCHES)
    check_choice("sphere", sphere, SPHERES)
    if isinstance(geometries, str) or not isinstance(geometries, Sequence):
        raise ValueError(f"geometries: expected several of {GEOMETRIES}, got {geometries!r}")
    geometries = tuple(geometries)
    for geometry in geometries:
        check_choice("geometries", geometry, GEOMETRIES)
    n = len(geometries)
    if n == 0 or len(set(geometries)) < n:
        raise ValueError(f"geometries: expected different ones, one at least, got {geometries}")
    check_heads(dim, heads, kv_heads)
    groups = heads if kv_heads is None else kv_heads
    if branches == "separate" and groups % n:
        raise ValueError(f"heads: expected a multiple of {n} to be separate, got {groups}")
    hidden = max(dim // 4, 1) if hidden is None else hidden
    check_count("hidden", hidden)
    curved = [g for g in geometries if g == "hyperbolic" or (g, sphere) == ("spherical", "angle")]

    def init(key):
        own = router_init(key, dim, n, hidden) if n > 1 else {}
        own["log_temperature"] = jnp.full(n, math.log(dim // heads) / 2)
        if curved:  # softplus is 1 there
            own["curvature"] = jnp.full(len(curved), math.log(math.e - 1))
        return own

    def branch(params, index, query, key, value, mask):
        geometry = geometries[index]
        tau = jnp.exp(params["log_temperature"][index])
        if geometry == "euclidean":
            return attend(wide(query) / tau, key, value, mask=mask, scale=1.0).astype(value.dtype)
        if geometry in curved:
            c = jax.nn.softplus(params["curvature"][curved.index(geometry)])
            if geometry == "hyperbolic":
                return lorentz_attention(query, key, value, c, tau, mask=mask)
            return spherical_attention(query, key, value, tau, c, mask=mask)
        return spherical_attention(query, key, value, tau, mask=mask)

    def core(params, query, key, value, context):
        shares = router_shares(params, context.x) if n > 1 else jnp.ones((*query.shape[:2], 1))
        outputs = []
        for index in range(n):
            part = lambda heads: heads  # all of them
            if branches == "separate":
                part = lambda heads, index=index: jnp.split(heads, n, axis=2)[index]
            out = branch(params, index, part(query), part(key), part(value), context.mask)
            outputs.append(out * shares[..., index, None, None].astype(out.dtype))
        return jnp.concatenate(outputs, 2) if branches == "separate" else jnp.asarray(sum(outputs))

    return attention_mixer(
        "curved_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        init=init,
    )


MECHANISM = Mechanism(
    name="curved_attention",
    title="CAT: curvature-adaptive transformers",
    arxiv="2510.01634",
    family="softmax",
    equation="o_i = sum_c G_ic sum_j softmax_j(score_c(q_i, k_j)) v_j, c: flat, hyperbolic, round",
    core=lorentz_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=("router_up", "router_down", "log_temperature", "curvature"),
    idle=("router_up",),
)
