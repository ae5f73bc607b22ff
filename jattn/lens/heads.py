"""Likeness of a layer's heads, how many differ, and how their entropies do: from maps alone.

Per layer, with A_h the attention maps of head h over a batch and its rows,

    similarity     mean over pairs of heads of cos(vec A_i, vec A_j)
    entropy of h   mean over batch and rows of -sum_j A_ij ln A_ij

Reference: arXiv 2605.20441.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape


class HeadStatistics(NamedTuple):
    """Each is a mean over layers, a scalar.

    Attributes:
        entropy_mean: mean over heads of the entropy, nats.
        entropy_std: standard deviation over heads (population), nats.
        entropy_range: largest less smallest entropy of a head, nats.
        mean_similarity: mean cosine between different heads, in [0, 1]; 1 for a single head.
        spectral_gap: largest less second eigenvalue of the matrix of cosines; its largest
            eigenvalue for a single head.
    """

    entropy_mean: Float[Array, ""]
    entropy_std: Float[Array, ""]
    entropy_range: Float[Array, ""]
    mean_similarity: Float[Array, ""]
    spectral_gap: Float[Array, ""]


def head_entropy(weights: Float[Array, "l b h t s"]) -> Float[Array, "l h"]:
    """Entropy of attention in nats, mean over batch and rows; a weight of 0 counts as 0.

    Args:
        weights: attention maps `[l, b, h, t, s]`, rows summing to one.

    Returns:
        `[l, h]`.

    Example:
        >>> round(float(head_entropy(jnp.full((1, 1, 1, 2, 4), 0.25))[0, 0]), 4)
        1.3863
    """
    logs = jnp.log(jnp.where(weights > 0, weights, 1.0))
    return -jnp.sum(weights * logs, axis=-1).mean(axis=(1, 3))


def head_similarity(weights: Float[Array, "l b h t s"]) -> Float[Array, "l h h"]:
    """Cosines between the maps of a layer's heads.

    Args:
        weights: attention maps `[l, b, h, t, s]`.

    Returns:
        `[l, h, h]`, ones on the diagonal.

    Example:
        >>> maps = jnp.stack([jnp.eye(3), jnp.ones((3, 3)) / 3])[None, None]
        >>> round(float(head_similarity(maps)[0, 0, 1]), 4)
        0.5774
    """
    flat = jnp.moveaxis(weights, 2, 1).reshape(weights.shape[0], weights.shape[2], -1)
    norms = jnp.linalg.norm(flat, axis=-1, keepdims=True)
    flat = flat / jnp.where(norms > 0, norms, 1.0)
    return jnp.matmul(flat, flat.mT, precision="highest")


def head_statistics(weights: Float[Array, "l b h t s"]) -> HeadStatistics:
    """Entropies and similarities of heads, averaged over layers; see `HeadStatistics`.

    Args:
        weights: attention maps `[l, b, h, t, s]`, rows summing to one.

    Raises:
        ValueError: not five axes.

    Reference:
        arXiv 2605.20441.

    Example:
        >>> same = jnp.full((2, 1, 4, 3, 3), 1 / 3)
        >>> found = head_statistics(same)
        >>> round(float(found.mean_similarity), 4), round(float(found.entropy_std), 4)
        (1.0, 0.0)
    """
    check_shape("weights", weights, "l b h t s", {})
    entropy, cosines = head_entropy(weights), head_similarity(weights)
    heads = entropy.shape[1]
    ordered = jnp.linalg.eigvalsh(cosines)
    off = (cosines.sum((1, 2)) - jnp.trace(cosines, axis1=1, axis2=2)) / max(heads * (heads - 1), 1)
    return HeadStatistics(
        entropy.mean(),
        entropy.std(axis=1).mean(),
        jnp.ptp(entropy, axis=1).mean(),
        off.mean() if heads > 1 else jnp.ones(()),
        (ordered[:, -1] - (ordered[:, -2] if heads > 1 else 0.0)).mean(),
    )


def head_participation(weights: Float[Array, "l b h t s"]) -> Float[Array, ""]:
    """How many independent patterns heads have: 0 if all go together, 1 if none goes with another.

        mean over layers of (R - 1) / (H - 1),    R = (sum_k a_k)^2 / sum_k a_k^2

    with a_k the eigenvalues of the heads' covariance over all entries of their maps. R is
    H / (1 + CV^2), CV the coefficient of variation of the eigenvalues.

    Args:
        weights: attention maps `[l, b, h, t, s]`.

    Returns:
        A scalar in [0, 1]; 0 for a single head, and in layers whose maps do not vary.

    Raises:
        ValueError: not five axes.

    Reference:
        arXiv 2605.20441.

    Example:
        >>> different = jnp.eye(4).reshape(1, 1, 4, 2, 2)
        >>> round(float(head_participation(different)), 3), float(head_participation(0 * different))
        (0.667, 0.0)
    """
    check_shape("weights", weights, "l b h t s", {})
    heads = weights.shape[2]
    flat = jnp.moveaxis(weights, 2, 1).reshape(weights.shape[0], heads, -1)
    flat = flat - flat.mean(-1, keepdims=True)
    covariance = jnp.matmul(flat, flat.mT, precision="highest")
    # The sum of the eigenvalues is the trace, that of their squares the squared Frobenius norm.
    total = jnp.trace(covariance, axis1=1, axis2=2)
    squares = (covariance**2).sum((1, 2))
    count = jnp.where(squares > 0, total**2 / jnp.where(squares > 0, squares, 1.0), 1.0)
    return ((count - 1) / max(heads - 1, 1)).mean()
