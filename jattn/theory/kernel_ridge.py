"""Ridge regression in its dual form: exact fits of models that are linear in their parameters.

    min over v of ||y - mean(y) - Phi v||^2 + lambda ||v||^2
    =>  f(x) = mean(y) + K(x, X) alpha,   alpha = (K + lambda I)^-1 (y - mean(y)),   K = Phi Phi^T

One eigendecomposition of K serves every penalty and every target. On a TPU, where it would be one
matrix-vector product after another, each penalty has a Cholesky factorisation instead.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape
from jattn.platforms import platform
from jattn.theory.positive_definite import solve_positive_definite


def blocked_gram(
    features: Callable[[Int[Array, " block"]], Float[Array, "rows p"]],
    start: int,
    stop: int,
    *,
    block: int,
    columns: int,
) -> Float[Array, "rows columns"]:
    """`Phi Phi[:columns]^T` summed over features start..stop-1, of which few exist at a time.

    Args:
        features: `(indices [block]) -> [rows, p]`, the features that belong to some indices (a
            head may have several).
        start, stop: range of indices.
        block: indices computed at a time; it does not change the result but in rounding.
        columns: rows that are also columns (a training set that comes before a test set).

    Returns:
        `[rows, columns]`, summed over blocks in the default float dtype (float64 under x64).

    Example:
        >>> phi = jnp.arange(12.0).reshape(3, 4)
        >>> gram = blocked_gram(lambda i: phi[:, i], 0, 4, block=3, columns=2)
        >>> bool(jnp.all(gram == phi @ phi[:2].T))
        True
    """
    block = min(block, stop - start)
    wide = jnp.result_type(float)

    def product(indices, last):
        # Features beyond the last are computed, to keep one shape, and not counted.
        some = features(jnp.minimum(indices, stop - 1)).astype(jnp.float32)
        some = some.reshape(len(some), len(indices), -1) * (indices < last)[None, :, None]
        some = some.reshape(len(some), -1)
        return jnp.matmul(some, some[:columns].T, precision=lax.Precision.HIGHEST).astype(wide)

    offsets = jnp.arange(block, dtype=jnp.int32) + start
    total, blocks = product(offsets, stop), -(-(stop - start) // block)
    if blocks > 1:
        total = lax.fori_loop(
            1, blocks, lambda i, sum_: sum_ + product(offsets + i * block, stop), total
        )
    return total


def kernel_ridge(
    gram: Float[Array, "n n"],
    targets: Float[Array, "n k"],
    penalties: Float[Array, " l"],
) -> Float[Array, "l n k"]:
    """Dual coefficients `(K + lambda I)^-1 y` for several penalties and targets at once.

    Args:
        gram: K `[n, n]`, positive semidefinite but for rounding.
        targets: y `[n, k]`.
        penalties: lambda `[l]`, positive.

    Returns:
        alpha `[l, n, k]`. On a TPU, NaN for a penalty that rounding errors of K outweigh.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        Saunders, Gammerman and Vovk 1998.

    Example:
        >>> kernel_ridge(jnp.eye(2), jnp.ones((2, 1)), jnp.array([1.0]))[0, :, 0].tolist()
        [0.5, 0.5]
    """
    sizes: dict[str, int] = {}
    check_shape("gram", gram, "n n", sizes)
    check_shape("targets", targets, "n k", sizes)
    check_shape("penalties", penalties, "l", sizes)
    if platform() == "tpu":
        return _by_factors(gram, targets, penalties)
    values, vectors = jnp.linalg.eigh(gram)
    values = jnp.maximum(values, 0)  # rounding can leave small negative ones
    rotated = vectors.T @ targets
    shrunk = rotated / (values[:, None] + penalties[:, None, None])
    return jnp.einsum("ij,ljk->lik", vectors, shrunk)


def _by_factors(gram, targets, penalties):
    eye = jnp.eye(len(gram), dtype=gram.dtype)
    return lax.map(lambda p: solve_positive_definite(gram + p * eye, targets), penalties)


class Fit(NamedTuple):
    """Ridge fits of k targets.

    Attributes:
        predictions: at the other points `[c, k]`.
        fitted: at the training points `[n, k]`.
        penalty: the relative penalty chosen for each target `[k]`.
    """

    predictions: Float[Array, "c k"]
    fitted: Float[Array, "n k"]
    penalty: Float[Array, " k"]


def validated_kernel_ridge(
    gram: Float[Array, "n n"],
    cross: Float[Array, "c n"],
    targets: Float[Array, "n k"],
    grid: Sequence[float],
    *,
    held_out: float = 0.2,
) -> Fit:
    """Ridge fits with the penalty of each target chosen on held-out points, then refitted on all.

    Penalties too small for the precision of K, whose fit is not finite, are not chosen.

    Args:
        gram: K of the training points `[n, n]`, in a random order.
        cross: K between other points and the training points `[c, n]`.
        targets: y `[n, k]`; centred by the means of the points that are fitted.
        grid: penalties to try, in units of the mean of K's diagonal.
        held_out: fraction of the points, the last ones, that choose.

    Returns:
        A `Fit`.

    Raises:
        ValueError: shapes that do not fit, or no point left on a side of the split.

    Example:
        >>> x = jnp.linspace(-1, 1, 10)[jnp.array([3, 1, 4, 9, 5, 2, 6, 8, 7, 0]), None]
        >>> fit = validated_kernel_ridge(x @ x.T, x @ x.T, 3 * x, (1e-6, 1.0))
        >>> bool(jnp.allclose(fit.predictions, 3 * x, atol=1e-3)), float(fit.penalty[0]) < 1e-3
        (True, True)
    """
    sizes: dict[str, int] = {}
    check_shape("gram", gram, "n n", sizes)
    check_shape("cross", cross, "c n", sizes)
    check_shape("targets", targets, "n k", sizes)
    count = len(gram)
    kept = count - round(held_out * count)
    if not 0 < kept < count:
        raise ValueError(f"held_out: expected points on both sides of the split, got {held_out}")
    relative = jnp.asarray(grid, gram.dtype)

    def solve(some, y):
        mean = jnp.mean(y, axis=0)
        return mean, kernel_ridge(some, y - mean, relative * jnp.trace(some) / len(some))

    mean, coefficients = solve(gram[:kept, :kept], targets[:kept])
    guesses = mean + jnp.einsum("vn,lnk->lvk", gram[kept:, :kept], coefficients)
    losses = jnp.mean((guesses - targets[kept:]) ** 2, axis=1)
    mean, coefficients = solve(gram, targets)
    usable = jnp.isfinite(losses) & jnp.all(jnp.isfinite(coefficients), axis=1)
    choice = jnp.argmin(jnp.where(usable, losses, jnp.inf), axis=0)
    chosen = jnp.take_along_axis(coefficients, choice[None, None], axis=0)[0]
    return Fit(mean + cross @ chosen, mean + gram @ chosen, relative[choice])
