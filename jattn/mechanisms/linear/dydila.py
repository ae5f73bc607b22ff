"""DyDiLA: dynamic differential linear attention for diffusion transformers (arXiv 2601.13683).

    o_i = (Q_i - l_i Q'_i) sum_j (K_j - l_j K'_j)^T v_j
    Q = phi_g(x W_Q),  Q' = phi_g'(x W'_u),   phi_g(z) = |r| r^g / |r^g|,  r = relu(z)

and K, K' as Q, Q'. Q' and K' are what is redundant in Q and K. Which of several matrices W', of
powers g and of shares l a token takes is the largest of its scores in a router, through which
gradients pass as if it were a softmax. On a grid of image patches a depthwise 3 x 3 convolution of
the values is added.

Distinctive: linear attention whose weights are not smeared over all tokens: a power sharpens the
features without changing their length, and what all tokens have in common is taken off.

Limits: l = 0 is linear attention with `phi_g`, then g = 1 with relu; Q' = Q, K' = K and l = 1 give
zero. With one entry in each bank there is nothing to route, as is the default here: gradients
through routers are not derivatives. The paper's routed form has more, such as 3 projections, 9
powers and 9 shares. Weights may be negative, so no row is divided by its sum.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_number, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.convolutions import depthwise
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_heads,
    split_qkv,
)
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_grid, check_heads
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts
from jattn.recurrence.feature_maps import relu

POWER, SHARE = 3.0, 0.01  # where g and l start
PARTS = ("query", "key", "redundant_query", "redundant_key")


def power_features(
    z: Float[Array, "*batch d"], gamma: Float[Array, "*#batch"]
) -> Float[Array, "*batch d"]:
    """`|relu z| relu(z)^g / |relu(z)^g|`: sharper for g > 1, of the same length.

    Args:
        z: `[..., d]`.
        gamma: g > 0, broadcastable to `[...]`.

    Returns:
        `[..., d]`; zero where no channel is positive.

    Reference:
        arXiv 2601.13683.

    Example:
        >>> sharp = power_features(jnp.array([3.0, 4.0, -1.0]), jnp.array(2.0))
        >>> sharp.round(2).tolist(), round(float(jnp.linalg.norm(sharp)), 3)
        ([2.450000047683716, 4.360000133514404, 0.0], 5.0)
    """
    positive = relu(z)
    # Only the direction counts, so a power of numbers in [0, 1] serves, and none overflows. Zeros
    # are kept out: they have no logarithm, and for g < 1 no slope.
    largest = lax.stop_gradient(positive.max(-1, keepdims=True))
    relative = positive / jnp.where(largest == 0, 1, largest)
    some = relative > 0
    power = jnp.where(some, jnp.where(some, relative, 1) ** gamma[..., None], 0)
    return power * (_length(positive) / jnp.where(largest == 0, 1, _length(power)))


def _length(x: Float[Array, "*batch d"]) -> Float[Array, "*batch 1"]:
    """`|x|`, with a gradient of zero at zero."""
    square = (x**2).sum(-1, keepdims=True)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def st_argmax_route(scores: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """One-hot of the largest score, with the gradient of the softmax (straight through).

    Args:
        scores: `[..., n]`.

    Returns:
        `[..., n]`.

    Reference:
        arXiv 2601.13683.

    Example:
        >>> st_argmax_route(jnp.array([1.0, 3.0, 2.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    hard = jax.nn.one_hot(scores.argmax(-1), scores.shape[-1], dtype=scores.dtype)
    soft = jax.nn.softmax(scores)
    return hard + (soft - lax.stop_gradient(soft))


def dydila(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    value: Float[Array, "b s h e"],
    redundant_query: Float[Array, "b t h d"],
    redundant_key: Float[Array, "b s h d"],
    *,
    gamma_q: Float[Array, "#b #t #h"],
    gamma_k: Float[Array, "#b #s #h"],
    gamma_qp: Float[Array, "#b #t #h"],
    gamma_kp: Float[Array, "#b #s #h"],
    lam_q: Float[Array, "#b #t #h"],
    lam_k: Float[Array, "#b #s #h"],
    scale: float = 1.0,
    mask: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t h e"]:
    """Differential linear attention on arrays; see the module's docstring.

    Args:
        query: `[b, t, h, d]`, before the feature map.
        key: `[b, s, h, d]`.
        value: `[b, s, h, e]`.
        redundant_query: Q' before the feature map, `[b, t, h, d]`.
        redundant_key: K', `[b, s, h, d]`.
        gamma_q: powers g > 0 of each token and head, broadcastable to `[b, t, h]`.
        gamma_k: the same of keys.
        gamma_qp: the same of Q'.
        gamma_kp: the same of K'.
        lam_q: shares l of Q'.
        lam_k: shares l of K'.
        scale: a factor of the output.
        mask: True for real keys, `[b, s]`; None if all are.

    Returns:
        `[b, t, h, e]`, in query's dtype.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2601.13683.

    Example:
        >>> x, one = jax.random.normal(jax.random.key(0), (1, 5, 2, 4)), jnp.ones((1, 1, 1))
        >>> power = dict(gamma_q=one, gamma_k=one, gamma_qp=one, gamma_kp=one)
        >>> float(jnp.abs(dydila(x, x, x, x, x, **power, lam_q=one, lam_k=one)).max())
        0.0
    """
    sizes: dict[str, int] = {}
    for name, array, axes in (
        ("query", query, "b t h d"),
        ("key", key, "b s h d"),
        ("value", value, "b s h e"),
        ("redundant_query", redundant_query, "b t h d"),
        ("redundant_key", redundant_key, "b s h d"),
    ):
        check_shape(name, array, axes, sizes)
    wide = jnp.promote_types(query.dtype, jnp.float32)

    def difference(x, other, gamma, gamma_other, share):
        features = power_features(x.astype(wide), gamma.astype(wide))
        common = power_features(other.astype(wide), gamma_other.astype(wide))
        return features - share[..., None].astype(wide) * common

    out = linear_attention(
        scale * difference(query, redundant_query, gamma_q, gamma_qp, lam_q),
        difference(key, redundant_key, gamma_k, gamma_kp, lam_k),
        value.astype(wide),
        feature_map="identity",
        normalize=False,
        mask=mask,
    )
    return out.astype(query.dtype)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    projections: int = 1,
    powers: int = 1,
    shares: int = 1,
    grid: tuple[int, int] | None = None,
    scale: float = 1.0,
) -> Mixer:
    """DyDiLA between projections; with more than one entry in a bank there is `router`.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: always False; there is no causal form.
        projections: matrices to choose from for Q', and as many for K'.
        powers: values of g to choose from, for each of Q, K, Q' and K' on their own.
        shares: values of l to choose from.
        grid: rows and columns of image patches, for the convolution of the values; None: none.
        scale: as in `dydila`.

    Returns:
        A `Mixer`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, projections=3, powers=9, shares=9, grid=(2, 3))
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["redundant_query"].shape, params["power"]["key"].shape
        ((3, 8, 8), (9,))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 8))).shape
        (1, 6, 8)
    """
    check_heads(dim, heads)
    size = dim // heads
    for name, count in (("projections", projections), ("powers", powers), ("shares", shares)):
        check_count(name, count)
    check_number("scale", scale)
    grid = None if grid is None else check_grid(grid)
    # What each router scores: the tokens, one vector of a head, or a head's two vectors.
    routers = {
        "projection": (("query", "key"), dim, projections),
        "power": (PARTS, size, powers),
        "share": (("query", "key"), 2 * size, shares),
    }
    routed = {name: rest for name, rest in routers.items() if rest[2] > 1}

    def init(key):
        base, banks, convolution, own = jax.random.split(key, 4)
        params: dict[str, Any] = qkvo_init(base, dim, heads)
        for name, k in zip(PARTS[2:], jax.random.split(banks), strict=True):
            keys = jax.random.split(k, projections)
            params[name] = jnp.stack([linear_init(one, dim, dim) for one in keys])
        params["power"] = {part: jnp.full(powers, POWER) for part in PARTS}
        params["share"] = jnp.full(shares, SHARE)
        if grid is not None:
            params["convolution"] = linear_init(convolution, 9, dim).reshape(3, 3, dim)
        if routed:
            params["router"] = {
                name: {
                    part: linear_init(jax.random.fold_in(jax.random.fold_in(own, i), j), n, count)
                    for j, part in enumerate(parts)
                }
                for i, (name, (parts, n, count)) in enumerate(routed.items())
            }
        return params

    def choose(params, kind, part, x, bank):
        """The entry of a bank `[n, ...]` that each vector of x takes."""
        if kind not in routed:
            return jnp.broadcast_to(bank[0], (*x.shape[:-1], *bank.shape[1:]))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        scores = x.astype(wide) @ params["router"][kind][part].astype(wide)
        return st_argmax_route(scores) @ bank.astype(wide)

    def redundant(params, part, x):
        bank = params[f"redundant_{part}"].astype(x.dtype)
        every = jnp.einsum("btm,nmk->btnk", x, bank)
        if projections == 1:
            return split_heads(every[:, :, 0], heads)
        scores = linear(x, params["router"]["projection"][part])
        chosen = jnp.einsum("btn,btnk->btk", st_argmax_route(scores), every)
        return split_heads(chosen, heads)

    def apply(parts, params, given):
        x, source, real = given.x, given.source, given.real
        if grid is not None and x.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f"x: expected {grid[0]} x {grid[1]} = {grid[0] * grid[1]} tokens, got {x.shape[1]}"
            )
        query, keys, value = split_qkv(parts.project(params, x, source), heads, heads)
        pairs = {
            "query": (query, redundant(params, "query", x)),
            "key": (keys, redundant(params, "key", source)),
        }
        gammas, lams = {}, {}
        for part, pair in pairs.items():
            for name, z in zip((part, f"redundant_{part}"), pair, strict=True):
                gammas[name] = choose(params, "power", name, z, params["power"][name])
            both = jnp.concatenate(pair, -1)
            lams[part] = choose(params, "share", part, both, params["share"])
        out = dydila(
            query, keys, value, pairs["query"][1], pairs["key"][1],
            gamma_q=gammas["query"], gamma_k=gammas["key"],
            gamma_qp=gammas["redundant_query"], gamma_kp=gammas["redundant_key"],
            lam_q=lams["query"], lam_k=lams["key"], scale=scale, mask=real,
        )  # fmt: skip
        merged = merge_heads(out)
        if grid is not None:
            values = merge_heads(value)
            values = values if real is None else jnp.where(real[..., None], values, 0)
            image = values.reshape(len(values), *grid, -1)
            detail = depthwise(image, params["convolution"])
            merged = merged + detail.reshape(merged.shape)
        return parts.output(params, merged, x)

    return framed_parts(
        "dydila" if grid is None else "dydila on a grid",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        takes="padding",
        causal=False,
        cross=grid is None,
    )


MECHANISM = Mechanism(
    name="dydila",
    title="DyDiLA: dynamic differential linear attention",
    arxiv="2601.13683",
    family="linear",
    equation="o_i = (phi(q_i) - l phi(q'_i)) sum_j (phi(k_j) - l phi(k'_j))^T v_j",
    core=dydila,
    make=make,
    causal=False,
    bidirectional=True,
    cross=True,
    streaming=False,
    cost="linear",
    equivariant=True,
    documents="never",
    parameters=("redundant_query", "redundant_key", "power", "share"),
)
