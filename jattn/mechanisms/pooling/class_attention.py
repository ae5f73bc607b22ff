"""Class attention, CaiT (Touvron et al. 2021, arXiv 2103.17239): a class token that only reads.

    c <- u,   c <- c + g_1 attend(LN(c), LN([c; x])),   c <- c + g_2 MLP(LN(c)),   y = LN(c)

Distinctive: the token looks at itself, too, and what it reads enters through small learned scales g
(1e-5 at first); patches never see it.

Limits: g = 0 gives the normed class token, whatever the tokens are.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_number
from jattn.mechanisms.frames.attentive_pool import attentive_pool
from jattn.mechanisms.frames.kinds import framed_pool
from jattn.mechanisms.kinds import Pool
from jattn.mechanisms.layers.affine import affine, affine_init, mlp, mlp_init, norm, norm_init
from jattn.mechanisms.layers.size_checks import check_heads, largest_divisor
from jattn.mechanisms.mechanism import Mechanism


def class_attention(
    params: dict,
    x: Float[Array, "b n m"],
    real: Bool[Array, "b n"] | None = None,
    *,
    heads: int = 1,
    eps: float = 1e-6,
    final_eps: float = 1e-6,
) -> Float[Array, "b 1 m"]:
    """A class token through blocks that read the tokens.

    Args:
        params: `token` `[m]`; `blocks`, a list of `{"norm", "query", "key", "value", "output",
            "scale", "mlp_norm", "mlp", "mlp_scale"}`; `norm`.
        x: the tokens.
        real: False where x is padding; default none is.
        heads: number of heads.
        eps: of the norms in blocks.
        final_eps: of the last one.

    Reference:
        arXiv 2103.17239.

    Example:
        >>> params = make(dim=4).init(jax.random.key(0))
        >>> class_attention(params, jnp.ones((1, 3, 4))).shape
        (1, 1, 4)
    """
    token = jnp.broadcast_to(params["token"].astype(x.dtype), (len(x), 1, x.shape[-1]))
    there = None if real is None else jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
    for block in params["blocks"]:
        seen = norm(block["norm"], jnp.concatenate([token, x], axis=1), eps=eps)
        query = affine(block["query"], seen[:, :1])
        key, value = affine(block["key"], seen), affine(block["value"], seen)
        read = affine(block["output"], attentive_pool(query, key, value, there, heads=heads))
        token = token + block["scale"].astype(x.dtype) * read
        fed = mlp(block["mlp"], norm(block["mlp_norm"], token, eps=eps))
        token = token + block["mlp_scale"].astype(x.dtype) * fed
    return norm(params["norm"], token, eps=final_eps)


def make(
    *, dim: int, heads: int | None = None, depth: int = 1, ratio: int = 4, scale: float = 1e-5
) -> Pool:
    """Makes the pool.

    Args:
        dim: model dimension m.
        heads: a divisor of m; default 4, or the largest below.
        depth: number of blocks; 2 in the paper, 1 as a probe.
        ratio: of the MLP's width to m.
        scale: of what the token reads, at first.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> pool = make(dim=8)
        >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((1, 5, 8))).shape
        (1, 1, 8)
    """
    check_count("dim", dim)
    heads = largest_divisor(dim, 4) if heads is None else heads
    check_heads(dim, heads)
    check_count("depth", depth)
    check_count("ratio", ratio)
    check_number("scale", scale)

    def block(key):
        feed, *keys = jax.random.split(key, 5)
        names = ("query", "key", "value", "output")
        return {
            **{of: affine_init(k, dim, dim) for of, k in zip(names, keys, strict=True)},
            "mlp": mlp_init(feed, dim, ratio * dim),
            "norm": norm_init(dim),
            "mlp_norm": norm_init(dim),
            "scale": jnp.full(dim, scale),
            "mlp_scale": jnp.full(dim, scale),
        }

    def init(key):
        token, *keys = jax.random.split(key, 1 + depth)
        return {
            "token": 0.02 * jax.random.truncated_normal(token, -2, 2, (dim,)),
            "blocks": [block(k) for k in keys],
            "norm": norm_init(dim),
        }

    def apply(params, x, real):
        return class_attention(params, x, real, heads=heads)

    return framed_pool("class_attention", dim=dim, init=init, apply=apply)


MECHANISM = Mechanism(
    name="class_attention",
    title="CaiT: class attention",
    arxiv="2103.17239",
    family="pooling",
    equation="c <- c + g_1 attend(LN(c), LN([c; x])), c <- c + g_2 MLP(LN(c))",
    core=class_attention,
    make=make,
    cost="linear",
    kind="pool",
    equivariant=True,
    parameters=("token", "blocks", "norm"),
)
