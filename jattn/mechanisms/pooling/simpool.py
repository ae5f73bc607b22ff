"""SimPool (Psomas et al. 2023, arXiv 2309.06891): the mean asks, and what it finds replaces it.

    q = mean(x) W_query,   k = LN(x) W_key,   y = sum_n softmax_n(q . k_n / sqrt(d)) LN(x)_n

Distinctive: no learned query; without the two maps (`maps=False`, "e-SimPool") only a norm is
learned, and the raw tokens are summed. With `gamma` the sum is a generalised mean.

Limits: W_query = 0 is the mean of normed tokens; gamma = 1 is the plain sum.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_flag, check_number
from jattn.extremes import least
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import norm, norm_init
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism

EPSILON = 1e-6


def simpool(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    gamma: float | None = None,
    eps: float = EPSILON,
) -> Float[Array, "b 1 m"]:
    """Attends from the mean to all tokens.

    Args:
        params: `norm`; `query` and `key` `[m, m]`, or neither.
        x: the tokens.
        real: False where x is padding; default none is. Zeros come out where none is real.
        heads: number of heads.
        gamma: exponent of the generalised mean `(A (v - min v)^gamma)^(1 / gamma)`; default none.
        eps: of the norm.

    Reference:
        arXiv 2309.06891.

    Example:
        >>> params = make(dim=4).init(jax.random.key(0))
        >>> simpool(params, jnp.ones((1, 3, 4))).tolist()
        [[[0.0, 0.0, 0.0, 0.0]]]
    """
    mean, normed = mean_over_space(x, real), norm(params["norm"], x, eps=eps)
    if "query" in params:
        query, key = linear(mean, params["query"]), linear(normed, params["key"])
        value = normed
    else:
        query, key, value = norm(params["norm"], mean, eps=eps), normed, x
    if gamma is None:
        return attentive_pool(query, key, value, real, heads=heads)
    lifted = value - least(value, (1, 2), None if real is None else real[..., None]) + EPSILON
    lifted = lifted if real is None else jnp.where(real[..., None], lifted, 1)
    return attentive_pool(query, key, lifted**gamma, real, heads=heads) ** (1 / gamma)


def make(*, dim: int, heads: int = 1, maps: bool = True, gamma: float | None = None) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: a divisor of m; the paper's form has one, that without maps 12.
        maps: whether queries and keys are projected.
        gamma: as in `simpool`.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, heads=4, maps=False)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_heads(dim, heads)
    check_flag("maps", maps)
    if gamma is not None:
        check_number("gamma", gamma, above=0)

    def init(key):
        query, own = jax.random.split(key)
        weights = {"query": linear_init(query, dim, dim), "key": linear_init(own, dim, dim)}
        return {"norm": norm_init(dim)} | (weights if maps else {})

    def apply(params, x, real):
        return simpool(params, x, real, heads=heads, gamma=gamma)

    return framed_pool("simpool", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="simpool",
    title="Keep it SimPool",
    arxiv="2309.06891",
    family="pooling",
    equation="y = softmax(mean(x) W_query . LN(x) W_key / sqrt(d)) LN(x)",
    core=simpool,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("norm", "query", "key"),
)
