"""Efficient probing (Psomas et al. 2025, arXiv 2506.10178): queries on raw tokens, one value map.

    A = softmax_n(U x^T / sqrt(m)),   y = concat_q (A_q x) W_q     W_q: a slice of columns of W

M learned queries U look at the raw tokens; each reads its own slice of the values. W comes behind
the sum, which gives the same, for rows of A sum to one, and costs n times less.

Distinctive: no projections of queries, keys or outputs, so there are M m + m^2 / r parameters.

Limits: U = 0 is the mean of the values; of one token comes its value; M = 1 is attention pooling
by one latent query.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.mechanism import Mechanism


def efficient_probing(
    params: dict[str, Array],
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b 1 e"]:
    """Attends from each query to the tokens, and gives each its slice of the values.

    Args:
        params: `queries` `[M, m]` and `value` `[m, e]`, where M divides e.
        x: the tokens.
        real: False where x is padding; default none is. Zeros come out where none is real.

    Reference:
        arXiv 2506.10178.

    Example:
        >>> params = {"queries": jnp.zeros((2, 4)), "value": jnp.eye(4)}
        >>> x = jnp.arange(8.0).reshape(1, 2, 4)
        >>> efficient_probing(params, x).tolist()
        [[[2.0, 3.0, 4.0, 5.0]]]
    """
    queries, m = params["queries"][None], x.shape[-1]
    read = attentive_pool(queries, x, x, real)
    count, size = read.shape[1], params["value"].shape[1]
    slices = params["value"].astype(x.dtype).reshape(m, count, size // count)
    return jnp.einsum("bqm,mqe->bqe", read, slices).reshape(len(x), 1, size)


def make(*, dim: int, queries: int | None = None, reduction: int = 1) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        queries: M, a divisor of m / reduction; default 8 or the next smaller one that is.
        reduction: r; what comes out has m / r numbers.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, queries=4)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)
    check_count("reduction", reduction)
    if dim % reduction:
        raise ValueError(f"reduction: expected a divisor of dim={dim}, got {reduction}")
    size = dim // reduction
    if queries is None:
        queries = max(q for q in range(1, 9) if size % q == 0)
    check_count("queries", queries)
    if size % queries:
        raise ValueError(f"queries: expected a divisor of dim / reduction={size}, got {queries}")

    def init(key):
        asked, value = jax.random.split(key)
        return {
            "queries": 0.02 * jax.random.normal(asked, (queries, dim)),
            "value": linear_init(value, dim, size),
        }

    return framed_pool("efficient_probing", dim=dim, init=init, apply=efficient_probing)


MECHANISM = Mechanism(
    name="efficient_probing",
    title="Attention, please! Efficient probing",
    arxiv="2506.10178",
    family="pooling",
    equation="y = concat_q (softmax_n(u_q . x_n / sqrt(m)) x) W_q",
    core=efficient_probing,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("queries", "value"),
)
