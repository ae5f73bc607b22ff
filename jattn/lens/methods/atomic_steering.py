"""AUSteer: single channels that differ in sign are scaled (ICLR 2026).

Of N pairs of texts, n+ and n- count where a channel is larger in the positive and in the negative
one; beta = sign(n+ - n-) max(n+, n-) / N. The k channels with the largest |beta| become

    a <- a (1 + alpha beta)

so the strength follows the input. Channels are those of all heads' reads, an MLP's or a layer's
output. Of a tie, + is taken.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count
from jattn.lens.edits import HeadAffine
from jattn.lens.methods.method import Method


def momentum(
    positive: Float[Array, " n layers *c"], negative: Float[Array, " n layers *c"]
) -> Float[Array, " layers *c"]:
    """beta of every channel, in [-1, 1].

    Args:
        positive, negative: a site at the last token of paired texts.
    """
    more, less = (positive > negative).sum(0), (positive < negative).sum(0)
    sign = jnp.where(more >= less, 1.0, -1.0)
    return sign * jnp.maximum(more, less) / len(positive)


def atomic_steering(
    beta: Float[Array, " layers *c"], *, count: int, alpha: float, site: str = "z"
) -> HeadAffine:
    """The edit of the `count` channels with the largest |beta|.

    Args:
        beta: of `momentum`, at the site.
        count: k.
        alpha: strength; 0 changes nothing.
        site: `"z"`, `"mlp_out"` or `"resid_post"`.
    """
    check_count("count", count)
    order = jnp.argsort(jnp.argsort(-jnp.abs(beta), axis=None)).reshape(beta.shape)
    return HeadAffine(jnp.where(order < count, alpha * beta, 0.0), site=site)


METHOD = Method(
    name="atomic_steering",
    title="AUSteer: fine-grained steering of atomic units",
    arxiv=None,
    kind="edit",
    function=atomic_steering,
    example=lambda key: dict(
        beta=jax.random.uniform(key, (2, 4, 4), minval=-1.0), count=5, alpha=8.0
    ),
    identity={"alpha": 0.0},
)
