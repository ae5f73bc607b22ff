"""Attention with other similarities, with and without normalisation, as in studies of sinks.

    similarity    w_ij = sim(q_i.k_j / sqrt(d)),         sim = sigmoid or elu + 1
    kernel        w_ij = phi(q_i).phi(k_j) / sqrt(d),    phi = identity or elu + 1
    o_i = sum_{j<=i} w_ij v_j / Z_i,    Z_i = 1 or sum_j w_ij;  identity: max(|sum_j w_ij|, 1)

Without normalisation a key's weight does not depend on other keys, and no sink appears.

Reference: arXiv 2410.10781, section 7.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import jattn
from jattn.attention.normalizers import Normalizer
from jattn.checks import check_choice
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.recurrence import recur
from jattn.recurrence.feature_maps import elu1

NORMALIZERS = {
    (name, divide): Normalizer(f"{name}_{divide}", function, divide=divide)
    for name, function in (("sigmoid", jax.nn.sigmoid), ("elu", elu1))
    for divide in (True, False)
}


def similarity_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    *,
    similarity: Literal["sigmoid", "elu"] = "sigmoid",
    normalize: bool = False,
) -> Float[Array, "b t h e"]:
    """Causal attention by an elementwise similarity of scaled scores.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        similarity: `"sigmoid"` or `"elu"`, elu + 1.
        normalize: divide rows by their sum.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: an unknown similarity.

    Reference:
        arXiv 2410.10781, section 7.

    Example:
        >>> x = jnp.zeros((1, 3, 1, 2))
        >>> similarity_attention(x, x, x + 1)[0, :, 0, 0].tolist()
        [0.5, 1.0, 1.5]
    """
    check_choice("similarity", similarity, ("elu", "sigmoid"))
    normalizer = NORMALIZERS[similarity, normalize]
    return jattn.attend(query, key, value, mask=jattn.masks.causal(), normalizer=normalizer)


def kernel_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h e"],
    *,
    feature_map: Literal["identity", "elu1"] = "identity",
    normalize: bool = False,
) -> Float[Array, "b t h e"]:
    """Causal attention by an inner product of features, a linear recurrence.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, t, h, d]`.
        value: `[b, t, h, e]`.
        feature_map: `"identity"` or `"elu1"`, elu + 1.
        normalize: divide by the sum of weights, or for the identity, whose weights have either
            sign, by the larger of its magnitude and 1.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: an unknown feature map.

    Reference:
        arXiv 2410.10781, section 7.

    Example:
        >>> x = jnp.ones((1, 3, 1, 4))
        >>> kernel_attention(x, x, x)[0, :, 0, 0].tolist()
        [2.0, 4.0, 6.0]
    """
    check_choice("feature_map", feature_map, ("elu1", "identity"))
    scale = query.shape[-1] ** -0.5
    if feature_map == "elu1" or not normalize:
        out = linear_attention(
            query, key, value, causal=True, feature_map=feature_map, normalize=normalize
        )
        return out if normalize else out * scale
    ones = jnp.ones_like(value[..., :1])
    both = recur(query * scale, key, jnp.concatenate([value, ones], axis=-1))
    return both[..., :-1] / jnp.maximum(jnp.abs(both[..., -1:]), 1.0)
