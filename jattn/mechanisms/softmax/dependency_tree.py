"""Trees of parts from reversed attention (arXiv 2304.03282): who depends on whom, and pruning.

    D_ji = sum_h A_ij P_ih M_i        what receiver j takes from sender i

A child's parent is the receiver that takes most from it. Layers that prune keep the tokens that
still speak, M_i max_h P_ih; the paper does not say by which number it prunes. What the last layer
gives is pooled by how much each token still speaks: `pool`. `layered_tree` reads one tree from all
layers, and `jattn.nn.VisionTransformer` runs such layers with `carry_messages` and `prune_after`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import attend
from jattn.checks import check_shape
from jattn.extremes import largest
from jattn.mechanisms.combinators.routed import top_k
from jattn.mechanisms.layers.heads import qkv
from jattn.mechanisms.softmax.reversed_attention import TEMPERATURE, senders


def dependencies(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    sender_weights: Float[Array, "b t h"],
    *,
    mask=None,
) -> Float[Array, "b s t"]:
    """D, the mask of dependencies: rows receive, columns send.

    Args:
        query: of senders, `[b, t, h, d]`.
        key: of receivers, `[b, s, g, d]`.
        sender_weights: P M, `[b, t, h]`.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, s, t]`; column i sums to the weight of sender i.

    Reference:
        arXiv 2304.03282.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 6, 2, 4))
        >>> found = dependencies(x, x, jnp.full((1, 6, 2), 0.5))
        >>> bool(jnp.allclose(found.sum(1), 1.0, atol=1e-5))
        True
    """
    _, weights = attend(
        query, key, key[..., :1], mask=mask, return_weights=True, implementation="reference"
    )
    return jnp.einsum("bhts,bth->bst", weights, sender_weights.astype(weights.dtype))


def layer_dependencies(
    params: dict[str, Array],
    x: Float[Array, "b t m"],
    message: Float[Array, "b t"] | None = None,
    *,
    heads: int,
    temperature: float = TEMPERATURE,
    mask=None,
) -> Float[Array, "b t t"]:
    """D of a layer of reversed attention.

    Args:
        params, x, message, heads, temperature, mask: as for `reversed_layer`.
    """
    share, message = senders(params, x, message, temperature=temperature)
    query, key, _ = qkv(params, x, x, heads, heads)
    return dependencies(query, key, share * message[..., None], mask=mask)


def parents(dependency: Float[Array, "b t t"]) -> Int[Array, "b t"]:
    """The parent of each token: the other token that takes most from it.

    Args:
        dependency: D.

    Example:
        >>> parents(jnp.array([[[0.9, 0.2], [0.1, 0.8]]])).tolist()
        [[1, 0]]
    """
    itself = jnp.eye(dependency.shape[1], dtype=bool)
    return jnp.argmax(jnp.where(itself, -jnp.inf, dependency), axis=1)


def speaking(share: Float[Array, "b t h"], message: Float[Array, "b t"]) -> Float[Array, "b t"]:
    """The score to prune by, M_i max_h P_ih."""
    return message * largest(share, -1)[..., 0]


def keep_ratio(layer: int, rate: float = 0.16) -> float:
    """Share of the tokens left that the n-th pruning layer keeps, n = 1, 2, ...

        (1 - n rate) / (1 - (n - 1) rate)

    so that 1 - n rate of all tokens are left behind it.

    Args:
        layer: n.
        rate: share of all tokens that each of them drops; `n rate` below 1.

    Raises:
        ValueError: a rate that leaves nothing.

    Example:
        >>> round(keep_ratio(1) * keep_ratio(2) * keep_ratio(3), 6)
        0.52
    """
    if layer < 1:
        raise ValueError(f"layer: expected at least 1, got {layer}")
    if not 0 <= layer * rate < 1:
        raise ValueError(f"rate: expected 0 to 1 / {layer}, got {rate}")
    return (1 - layer * rate) / (1 - (layer - 1) * rate)


def prune(score: Float[Array, "b t"], count: int, *arrays: Array) -> tuple[Array, ...]:
    """The `count` tokens of the largest score, in their order.

    Args:
        score: `[b, t]`, e.g. of `speaking`.
        count: how many to keep.
        *arrays: `[b, t, ...]`: tokens, M, indices.

    Returns:
        The arrays, `[b, count, ...]`.

    Raises:
        ValueError: more than there are, or none.

    Example:
        >>> prune(jnp.array([[0.1, 0.9, 0.5]]), 2, jnp.array([[10, 20, 30]]))[0].tolist()
        [[20, 30]]
    """
    if not 1 <= count <= score.shape[1]:
        raise ValueError(f"count: expected 1 to {score.shape[1]}, got {count}")
    kept = top_k(score, count)
    index = jax.vmap(lambda row: jnp.nonzero(row, size=count)[0])(kept)
    return tuple(jax.vmap(lambda array, i: array[i])(array, index) for array in arrays)


def pool(x: Float[Array, "b t m"], message: Float[Array, "b t"]) -> Float[Array, "b m"]:
    """The features of an image, `mean_i M_i x_i` over the tokens that are left.

    Args:
        x: what the last layer gives.
        message: M, that layer included.

    Returns:
        `[b, m]`, in x's dtype.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2304.03282.

    Example:
        >>> pool(jnp.array([[[4.0], [6.0]]]), jnp.array([[1.0, 0.5]])).tolist()
        [[3.5]]
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "b t m", sizes)
    check_shape("message", message, "b t", sizes)
    return (message[..., None] * x).mean(1).astype(x.dtype)
