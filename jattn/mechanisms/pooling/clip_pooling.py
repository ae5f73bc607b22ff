"""Attention pooling of CLIP (Radford et al. 2021, arXiv 2103.00020): the mean as one more token.

    z = [mean(LN x); LN x] (+ positions),   y = attend(z_0, z, z) W_output

Distinctive: the query is the mean of what it looks at, itself included.

Limits: without positions tokens have no order, and there may be any number of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init, norm, norm_init
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.layers.size_checks import check_heads, largest_divisor
from jattn.mechanisms.mechanism import Mechanism


def clip_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    eps: float = 1e-6,
) -> Float[Array, "b 1 m"]:
    """Attends from the mean token to it and all others.

    Args:
        params: `norm`; `query`, `key`, `value` and `output`; with `positions` `[1 + n, m]`, the
            first for the mean, they are added.
        x: the tokens; with positions n at most, real ones in front.
        real: False where x is padding; default none is.
        heads: number of heads.
        eps: of the norm.

    Raises:
        ValueError: more tokens than positions.

    Reference:
        arXiv 2103.00020.

    Example:
        >>> params = make(dim=4).init(jax.random.key(0))
        >>> clip_pooling(params, jnp.ones((1, 3, 4))).shape
        (1, 1, 4)
    """
    x = norm(params["norm"], x, eps=eps)
    z = jnp.concatenate([mean_over_space(x, real), x], axis=1)
    if "positions" in params:
        known = len(params["positions"])
        if z.shape[1] > known:
            raise ValueError(f"x: expected at most tokens={known - 1}, got {x.shape[1]}")
        z = z + params["positions"][: z.shape[1]].astype(x.dtype)
    there = None if real is None else jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
    query, key, value = (
        affine(params[of], part) for of, part in (("query", z[:, :1]), ("key", z), ("value", z))
    )
    return affine(params["output"], attentive_pool(query, key, value, there, heads=heads))


def make(*, dim: int, heads: int | None = None, tokens: int | None = None) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: a divisor of m; default 4, or the largest below.
        tokens: the most tokens there may be, each of which gets a learned position; default there
            are no positions.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, tokens=5)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)
    heads = largest_divisor(dim, 4) if heads is None else heads
    check_heads(dim, heads)
    if tokens is not None:
        check_count("tokens", tokens)

    def init(key):
        places, *keys = jax.random.split(key, 5)
        names, std = ("query", "key", "value", "output"), dim**-0.5
        params = {
            of: affine_init(k, dim, dim, std=None if of == "output" else std)
            for of, k in zip(names, keys, strict=True)
        }
        params["norm"] = norm_init(dim)
        if tokens is not None:
            shape = (1 + tokens, dim)
            params["positions"] = std * jax.random.truncated_normal(places, -2, 2, shape)
        return params

    def apply(params, x, real):
        return clip_pooling(params, x, real, heads=heads)

    return framed_pool("clip_pooling", dim=dim, init=init, apply=apply, by_index=tokens is not None)


MECHANISM = Mechanism(
    name="clip_pooling",
    title="CLIP: attention pooling from the mean token",
    arxiv="2103.00020",
    family="pooling",
    equation="z = [mean(LN x); LN x], y = attend(z_0, z, z) W_output",
    core=clip_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("norm", "query", "key", "value", "output"),
)
