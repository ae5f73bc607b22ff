"""Sparsifiner (Wei et al. 2023, arXiv 2303.13755): a cheap predictor says which pairs matter.

    coefficients = softmax(c q' K'^T)      q' = q W_q, K' = E^T k W_k: few channels, few tokens
    connectivity = coefficients |F|^T      few coefficients, small entries of |F| taken for zero
    o_i = attention of i to the keys of its highest connectivities

Token 0, the class token, attends to all. The predictor is trained to give the dense attention of a
teacher; no gradient passes through the choice.

Distinctive: the choice depends on the image, and costs a low-rank product.

Limits: to keep all is dense attention. The authors scale c by 1 / sqrt(heads); it is an argument.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.attention import attend
from jattn.checks import check_choice, check_number
from jattn.mechanisms.layers.linear_maps import linear_init
from jattn.mechanisms.sparse.tile_scores import top_count


class Connectivity(NamedTuple):
    """What the predictor says.

    Attributes:
        coefficients: of every token but the first, `[b, h, t - 1, n]`, all of them.
        kept: those that are kept, the others zero.
        approximate: predicted attention `[b, h, t - 1, t]`, from the highest coefficients.
        mask: which keys each query attends to.
    """

    coefficients: Float[Array, "b h q n"]
    kept: Float[Array, "b h q n"]
    approximate: Float[Array, "b h q t"]
    mask: Bool[Array, "b h t t"]


def predict(
    params: dict[str, Array],
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    *,
    keep: float = 0.25,
    coefficients: int | None = 8,
    coefficient_threshold: float = 0.05,
    basis_threshold: float = 0.02,
    by: str = "count",
    threshold: float = 0.05,
    scale: float | None = None,
) -> Connectivity:
    """Predicts which keys matter for which queries.

    Args:
        params: `query`, `key` `[d, r]` with `query_bias`, `key_bias` `[r]`; `reduce` E `[t, n]` and
            `expand` F `[t, n]`.
        query, key: of as many heads.
        keep: share of keys that are kept, rounded up, where `by` is "count".
        coefficients: how many of each token's are kept; None: those above
            `coefficient_threshold`.
        coefficient_threshold: see `coefficients`.
        basis_threshold: entries of |F| up to it are taken for zero.
        by: "count", or "threshold": keys whose predicted attention is above `threshold`.
        threshold: see `by`.
        scale: c; default `heads**-0.5`.

    Raises:
        ValueError: a number out of range.

    Reference:
        arXiv 2303.13755.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 9, 2, 4))
        >>> int(predict(init(jax.random.key(1), tokens=9, head_dim=4), x, x).mask[0, 0, 1].sum())
        3
    """
    check_choice("by", by, ("count", "threshold"))
    check_number("keep", keep, above=0)
    t, h = query.shape[1:3]
    factor = h**-0.5 if scale is None else scale
    reduced_query = query[:, 1:] @ params["query"] + params["query_bias"]
    reduced_key = key @ params["key"] + params["key_bias"]
    few = jnp.einsum("bthr,tn->bnhr", reduced_key, params["reduce"])
    scores = factor * jnp.einsum("bthr,bnhr->bhtn", reduced_query, few)
    found = jax.nn.softmax(scores, axis=-1)
    basis = jnp.abs(params["expand"])
    basis = jnp.where(basis > basis_threshold, basis, 0)
    if coefficients is None:
        high = found > coefficient_threshold
    else:
        high = top_count(lax.stop_gradient(found), coefficients)
    kept = jnp.where(high, found, 0)
    approximate = jnp.einsum("bhtn,sn->bhts", kept, basis)
    frozen = lax.stop_gradient(approximate)
    chosen = top_count(frozen, math.ceil(keep * t)) if by == "count" else frozen > threshold
    mask = jnp.pad(chosen, [(0, 0), (0, 0), (1, 0), (0, 0)], constant_values=True)
    return Connectivity(found, kept, approximate, mask)


def sparsifiner_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    mask: Bool[Array, "b h t t"],
    *,
    scale: float | None = None,
) -> Float[Array, "b t h e"]:
    """Attention to the keys that were chosen.

    Args:
        query, key, value: of as many heads.
        mask: of `predict`.
        scale: of the scores; default `d**-0.5`.

    Reference:
        arXiv 2303.13755.

    Example:
        >>> x = jnp.ones((1, 3, 2, 4))
        >>> sparsifiner_attention(x, x, x, jnp.ones((1, 2, 3, 3), bool)).shape
        (1, 3, 2, 4)
    """
    return attend(query, key, value, mask=mask, scale=scale)


def connectivity_loss(
    params: dict[str, Array],
    predicted: Connectivity,
    teacher: Float[Array, "b h t t"],
) -> Float[Array, ""]:
    """Sum of squared distances of the predictor's attention from a teacher's, a query on average.

    All coefficients and the signed basis count, so that those that are dropped can come back.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 9, 2, 4))
        >>> params = init(jax.random.key(1), tokens=9, head_dim=4)
        >>> teacher = jnp.full((1, 2, 9, 9), 1 / 9)
        >>> float(connectivity_loss(params, predict(params, x, x), teacher)) > 0
        True
    """
    signed = jnp.einsum("bhtn,sn->bhts", predicted.coefficients, params["expand"])
    return ((signed - teacher[:, :, 1:]) ** 2).sum(-1).mean()


def init(
    key: jax.Array, *, tokens: int, head_dim: int, reduce_tokens: int = 8, reduce_channels: int = 2
) -> dict[str, Array]:
    """Draws a predictor for sequences of so many tokens.

    Args:
        key: random key.
        tokens: t.
        head_dim: d.
        reduce_tokens: tokens for one row of E.
        reduce_channels: channels for one that is compared.

    Example:
        >>> init(jax.random.key(0), tokens=17, head_dim=8)["reduce"].shape
        (17, 2)
    """
    few, narrow = max(tokens // reduce_tokens, 1), max(head_dim // reduce_channels, 1)
    keys = jax.random.split(key, 4)
    small = lambda key, *shape: 0.02 * jax.random.truncated_normal(key, -2, 2, shape)
    return {
        "query": linear_init(keys[0], head_dim, narrow), "query_bias": jnp.zeros(narrow),
        "key": linear_init(keys[1], head_dim, narrow), "key_bias": jnp.zeros(narrow),
        "reduce": small(keys[2], tokens, few), "expand": small(keys[3], tokens, few),
    }  # fmt: skip
