"""Pooling of local features in DOLG (Yang et al. 2021, arXiv 2108.02927): no weights of sum one.

    z = BN(x W + b),   w_n = softplus(relu(z_n) v + a),   y = mean_n w_n z_n / |z_n|

Distinctive: how much there is counts, not only where: more tokens of a kind change the output's
length, as larger weights do.

Limits: v = 0 and softplus(a) = 1 is the mean of unit vectors.
"""

import jax
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init, norm_init
from jattn.mechanisms.layers.batch_norm import running_norm, statistics_init
from jattn.mechanisms.layers.means import mean_over_space
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.mechanism import Mechanism


def dolg_pooling(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    norm=running_norm,
) -> Float[Array, "b 1 m"]:
    """The mean of directions, each times a positive weight of its own.

    Args:
        params: `project` from m to m; `norm` and `statistics` of batch norm; `score` from m to 1.
        x: the tokens.
        real: False where x is padding; default none is. Zeros come out where none is real.
        norm: of projected tokens, `(params, z, real) -> z`.

    Reference:
        arXiv 2108.02927.

    Example:
        >>> import jax.numpy as jnp
        >>> params = make(dim=4).init(jax.random.key(0))
        >>> dolg_pooling(params, jnp.ones((1, 3, 4))).shape
        (1, 1, 4)
    """
    z = norm(params, affine(params["project"], x), real)
    weight = jax.nn.softplus(affine(params["score"], jax.nn.relu(z)))
    return mean_over_space(weight * unit(z).astype(x.dtype), real)


def make(*, dim: int) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> pool = make(dim=8)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)

    def init(key):
        project, score = jax.random.split(key)
        return {
            "project": affine_init(project, dim, dim),
            "norm": norm_init(dim),
            "statistics": statistics_init(dim),
            "score": affine_init(score, dim, 1),
        }

    return framed_pool("dolg_pooling", dim=dim, init=init, apply=dolg_pooling, normed=True)


MECHANISM = Mechanism(
    name="dolg_pooling",
    title="DOLG: pooling of local features",
    arxiv="2108.02927",
    family="pooling",
    equation="z = BN(x W + b), y = mean_n softplus(relu(z_n) v + a) z_n / |z_n|",
    core=dolg_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("project", "norm", "statistics", "score"),
    statistics=("statistics",),
)
