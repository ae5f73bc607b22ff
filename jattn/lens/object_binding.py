"""Which patches show one object, and where a model keeps it (Li et al. 2025, arXiv 2510.24709).

Probes give a logit for "these two patches show the same object":

    linear      w . (x + y) + 2 b
    diagonal    sum_c w_c x_c y_c + b
    quadratic   x^T W y + b,  W = (W + W^T) / (2 sqrt c)

An identity that has no label cannot be read by the linear probe, which has no product of the two.
The leading eigenvectors of W span the subspace where a model binds; exchanging coordinates in it
between patches breaks binding and leaves the rest.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count


def linear_probe(
    x: Float[Array, "*batch c"],
    y: Float[Array, "*batch c"],
    weight: Float[Array, " c"],
    bias: Float[Array, ""] | float = 0.0,
) -> Float[Array, "*batch"]:
    """`w . (x + y) + 2 b`.

    Example:
        >>> linear_probe(jnp.ones(2), jnp.ones(2), jnp.ones(2), 0.5).item()
        5.0
    """
    return (x + y) @ weight + 2 * bias


def diagonal_probe(
    x: Float[Array, "*batch c"],
    y: Float[Array, "*batch c"],
    weight: Float[Array, " c"],
    bias: Float[Array, ""] | float = 0.0,
) -> Float[Array, "*batch"]:
    """`sum_c w_c x_c y_c + b`.

    Example:
        >>> diagonal_probe(jnp.ones(2), 2 * jnp.ones(2), jnp.ones(2)).item()
        4.0
    """
    return (x * y) @ weight + bias


def symmetric(weight: Float[Array, "c c"]) -> Float[Array, "c c"]:
    """`(W + W^T) / (2 sqrt c)`."""
    return (weight + weight.T) / (2 * len(weight) ** 0.5)


def quadratic_probe(
    x: Float[Array, "*batch c"],
    y: Float[Array, "*batch c"],
    weight: Float[Array, "c c"],
    bias: Float[Array, ""] | float = 0.0,
) -> Float[Array, "*batch"]:
    """`x^T W y + b`, W made symmetric and divided by the root of its size.

    Reference:
        arXiv 2510.24709.

    Example:
        >>> quadratic_probe(jnp.ones(4), jnp.ones(4), jnp.eye(4)).item()
        2.0
    """
    return ((x @ symmetric(weight)) * y).sum(-1) + bias


def pairwise(probe, x: Float[Array, "*b n c"], y: Float[Array, "*b k c"], *params) -> Array:
    """A probe's logits of all pairs, `[..., n, k]`.

    Args:
        probe: one of this module.
        x, y: patches.
        *params: the probe's weight and bias.

    Example:
        >>> pairwise(diagonal_probe, jnp.ones((3, 2)), jnp.ones((4, 2)), jnp.ones(2)).shape
        (3, 4)
    """
    shape = (*x.shape[:-1], y.shape[-2], x.shape[-1])
    one = jnp.broadcast_to(x[..., :, None, :], shape)
    return probe(one, jnp.broadcast_to(y[..., None, :, :], shape), *params)


def same_object(labels: Int[Array, "*b n"]) -> Bool[Array, "*b n n"]:
    """Which pairs of patches have one label.

    Example:
        >>> same_object(jnp.array([0, 1, 0]))[0].tolist()
        [True, False, True]
    """
    return labels[..., :, None] == labels[..., None, :]


def same_class_probability(
    probabilities: Float[Array, "*b n k"],
) -> Float[Array, "*b n n"]:
    """`sum_k p_k(x) p_k(y)`, what probabilities of classes say of pairs."""
    return probabilities @ probabilities.swapaxes(-1, -2)


def binding_subspace(weight: Float[Array, "c c"], rank: int) -> Float[Array, "c r"]:
    """Eigenvectors of the symmetric W with the largest eigenvalues by magnitude, as columns.

    Args:
        weight: of a quadratic probe.
        rank: r.

    Example:
        >>> basis = binding_subspace(jnp.diag(jnp.array([1.0, 3.0, 2.0])), 2)
        >>> abs(basis).round(3).T.tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_count("rank", rank)
    values, vectors = jnp.linalg.eigh(symmetric(weight))
    return vectors[:, jnp.argsort(-jnp.abs(values))[:rank]]


def truncated(weight: Float[Array, "c c"], rank: int) -> Float[Array, "c c"]:
    """W with its leading eigenvalues alone, symmetric, to be probed with again."""
    basis = binding_subspace(weight, rank)
    own = (weight + weight.T) / 2
    return basis @ (basis.T @ own @ basis) @ basis.T


def swap_subspace(
    x: Float[Array, "n c"],
    basis: Float[Array, "c r"],
    order: Int[Array, " n"],
    chosen: Bool[Array, " n"] | None = None,
) -> Float[Array, "n c"]:
    """Patches with the coordinates in a subspace of others, and their own outside it.

    Args:
        x: patches.
        basis: orthonormal columns.
        order: whose coordinates each gets.
        chosen: which patches are changed; default all.

    Example:
        >>> x = jnp.array([[1.0, 5.0], [2.0, 6.0]])
        >>> swap_subspace(x, jnp.array([[1.0], [0.0]]), jnp.array([1, 0])).tolist()
        [[2.0, 5.0], [1.0, 6.0]]
    """
    inside = x @ basis @ basis.T
    changed = x - inside + inside[order]
    return changed if chosen is None else jnp.where(chosen[:, None], changed, x)


def inject_binding(
    x: Float[Array, "n c"],
    basis: Float[Array, "c r"],
    labels: Int[Array, " n"],
    alpha: float,
) -> Float[Array, "n c"]:
    """Patches moved toward the mean of their own object, inside a subspace.

    Args:
        x: patches.
        basis: orthonormal columns.
        labels: the object of each patch.
        alpha: 0 changes nothing; 1 gives all patches of an object the same coordinates.

    Example:
        >>> x = jnp.array([[1.0, 5.0], [3.0, 6.0]])
        >>> inject_binding(x, jnp.array([[1.0], [0.0]]), jnp.array([0, 0]), 1.0).tolist()
        [[2.0, 5.0], [2.0, 6.0]]
    """
    inside = x @ basis @ basis.T
    together = same_object(labels).astype(x.dtype)
    mean = together @ inside / together.sum(-1, keepdims=True)
    return x + alpha * (mean - inside)
