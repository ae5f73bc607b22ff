"""Pooling by multi-head attention with learned queries (Set Transformer, arXiv 1810.00825).

    h = norm(s + attend(s, x) W_output),  y = norm(h + relu(h W_feed + b_feed)),  seeds s learned

k seeds ask, all tokens answer; a residual block follows. The row-wise layer that the paper puts on
the tokens before is left to the model, as its authors' code does.

Distinctive: the queries are parameters, so a set of any size becomes k tokens, at linear cost,
whatever its order.

Limits: where `query` is zero, attention is the mean of the values; for one token, its value. With
seeds and output only it is attention pooling by latent queries.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import jattn.attention as engine
from jattn.attention import masks
from jattn.checks import check_count
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.heads import merge_heads, qkv, qkvo_init
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import layer_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism


def set_pooling(
    params: dict[str, Array],
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
) -> Float[Array, "b k m"]:
    """Attends from the seeds to all tokens, and adds a feed-forward layer.

    Args:
        params: `seeds` `[k, m]`; `query`, `key`, `value`, `output`, `feed` `[m, m]`; `feed_bias`
            `[m]`; `scale` and `shift` `[2, m]` of the two norms.
        x: the tokens of a set.
        real: False where x is padding; default none is. An empty set leaves the seeds.
        heads: number of heads h.

    Reference:
        arXiv 1810.00825.

    Example:
        >>> params = make(dim=8, heads=2, outputs=3).init(jax.random.key(0))
        >>> set_pooling(params, jnp.ones((1, 5, 8)), heads=2).shape
        (1, 3, 8)
    """
    seeds = jnp.broadcast_to(params["seeds"].astype(x.dtype), (len(x), *params["seeds"].shape))
    mask = None if real is None else masks.padding(real)
    read = engine.attend(*qkv(params, seeds, x, heads, heads), mask=mask)
    scale, shift = params["scale"], params["shift"]
    h = layer_norm(seeds + linear(merge_heads(read), params["output"]), scale[0], shift[0])
    fed = jax.nn.relu(linear(h, params["feed"]) + params["feed_bias"].astype(x.dtype))
    return layer_norm(h + fed, scale[1], shift[1])


def make(*, dim: int, heads: int = 1, outputs: int = 1) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: number of heads, a divisor of m.
        outputs: number of learned seeds k, and so of tokens that come out.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8, heads=2, outputs=3)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 3, 8)
    """
    check_heads(dim, heads)
    check_count("outputs", outputs)

    def init(key):
        seeds, projections, feed = jax.random.split(key, 3)
        return {
            "seeds": jax.nn.initializers.glorot_uniform()(seeds, (outputs, dim)),
            **qkvo_init(projections, dim, heads),
            "feed": linear_init(feed, dim, dim),
            "feed_bias": jnp.zeros(dim),
            "scale": jnp.ones((2, dim)),
            "shift": jnp.zeros((2, dim)),
        }

    def apply(params, x, real):
        return set_pooling(params, x, real, heads=heads)

    return framed_pool("set_pooling", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="set_pooling",
    title="Set Transformer: pooling by multi-head attention",
    arxiv="1810.00825",
    family="pooling",
    equation="h = norm(s + attend(s, x) W_output), y = norm(h + relu(h W_feed + b)), seeds s",
    core=set_pooling,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=(
        *("seeds", "query", "key", "value", "output"),
        *("feed", "feed_bias", "scale", "shift"),
    ),
)
