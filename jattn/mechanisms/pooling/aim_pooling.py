"""Attentive probing of autoregressive image models, AIM (El-Nouby et al. 2024, arXiv 2401.08541).

    y = mean_q attend(u_q, BN(x) W_key, BN(x) W_value)      u: learned queries, no output projection

Distinctive: tokens are normalised over the data, without scale or shift, before they are looked at.

Limits: queries of zero give the mean of the values.
"""

import jax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_heads, largest_divisor
from jattn.mechanisms.mechanism import Mechanism

EPSILON = 1e-6


def aim_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    norm=running_norm,
) -> Float[Array, "b 1 m"]:
    """The mean over learned queries of what they read.

    Args:
        params: `queries` `[k, m]`, `key` and `value` `[m, m]`, `statistics` of batch norm.
        x: the tokens.
        real: False where x is padding; default none is. Zeros come out where none is real.
        heads: number of heads.
        norm: of the tokens, `(params, x, real, eps=...) -> x`.

    Reference:
        arXiv 2401.08541.

    Example:
        >>> import jax.numpy as jnp
        >>> params = make(dim=4).init(jax.random.key(0))
        >>> aim_pooling(params, jnp.ones((1, 3, 4))).shape
        (1, 1, 4)
    """
    x = norm(params, x, real, eps=EPSILON)
    key, value = linear(x, params["key"]), linear(x, params["value"])
    read = attentive_pool(params["queries"][None], key, value, real, heads=heads)
    return read.mean(1, keepdims=True)


def make(*, dim: int, heads: int | None = None, queries: int = 1) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: a divisor of m; default 12, or the largest below.
        queries: learned ones, whose outputs are averaged.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> pool = make(dim=8, heads=2)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)
    heads = largest_divisor(dim, 12) if heads is None else heads
    check_heads(dim, heads)
    check_count("queries", queries)

    def init(key):
        asked, keys, values = jax.random.split(key, 3)
        return {
            "queries": 0.02 * jax.random.normal(asked, (queries, dim)),
            "key": linear_init(keys, dim, dim),
            "value": linear_init(values, dim, dim),
            "statistics": statistics_init(dim),
        }

    def apply(params, x, real, norm=running_norm):
        return aim_pooling(params, x, real, heads=heads, norm=norm)

    return framed_pool("aim_pooling", dim=dim, init=init, apply=apply, normed=True)


MECHANISM = Mechanism(
    name="aim_pooling",
    title="AIM: attentive probe",
    arxiv="2401.08541",
    family="pooling",
    equation="y = mean_q attend(u_q, BN(x) W_key, BN(x) W_value)",
    core=aim_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("queries", "key", "value", "statistics"),
    statistics=("statistics",),
)
