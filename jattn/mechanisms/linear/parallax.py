"""Parallax: softmax attention less a covariance, which a second query asks for.

Paper: Parallax, arXiv 2605.29157.

    o_i = E_p[v] - Cov_p(v, r_i.k) = sum_j p_ij (1 - r_i.(k_j - E_p[k])) v_j
    p_i = softmax_j(q_i.k_j / sqrt(d)),   r_i = x_i W_r

The covariance is the derivative of softmax attention along r: to first order, o_i is what the query
q_i - sqrt(d) r_i would read. The probe r has no scale.

Distinctive: weights of a row sum to one, but may be negative and larger than one, so that a head
can extrapolate beyond the values it has. There is no position in it.

Limits: r = 0 is softmax attention, and so are any r where all keys are equal. With r the solution
of a small linear system it is local linear attention, for which it stands in at the cost of one
more product with the keys.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.attention import attend, masks
from jattn.checks import check_shape
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def covariance_attention(
    query: Float[Array, "b t h d"],
    probe: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    scale: float | Float[Array, ""] | None = None,
    mask: Any = None,
    block_size: int | None = 128,
    return_weights: bool = False,
) -> Any:  # One array, or with `return_weights` a pair: see Returns.
    """Softmax attention less the covariance of the values with `probe . key`.

        o_i = sum_j a_ij v_j,   a_ij = p_ij (1 - r_i.(k_j - sum_l p_il k_l))

    Args:
        query: `[b, t, h, d]`.
        probe: r, `[b, t, h, d]`; it is not scaled.
        key: `[b, s, g, d]`, g dividing h.
        value: `[b, s, g, e]`.
        scale: of query times key; default `d**-0.5`.
        mask: anything `jattn.attend` takes.
        block_size: queries at a time: temporary memory grows with `block_size * s`, forward and
            backward. None is all of them.
        return_weights: return a, too; then all queries are taken at once.

    Returns:
        `[b, t, h, e]` in the query's dtype; with `return_weights` the pair of it and a,
        `[b, h, t, s]`. A query that sees no key gets zeros.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2605.29157, Algorithm 1.

    Example:
        >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 5, 2, 4))
        >>> out = covariance_attention(q, 0 * q, k, v)
        >>> bool(jnp.allclose(out, attend(q, k, v), atol=1e-6))
        True
    """
    sizes = check_inputs(query, key, value)
    check_shape("probe", probe, "b t h d", sizes)
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    keys, values = (repeat_heads(x.astype(dtype), sizes["h"]) for x in (key, value))

    def block(rows, allowed):
        asked, along = rows
        weights = softmax_weights(asked, keys, scale, allowed)[1]
        signed = weights - tilt(weights, along, keys)
        out = jnp.einsum("bhts,bshe->bthe", signed, values, precision=lax.Precision.HIGHEST)
        return (out, signed) if return_weights else out

    rows = (query.astype(dtype), probe.astype(dtype))
    if return_weights:
        block_size = None
    result = by_query_blocks(block, rows, mask, sizes, block_size)
    if return_weights:
        out, weights = result
        return out.astype(query.dtype), weights
    return result.astype(query.dtype)


def check_inputs(query: Array, key: Array, value: Array) -> dict[str, int]:
    """Sizes by name of queries `b t h d`, keys `b s g d` and values `b s g e`.

    Raises:
        ValueError: shapes that do not fit.
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    check_shape("value", value, "b s g e", sizes)
    if sizes["h"] % sizes["g"]:
        raise ValueError(f"key: expected a number of heads that divides {sizes['h']}, "
                         f"got {sizes['g']}")  # fmt: skip
    return sizes


def repeat_heads(x: Float[Array, "b s g d"], heads: int) -> Float[Array, "b s h d"]:
    """Each key-value head once for every query head that reads it."""
    return jnp.repeat(x, heads // x.shape[2], axis=2)


def softmax_weights(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    scale: Any,
    allowed: Bool[Array, "..."] | None,
) -> tuple[Float[Array, "b t h d"], Float[Array, "b h t s"]]:
    """Mean of the keys under softmax attention, and its weights p."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return attend(query * scale, key, key, mask=allowed, scale=1.0, return_weights=True)


def tilt(
    weights: Float[Array, "b h t s"],
    along: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
) -> Float[Array, "b h t s"]:
    """`p_ij r_i.(k_j - E_p[k])`: summed against v it is the covariance of v with r.k."""
    # r.k is centred rather than k: no array has axes t, s and d.
    reach = jnp.einsum("bthd,bshd->bhts", along, key, precision=lax.Precision.HIGHEST)
    return weights * (reach - (weights * reach).sum(-1, keepdims=True))


def by_query_blocks(
    function: Callable[[Any, Any], Any],
    rows: tuple[Array, ...],
    mask: Any,
    sizes: dict[str, int],
    block_size: int | None,
) -> Any:
    """Applies a function to blocks of queries, one after the other, and again for gradients.

    Args:
        function: `(rows, allowed)` to an array `[b, block, ...]`, where allowed is None or bool
            `[#b, #h, block, s]`.
        rows: arrays `[b, t, ...]`.
        mask: anything `jattn.attend` takes.
        sizes: of b, h, t and s.
        block_size: rows at a time; None is all of them.

    Returns:
        What the function gives, `[b, t, ...]`.
    """
    b, h, t, s = (sizes[axis] for axis in "bhts")
    if mask is not None:
        mask = masks.as_mask(mask)
        mask = mask.fit(b, h, t, s)
    if block_size is None or t <= block_size:
        return function(rows, None if mask is None else mask.dense(t, s))
    count = -(-t // block_size)
    mask = None if mask is None else mask.pad(count * block_size, s)

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, count * block_size - t)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], count, block_size, *x.shape[2:]), 1, 0)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # A loop's body is not merged anyway.
    def block(start, rows):
        return function(rows, None if mask is None else mask.tile(start, 0, block_size, s))

    starts = block_size * jnp.arange(count)
    blocks = lax.map(lambda each: block(*each), (starts, tuple(map(split, rows))))
    blocks = jnp.moveaxis(blocks, 0, 1)
    return blocks.reshape(blocks.shape[0], -1, *blocks.shape[3:])[:, :t]


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    window: int | None = None,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens; the mixer then streams, with a key-value cache.
        kv_heads: key-value heads g, a divisor of h; default h.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, causal=True, kv_heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """

    def core(params, query, key, value, context):
        probe = split_heads(linear(context.x, params["probe"]), heads)
        return covariance_attention(query, probe, key, value, mask=context.mask)

    return attention_mixer(
        "parallax",
        dim=dim,
        heads=heads,
        causal=causal,
        kv_heads=kv_heads,
        core=core,
        init=lambda key: {"probe": linear_init(key, dim, dim)},
        window=window,
    )


MECHANISM = Mechanism(
    name="parallax",
    title="Parallax: local linear attention with a learned probe",
    arxiv="2605.29157",
    family="linear",
    equation="o_i = E_p[v] - Cov_p(v, r_i.k), p = softmax(q_i.k / sqrt(d)), r_i = x_i W_r",
    core=covariance_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=("probe",),
)
