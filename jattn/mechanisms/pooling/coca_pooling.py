"""Attentional pooling of CoCa (Yu et al. 2022, arXiv 2205.01917): one key and value head for all.

    y_q = attend(LN(u_q) W_query, x W_key, x W_value) W_output,   multi-query

Distinctive: k learned queries share one key and one value head. The probe (arXiv 2506.10178) reads
the first query's output only; others change nothing of it.

Limits: W_query = 0 is the mean of the values.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import norm
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mechanism import Mechanism


def coca_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 8,
    eps: float = 1e-5,
) -> Float[Array, "b k m"]:
    """What the learned queries read, each.

    Args:
        params: `queries` `[k, m]`, `norm` with `scale`; `query` `[m, h d]`, `key` and `value`
            `[m, d]`, `output` `[h d, m]`.
        x: the tokens.
        real: False where x is padding; default none is. Zeros come out where none is real.
        heads: of the queries.
        eps: of the norm.

    Reference:
        arXiv 2205.01917.

    Example:
        >>> params = make(dim=4, heads=2, head_dim=3, queries=5).init(jax.random.key(0))
        >>> coca_pooling(params, jnp.ones((1, 3, 4)), heads=2).shape
        (1, 5, 4)
    """
    queries = norm(params["norm"], params["queries"].astype(x.dtype), eps=eps)
    query = linear(queries, params["query"])[None]
    key, value = linear(x, params["key"]), linear(x, params["value"])
    read = attentive_pool(query, key, value, real, heads=heads, key_heads=1, value_heads=1)
    return linear(read, params["output"])


def make(*, dim: int, heads: int = 8, head_dim: int = 64, queries: int = 1) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: query heads h.
        head_dim: size d of a head.
        queries: learned ones k, and so tokens that come out; 256 + 1 in the paper.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> pool = make(dim=8)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    sizes = {"dim": dim, "heads": heads, "head_dim": head_dim, "queries": queries}
    for name, number in sizes.items():
        check_count(name, number)

    def init(key):
        asked, *keys = jax.random.split(key, 5)
        return {
            "queries": jax.random.normal(asked, (queries, dim)),
            "norm": {"scale": jnp.ones(dim)},
            "query": linear_init(keys[0], dim, heads * head_dim),
            "key": linear_init(keys[1], dim, head_dim),
            "value": linear_init(keys[2], dim, head_dim),
            "output": linear_init(keys[3], heads * head_dim, dim),
        }

    def apply(params, x, real):
        return coca_pooling(params, x, real, heads=heads)

    return framed_pool("coca_pooling", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="coca_pooling",
    title="CoCa: attentional pooling with one key-value head",
    arxiv="2205.01917",
    family="pooling",
    equation="y_q = attend(LN(u_q) W_query, x W_key, x W_value) W_output",
    core=coca_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("queries", "norm", "query", "key", "value", "output"),
)
