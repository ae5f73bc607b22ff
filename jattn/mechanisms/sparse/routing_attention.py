"""Routing attention (Roy et al. 2020, arXiv 2003.05997): clusters of queries and keys that agree.

Unit queries and keys are compared with the centroids mu of k-means; each cluster takes the w
queries and the w keys that are nearest to it, and they attend to each other:

    o_i = mean over the clusters that took i of  sum_{j taken} softmax_j(q_i . k_j / sqrt(d)) v_j

Distinctive: O(t^1.5 d) with sqrt(t) clusters, and who meets is decided by content. Centroids follow
the data by moving averages; no gradient reaches them.

Limits: one cluster of all tokens is softmax attention (but for the 1e-5 in the mean's denominator);
a query that no cluster took gets zero, so the paper pairs these heads with local ones.

Which tokens are nearest is decided by looking at the whole sequence, so the causal form of the
paper leaks through the choice, though not through values. `clustered_attention` does not: each
token is in its nearest cluster alone, and sees the earlier ones of that.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_count, check_shape
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import split_qkv
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Auxiliary, Mixer, parts_of, replace_fields

SELF_SCORE = -5e4  # of a token with itself, where queries are keys: taken if there is nothing else
HIDDEN = -1e30  # of a later token; finite, as a query may see none but later ones
TOGETHER = 1e-5


def cluster_scores(
    x: Float[Array, "b t h d"], centroids: Float[Array, "h k d"]
) -> Float[Array, "b h k t"]:
    """How near unit vectors are to each centroid: their products.

    Example:
        >>> cluster_scores(jnp.ones((1, 3, 2, 4)), jnp.ones((2, 5, 4))).shape
        (1, 2, 5, 3)
    """
    return jnp.einsum("bthd,hkd->bhkt", unit(x), centroids)


def routing_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    centroids: Float[Array, "h k d"],
    *,
    window: int,
    causal: bool = False,
    shared: bool = False,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Attention inside clusters that each take their nearest queries and keys.

    Args:
        query, key, value: of as many heads.
        centroids: of unit length, for each head.
        window: queries and keys w that a cluster takes, at most t.
        causal: hide later keys; the choice of members still looks at all.
        shared: keys are the unit queries, whose `key` is not looked at, and a token sees itself
            only if there is nothing else.
        scale: of the scores; default `d**-0.5`.

    Returns:
        `[b, t, h, e]`; zero for queries that no cluster took.

    Raises:
        ValueError: shapes that do not fit, or a window longer than the sequence.

    Reference:
        arXiv 2003.05997.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 8, 2, 4))
        >>> routing_attention(x, x, x, unit(jnp.ones((2, 3, 4))), window=4).shape
        (1, 8, 2, 4)
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("value", value, "b t h e", sizes)
    check_shape("centroids", centroids, "h k d", sizes)
    check_count("window", window)
    b, t, h, e = value.shape
    if window > t:
        raise ValueError(f"window: expected at most t={t}, got {window}")
    keys = unit(query).astype(query.dtype) if shared else key
    q_index, k_index = members(query, keys, centroids, window=window, shared=shared)
    take = lambda x, index: jnp.take_along_axis(
        jnp.moveaxis(x, 2, 1)[:, :, None], index[..., None], axis=3
    )
    flat = lambda x: x.reshape(-1, window, 1, x.shape[-1])
    far = (q_index[..., :, None] - k_index[..., None, :]).reshape(-1, window, window)

    def replaced(score, cluster, head, i, j):
        score = jnp.where(shared & (far[cluster, i, j] == 0), SELF_SCORE, score)
        return jnp.where(causal & (far[cluster, i, j] < 0), HIDDEN, score)

    out = attend(
        flat(take(query, q_index)), flat(take(keys, k_index)), flat(take(value, k_index)),
        score_mod=replaced if shared or causal else None, scale=scale,
    ).reshape(b, h, -1, e)  # fmt: skip
    place = q_index.reshape(b, h, -1)
    add = jax.vmap(jax.vmap(lambda total, index, x: total.at[index].add(x)))
    summed = add(jnp.zeros((b, h, t, e), out.dtype), place, out)
    count = add(jnp.zeros((b, h, t)), place, jnp.ones(place.shape))
    return jnp.moveaxis(summed / (count[..., None] + TOGETHER).astype(out.dtype), 1, 2)


def members(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    centroids: Float[Array, "h k d"],
    *,
    window: int,
    shared: bool = False,
) -> tuple[Int[Array, "b h k w"], Int[Array, "b h k w"]]:
    """The queries and the keys that each cluster takes, as indices in no order that matters.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 8, 2, 4))
        >>> members(x, x, unit(jnp.ones((2, 3, 4))), window=4)[0].shape
        (1, 2, 3, 4)
    """
    nearest = lambda x: lax.top_k(cluster_scores(x, centroids), window)[1]
    of_queries = nearest(query)
    return of_queries, of_queries if shared else nearest(key)


def clustered_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s h d"],
    value: Float[Array, "b s h e"],
    centroids: Float[Array, "h k d"],
    *,
    mask: Any = None,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Attention of each query to the keys that are nearest to the same centroid as it.

    No choice looks ahead, so it can be causal; a query whose cluster holds no key gets zero.

    Args:
        query, key, value: of as many heads.
        centroids: of unit length, for each head.
        mask: which keys may be seen besides, anything `jattn.attend` takes.
        scale: of the scores; default `d**-0.5`.

    Returns:
        `[b, t, h, e]` in the query's dtype.

    Reference:
        arXiv 2003.05997.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 8, 2, 4))
        >>> clustered_attention(x, x, x, unit(jnp.ones((2, 3, 4)))).shape
        (1, 8, 2, 4)
    """
    same = masks.segments(*(cluster_scores(x, centroids).argmax(2) for x in (query, key)))
    mask = same if mask is None else same & masks.as_mask(mask)
    return attend(query, key, value, mask=mask, scale=scale)


def updated_centroids(
    centroids: Float[Array, "h k d"], x: Float[Array, "b t h d"], *, decay: float = 0.999
) -> Float[Array, "h k d"]:
    """Moving averages of centroids: those of a step of k-means on unit vectors, of unit length.

        mu' = decay mu + (1 - decay) unit(mean of the vectors nearest to mu)

    A cluster that no vector is nearest to stays. With decay 0 it is one step of Lloyd's.

    Args:
        centroids: mu.
        x: the vectors that were routed, queries and keys one behind the other.
        decay: of the moving average.

    Reference:
        arXiv 2003.05997.

    Example:
        >>> mu = unit(jax.random.normal(jax.random.key(0), (2, 3, 4)))
        >>> bool((updated_centroids(mu, jnp.ones((1, 5, 2, 4)), decay=1.0) == mu).all())
        True
    """
    vectors = unit(x)
    nearest = jnp.einsum("bthd,hkd->bthk", vectors, centroids).argmax(-1)
    chosen = jax.nn.one_hot(nearest, centroids.shape[1], dtype=vectors.dtype)
    total = jnp.einsum("bthk,bthd->hkd", chosen, vectors)
    empty = chosen.sum((0, 1)) == 0
    fresh = jnp.where(empty[..., None], centroids, unit(total))
    return lax.stop_gradient(decay * centroids + (1 - decay) * fresh)


def commitment_loss(
    centroids: Float[Array, "h k d"], x: Float[Array, "b t h d"]
) -> Float[Array, ""]:
    """Mean squared distance of unit vectors from their nearest centroids, which it does not move.

    Example:
        >>> float(commitment_loss(jnp.ones((1, 1, 1)), jnp.ones((1, 3, 1, 1))))
        0.0
    """
    vectors = unit(x)
    nearest = jnp.einsum("bthd,hkd->bthk", vectors, centroids).argmax(-1)
    own = jnp.take_along_axis(centroids[None, None], nearest[..., None, None], axis=3)[..., 0, :]
    return ((vectors - lax.stop_gradient(own)) ** 2).mean()


def make(
    *, dim: int, heads: int, causal: bool = False, clusters: int = 8, rotary: bool = False
) -> Mixer:
    """Attention inside clusters between projections, in the form that looks at nothing ahead.

    Each token sees those of its own cluster. The centroids, of queries and keys together, follow
    them by moving averages: `Mixer.auxiliary` gives the next ones, and the commitment loss.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: hide later tokens.
        clusters: k; about the square root of the length.
        rotary: rotate queries and keys by their positions, before they are routed.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, clusters=3)
        >>> params = mixer.init(jax.random.key(0))
        >>> mixer.apply(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_count("clusters", clusters)

    def init(key):
        return {"centroids": unit(jax.random.normal(key, (heads, clusters, dim // heads)))}

    def core(params, query, key, value, context):
        centroids = lax.stop_gradient(params["centroids"])
        return clustered_attention(query, key, value, centroids, mask=context.mask)

    mixer = attention_mixer(
        "routing_attention", dim=dim, heads=heads, causal=causal, init=init, core=core,
        rotary=rotary,
    )  # fmt: skip

    def auxiliary(params, x, /, *, context=None, mask=None, positions=None, key=None):
        source = x if context is None else context
        maps = parts_of(mixer).project(params, x, source)
        query, keys, _ = split_qkv(maps, heads, heads)
        routed = jnp.concatenate([query, keys], axis=1)
        loss = commitment_loss(params["centroids"], routed)
        fresh = updated_centroids(params["centroids"], routed)
        return Auxiliary({"commitment": loss}, {"centroids": fresh})

    return replace_fields(mixer, auxiliary=auxiliary, statistics=("centroids",))


MECHANISM = Mechanism(
    name="routing_attention",
    title="Routing Transformer: clusters of tokens that agree",
    arxiv="2003.05997",
    family="sparse",
    equation="o_i = sum_{j: c(k_j) = c(q_i)} softmax_j(q_i . k_j / sqrt(d)) v_j",
    core=routing_attention,
    make=make,
    cost="quadratic",
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    equivariant=True,
    parameters=("centroids",),
    statistics=("centroids",),
)
