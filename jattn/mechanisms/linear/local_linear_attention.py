"""Local linear attention: each query fits a line to the values, softmax fits a constant.

Paper: Local Linear Attention, arXiv 2510.01450.

    o_i = the b of  min_{b, W} sum_j p_ij |v_j - b - W (k_j - q_i)|^2 + ridge |W|^2
    p_i = softmax_j(scale q_i.k_j)

The intercept, not the slope, is the output. Solved for it,

    o_i = E_p[v] - Cov_p(v, r_i.k),   r_i = (Cov_p(k, k) + ridge I)^-1 (E_p[k] - q_i)

which is softmax attention and one correction: E_p[v] is read at E_p[k], and moved from there to
q_i along the slope. The ridge is relative to the sum of weights, as in the authors' code.

Distinctive: no bias where values change with the keys to first order, at boundaries of the data
above all. The system of each query is solved by conjugate gradients, whose every turn is one more
pass over the keys (quadratic in length, linear in memory); gradients take one more solve.

Limits: ridge -> infinity is softmax attention. scale -> 0 is ridge regression of all values on all
keys, with intercept, at q_i: ordinary least squares as ridge -> 0. With ridge -> 0 it gives back
values that are affine in the keys exactly. With a learned r it is Parallax.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.checks import check_choice, check_count, check_number
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.linear.parallax import (
    by_query_blocks,
    check_inputs,
    covariance_attention,
    repeat_heads,
    softmax_weights,
    tilt,
)
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

SOLVERS = ("cg", "exact")
Vectors = Float[Array, "b t h d"]


def local_linear_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    ridge: float | Float[Array, ""] | Float[Array, " t"] = 0.1,
    scale: float | Float[Array, ""] | None = None,
    mask: Any = None,
    solver: str = "cg",
    iterations: int = 32,
    block_size: int | None = 128,
    return_weights: bool = False,
) -> Any:  # One array, or with `return_weights` a pair: see Returns.
    """Intercepts of local affine fits of the values by the keys, one at each query.

    Args:
        query: `[b, t, h, d]`, in the space of the keys.
        key: `[b, s, g, d]`, g dividing h.
        value: `[b, s, g, e]`.
        ridge: penalty of the slope, positive; one number, or one for each query `[t]`.
        scale: of query times key, the inverse of a bandwidth; default `d**-0.5`.
        mask: anything `jattn.attend` takes.
        solver: see `local_probe`.
        iterations: see `local_probe`.
        block_size: queries at a time, see `covariance_attention`.
        return_weights: return the signed weights, too; their rows sum to one.

    Returns:
        `[b, t, h, e]` in the query's dtype; with `return_weights` the pair of it and the weights
        `[b, h, t, s]`. A query that sees no key gets zeros, one that sees one key gets its value.

    Raises:
        ValueError: an unknown solver, or shapes that do not fit.

    Reference:
        arXiv 2510.01450.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 1, 2))
        >>> out = local_linear_attention(x, x, 3 * x + 1, ridge=1e-6)  # affine in the keys
        >>> bool(jnp.allclose(out, 3 * x + 1, atol=1e-3))
        True
    """
    probe = local_probe(
        query, key, ridge=ridge, scale=scale, mask=mask,
        solver=solver, iterations=iterations, block_size=block_size,
    )  # fmt: skip
    dtype = query.dtype
    result = covariance_attention(
        query.astype(probe.dtype), probe, key, value,
        scale=scale, mask=mask, block_size=block_size, return_weights=return_weights,
    )  # fmt: skip
    if return_weights:
        return result[0].astype(dtype), result[1]
    return result.astype(dtype)


def local_probe(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    *,
    ridge: float | Float[Array, ""] | Float[Array, " t"] = 0.1,
    scale: float | Float[Array, ""] | None = None,
    mask: Any = None,
    solver: str = "cg",
    iterations: int = 32,
    block_size: int | None = 128,
) -> Float[Array, "b t h d"]:
    """`r_i = (Cov_p(k, k) + ridge I)^-1 (E_p[k] - q_i)`, the probe of local linear attention.

    Args:
        query, key: as in `local_linear_attention`.
        ridge: positive; a number, or one for each query `[t]`.
        scale: of query times key; default `d**-0.5`.
        mask: anything `jattn.attend` takes.
        solver: `"cg"`, conjugate gradients, O(s d) a turn and query, the matrix is never made; or
            `"exact"`, elimination, O(s d^2 + d^3) a query, for small d and small ridges.
        iterations: turns of `"cg"`, but no more than 2 d: d finish in exact arithmetic, and
            rounding delays them. The error falls like ((c - 1) / (c + 1))^iterations, where c^2 is
            1 + largest variance / ridge.
        block_size: queries at a time, see `covariance_attention`.

    Returns:
        r, `[b, t, h, d]`, float32 at least. Gradients are those of the solution, not of the steps
        to it.

    Raises:
        ValueError: an unknown solver, or shapes that do not fit.

    Reference:
        arXiv 2510.01450.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 1, 2))
        >>> probes = [local_probe(x, x, solver=solver) for solver in ("cg", "exact")]
        >>> bool(jnp.allclose(*probes, atol=1e-4))
        True
    """
    check_choice("solver", solver, SOLVERS)
    sizes = check_inputs(query, key, key)
    t = sizes["t"]
    if jnp.ndim(ridge) > 1 or jnp.size(ridge) not in (1, t):
        raise ValueError(f"ridge: expected a number or [t={t}], got {list(jnp.shape(ridge))}")
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    keys = repeat_heads(key.astype(dtype), sizes["h"])
    ridges = jnp.broadcast_to(jnp.asarray(ridge, dtype).reshape(1, -1, 1, 1), (1, t, 1, 1))
    highest = lax.Precision.HIGHEST

    def block(rows, allowed):
        asked, ridge = rows
        mean, weights = softmax_weights(asked, keys, scale, allowed)

        def product(x):
            tilted = tilt(weights, x, keys)
            return jnp.einsum("bhts,bshd->bthd", tilted, keys, precision=highest) + ridge * x

        def solve(product, target):
            if solver == "cg":
                return conjugate_gradients(product, target, min(iterations, 2 * sizes["d"]))
            squares = jnp.einsum("bhts,bshd,bshn->bthdn", weights, keys, keys, precision=highest)
            matrix = squares - mean[..., :, None] * mean[..., None, :]
            return eliminate(matrix + ridge[..., None] * jnp.eye(sizes["d"], dtype=dtype), target)

        return lax.custom_linear_solve(product, mean - asked, solve, symmetric=True)

    return by_query_blocks(block, (query.astype(dtype), ridges), mask, sizes, block_size)


def conjugate_gradients(
    product: Callable[[Vectors], Vectors], target: Vectors, turns: int
) -> Vectors:
    """Solves A x = target for many positive definite matrices at once, from x = 0.

    Args:
        product: x to A x; a system is one vector of the last axis.
        target: `[b, t, h, d]`.
        turns: how many; a system stops once its residual is all rounding.

    Example:
        >>> conjugate_gradients(lambda x: 2 * x, jnp.ones((1, 1, 1, 3)), 2).tolist()
        [[[[0.5, 0.5, 0.5]]]]
    """

    def square(x):
        return (x * x).sum(-1, keepdims=True)

    small = square(target) * jnp.finfo(target.dtype).eps ** 2

    def ratio(top, bottom, going):
        return jnp.where(going, top / jnp.where(going, bottom, 1), 0)

    def turn(carry, _):
        x, residual, direction, size = carry
        image = product(direction)
        curvature = (direction * image).sum(-1, keepdims=True)
        going = (size > small) & (curvature > 0)
        rate = ratio(size, curvature, going)
        x, residual = x + rate * direction, residual - rate * image
        after = square(residual)
        return (x, residual, residual + ratio(after, size, going) * direction, after), None

    start = (jnp.zeros_like(target), target, target, square(target))
    return lax.scan(turn, start, length=turns)[0][0]


def eliminate(
    matrix: Float[Array, "*batch d d"], target: Float[Array, "*batch d"]
) -> Float[Array, "*batch d"]:
    """Solves many positive definite systems by Gauss and Jordan's elimination, without pivots.

    Plain array operations, which every backend has; LAPACK's loop over a batch is none of them.

    Example:
        >>> eliminate(2 * jnp.eye(3)[None, None, None], jnp.ones((1, 1, 1, 3))).tolist()
        [[[[0.5, 0.5, 0.5]]]]
    """

    def pivot(rows, i):
        own = rows[..., i, :]
        own = own / own[..., i, None]
        rows = rows - rows[..., :, i, None] * own[..., None, :]
        return rows.at[..., i, :].set(own), None

    rows = jnp.concatenate([matrix, target[..., None]], -1)
    return lax.scan(pivot, rows, jnp.arange(target.shape[-1]))[0][..., -1]


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    ridge: float = 0.1,
    solver: str = "cg",
    iterations: int = 32,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens; the mixer then streams, with a key-value cache.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        ridge: penalty of the slope.
        solver: `"cg"` or `"exact"`; see `local_probe`.
        iterations: turns of `"cg"`.

    Raises:
        ValueError: an unknown solver, or a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4, causal=True, kv_heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    check_choice("solver", solver, SOLVERS)
    check_number("ridge", ridge, above=0)
    check_count("iterations", iterations)

    def core(params, query, key, value, context):
        return local_linear_attention(
            query, key, value,
            ridge=ridge, mask=context.mask, solver=solver, iterations=iterations,
        )  # fmt: skip

    return attention_mixer(
        "local_linear_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        kv_heads=kv_heads,
        core=core,
        rotary=rotary,
        window=window,
    )


MECHANISM = Mechanism(
    name="local_linear_attention",
    title="Local linear attention",
    arxiv="2510.01450",
    family="linear",
    equation="o_i = E_p[v] - Cov_p(v, r.k), (Cov_p(k, k) + ridge I) r = E_p[k] - q_i",
    core=local_linear_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
)
