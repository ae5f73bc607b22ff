"""Flux attention (arXiv 2604.07394): each layer decides for each request, full or sparse.

    logits = V3 silu(V2 silu(V1 f)),   f = W2 silu(W1 u + b1) + b2

u is the mean over heads, and over the first and last tokens of the span that asks, of the queries
before rotation. In training a straight-through Gumbel choice z mixes both branches,

    out = z full + (1 - z) sparse,    sparse: the first block, and the last few, of causal blocks

and at inference the likelier branch alone runs, decided once.

Limits: z = 1 is causal attention; with as many local blocks as there are, both branches are.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_count
from jattn.mechanisms.layers.linear_maps import linear_init

FULL = 1  # the class, of two


def pool_queries(
    query: Float[Array, "b t h d"], span: Int[Array, "b 2"], count: int
) -> Float[Array, "b h d"]:
    """Mean of the first `count` and the last `count` queries of a span; short spans overlap.

    Args:
        query: before rotary positions.
        span: first and last token of each row's, both included.
        count: tokens at each end.

    Example:
        >>> query = jnp.arange(6.0).reshape(1, 6, 1, 1)
        >>> pool_queries(query, jnp.array([[1, 4]]), 1).tolist()
        [[[2.5]]]
    """
    check_count("count", count)
    steps = jnp.arange(count)
    index = jnp.concatenate([span[:, :1] + steps, span[:, 1:] - steps], axis=1)
    index = jnp.clip(index, span[:, :1], span[:, 1:])
    return jnp.take_along_axis(query, index[..., None, None], axis=1).mean(1)


def route(params: Mapping[str, Array], pooled: Float[Array, "b h d"]) -> Float[Array, "b c"]:
    """Logits of the two branches; one logit where the router was made with a sigmoid.

    Args:
        params: `w1` `[d, 8 d]`, `b1`, `w2` `[8 d, 2 d]`, `b2`; `v1` `[2 d, 4 d]`, `c1`, `v2`
            `[4 d, d]`, `c2`, `v3` `[d, c]`, `c3`.
        pooled: of `pool_queries`.

    Reference:
        arXiv 2604.07394.

    Example:
        >>> route(init(jax.random.key(0), head_dim=4), jnp.ones((1, 2, 4)))[0].tolist()
        [0.0, 4.5]
    """
    hidden = jax.nn.silu(pooled.mean(1) @ params["w1"] + params["b1"])
    features = hidden @ params["w2"] + params["b2"]
    return decide(params, features)


def decide(params: Mapping[str, Array], features: Float[Array, "b n"]) -> Float[Array, "b c"]:
    """The router's second half, from features to logits."""
    hidden = jax.nn.silu(features @ params["v1"] + params["c1"])
    hidden = jax.nn.silu(hidden @ params["v2"] + params["c2"])
    return hidden @ params["v3"] + params["c3"]


def init(key: jax.Array, *, head_dim: int) -> dict[str, Array]:
    """Draws a router whose layers all begin full: sigmoid(4.5) of the weight.

    Example:
        >>> float(jax.nn.softmax(init(jax.random.key(0), head_dim=4)["c3"])[FULL]) > 0.98
        True
    """
    d = head_dim
    sizes = {"w1": (d, 8 * d), "w2": (8 * d, 2 * d), "v1": (2 * d, 4 * d), "v2": (4 * d, d)}
    params = {"v3": jnp.zeros((d, 2)), "c3": jnp.array([0.0, 4.5])}
    for (name, (rows, columns)), k in zip(sizes.items(), jax.random.split(key, 4), strict=True):
        params[name] = linear_init(k, rows, columns)
        params[name.replace("w", "b").replace("v", "c")] = jnp.zeros(columns)
    return params


def straight_through(
    logits: Float[Array, "b 2"], temperature: float, key: jax.Array | None = None
) -> Float[Array, " b"]:
    """z: exactly 1 for full or 0 for sparse, with the gradient of the soft choice.

    Args:
        logits: of the two branches.
        temperature: of the softmax; the paper's falls from 1.5 to 1.
        key: for Gumbel noise; None: the likelier branch.

    Example:
        >>> straight_through(jnp.array([[0.0, 4.5]]), 1.0).tolist()
        [1.0]
    """
    noise = 0.0 if key is None else jax.random.gumbel(key, logits.shape, logits.dtype)
    soft = jax.nn.softmax((logits + noise) / temperature)[:, FULL]
    hard = (soft > 0.5).astype(soft.dtype)
    return hard + soft - lax.stop_gradient(soft)


def sink_local_mask(length: int, block: int, sinks: int, local: int) -> masks.Mask:
    """Causal, by blocks: the first `sinks` blocks, and the last `local` up to a query's own.

    Args:
        length: tokens.
        block: tokens of a block.
        sinks, local: blocks.

    Example:
        >>> sink_local_mask(4, 1, 1, 1).dense(4, 4)[0, 0].astype(int).tolist()[3]
        [1, 0, 0, 1]
    """
    for name, value in (("block", block), ("sinks", sinks), ("local", local)):
        check_count(name, value, 0 if name == "sinks" else 1)
    index = np.arange(-(-length // block))
    table = (index < sinks) | (index[:, None] - index < local)
    return masks.blocks(jnp.asarray(table[None, None]), block, block) & masks.causal()


def flux_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t g d"],
    value: Float[Array, "b t g e"],
    full: Float[Array, " b"],
    *,
    block: int = 128,
    sinks: int = 1,
    local: int = 16,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Both branches of a layer, mixed as the router says: the form of training.

    Args:
        query, key, value: g divides h.
        full: z of each row, 1 for causal attention to all, 0 for sinks and near blocks.
        block, sinks, local: of the sparse branch, see `sink_local_mask`.
        scale: of the scores; default `d**-0.5`.

    Reference:
        arXiv 2604.07394.

    Example:
        >>> x = jnp.ones((2, 6, 2, 4))
        >>> flux_attention(x, x, x, jnp.array([1.0, 0.0]), block=2, local=1).shape
        (2, 6, 2, 4)
    """
    dense = attend(query, key, value, mask=masks.causal(), scale=scale)
    mask = sink_local_mask(query.shape[1], block, sinks, local)
    sparse = attend(query, key, value, mask=mask, scale=scale)
    z = full[:, None, None, None].astype(dense.dtype)
    return z * dense + (1 - z) * sparse


def sparsity_loss(
    full: Float[Array, "b l"], target: Float[Array, " b"], multipliers: Float[Array, "b 2"]
) -> Float[Array, ""]:
    """How far layers are from the share that shall be sparse: a l1 and a l2 term, a task's own.

    The multipliers are trained to make it large, the routers to make it small.

    Args:
        full: z of all layers.
        target: share of sparse layers wanted for each row's task.
        multipliers: of the absolute and the squared distance, of each row's task.

    Example:
        >>> float(sparsity_loss(jnp.ones((1, 4)), jnp.array([0.5]), jnp.array([[1.0, 2.0]])))
        1.0
    """
    apart = 1 - full.mean(1) - target
    return (multipliers[:, 0] * jnp.abs(apart) + multipliers[:, 1] * apart**2).mean()
