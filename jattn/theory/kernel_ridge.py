"""Ridge regression in its dual form: exact fits of models that are linear in their parameters.

    min over v of ||y - mean(y) - Phi v||^2 + lambda ||v||^2
    =>  f(x) = mean(y) + K(x, X) alpha,   alpha = (K + lambda I)^-1 (y - mean(y)),   K = Phi Phi^T

One eigendecomposition of K serves every penalty and every target. On a TPU, where it would be one
matrix-vector product after another, each penalty has a Cholesky factorisation instead.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.checks import check_shape
from jattn.platforms import platform
from jattn.theory.positive_definite import solve_positive_definite

SMALLEST = 1024  # points of the smallest program on a TPU


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

    def product(indices):
        # Features beyond the last are computed, to keep one shape, and not counted.
        some = features(jnp.minimum(indices, stop - 1)).astype(jnp.float32)
        some = some.reshape(len(some), len(indices), -1) * (indices < stop)[None, :, None]
        some = some.reshape(len(some), -1)
        return jnp.matmul(some, some[:columns].T, precision=lax.Precision.HIGHEST).astype(wide)

    offsets = jnp.arange(block, dtype=jnp.int32) + start
    blocks = -(-(stop - start) // block)
    if blocks == 1:
        return product(offsets)
    # The first block is a turn of the loop too: a program of its own takes as long to compile.
    total = jnp.zeros(jax.eval_shape(product, offsets).shape, wide)
    return lax.fori_loop(0, blocks, lambda i, sum_: sum_ + product(offsets + i * block), total)


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
    return _leading(gram, [(len(gram), targets, penalties)])[0]


Job = tuple[int, Float[Array, "n k"], Float[Array, " l"]]  # points, targets, penalties


def _leading(gram, jobs: Sequence[Job]) -> list[Float[Array, "l n k"]]:
    """Dual coefficients of ridge regressions on the first points, 0 for those behind them."""
    if platform() != "tpu":
        rows = [
            _by_eigenvalues(gram[:count, :count], targets[:count], penalties)
            for count, targets, penalties in jobs
        ]
        return [jnp.pad(row, ((0, 0), (0, len(gram) - row.shape[1]), (0, 0))) for row in rows]
    # One program for all numbers of points up to a power of two: each takes seconds to compile.
    groups: dict[int, list[int]] = {}
    for index, (count, _, _) in enumerate(jobs):
        width = min(len(gram), max(SMALLEST, 1 << (count - 1).bit_length()))
        groups.setdefault(width, []).append(index)
    found: dict[int, Array] = {}
    for width, indices in groups.items():
        counts = jnp.array([jobs[index][0] for index in indices])
        targets = jnp.stack([jobs[index][1][:width] for index in indices])
        penalties = jnp.stack([jobs[index][2] for index in indices])
        solved = _by_factors(gram[:width, :width], counts, targets, penalties)
        padded = jnp.pad(solved, ((0, 0), (0, 0), (0, len(gram) - width), (0, 0)))
        found |= dict(zip(indices, padded, strict=True))
    return [found[index] for index in range(len(jobs))]


def _by_eigenvalues(gram, targets, penalties):
    values, vectors = jnp.linalg.eigh(gram)
    values = jnp.maximum(values, 0)  # rounding can leave small negative ones
    rotated = vectors.T @ targets
    shrunk = rotated / (values[:, None] + penalties[:, None, None])
    return jnp.einsum("ij,ljk->lik", vectors, shrunk)


def _by_factors(gram, counts, targets, penalties):
    """`[jobs, l, n, k]`, each with an identity in the place of the points behind its own."""
    rows = jnp.arange(len(gram))

    def solve(job):
        count, right, penalty = job
        here = rows < count
        matrix = jnp.where(here[:, None] & here, gram, 0) + jnp.diag(jnp.where(here, penalty, 1))
        return solve_positive_definite(matrix, jnp.where(here[:, None], right, 0))

    by_penalty = lambda job: lax.map(lambda p: solve((job[0], job[1], p)), job[2])
    return lax.map(by_penalty, (counts, targets, penalties))


class Fit(NamedTuple):
    """Ridge fits of k targets to training sets of s sizes.

    Attributes:
        predictions: at the other points `[s, c, k]`.
        fitted: at all n points `[s, n, k]`, of which a size's first ones were its training set.
        penalty: the relative penalty chosen for each target `[s, k]`.
    """

    predictions: Float[Array, "s c k"]
    fitted: Float[Array, "s n k"]
    penalty: Float[Array, "s k"]


def validated_kernel_ridge(
    gram: Float[Array, "n n"],
    cross: Float[Array, "c n"],
    targets: Float[Array, "n k"],
    grid: Sequence[float],
    *,
    sizes: Sequence[int] | None = None,
    held_out: float = 0.2,
) -> Fit:
    """Ridge fits with the penalty of each target chosen on held-out points, then refitted on all.

    Penalties too small for the precision of K, whose fit is not finite, are not chosen.

    Args:
        gram: K of the training points `[n, n]`, in a random order.
        cross: K between other points and the training points `[c, n]`.
        targets: y `[n, k]`; centred by the means of the points that are fitted.
        grid: penalties to try, in units of the mean of K's diagonal.
        sizes: of training sets, each the first so many points; default: all n.
        held_out: fraction of the points, the last ones, that choose.

    Returns:
        A `Fit`.

    Raises:
        ValueError: shapes that do not fit, no point left on a side of the split, or a size above n.

    Example:
        >>> x = jnp.linspace(-1, 1, 10)[jnp.array([3, 1, 4, 9, 5, 2, 6, 8, 7, 0]), None]
        >>> fit = validated_kernel_ridge(x @ x.T, x @ x.T, 3 * x, (1e-6, 1.0))
        >>> bool(jnp.allclose(fit.predictions[0], 3 * x, atol=1e-3))
        True
        >>> float(fit.penalty[0, 0]) < 1e-3
        True
    """
    shapes: dict[str, int] = {}
    check_shape("gram", gram, "n n", shapes)
    check_shape("cross", cross, "c n", shapes)
    check_shape("targets", targets, "n k", shapes)
    sizes = (len(gram),) if sizes is None else tuple(sizes)
    kept = [size - round(held_out * size) for size in sizes]
    if not all(0 < some < size for some, size in zip(kept, sizes, strict=True)):
        raise ValueError(f"held_out: expected points on both sides of the split, got {held_out}")
    if max(sizes) > len(gram):
        raise ValueError(f"sizes: expected at most {len(gram)} points, got {max(sizes)}")
    relative = jnp.asarray(grid, gram.dtype)
    counts = [*kept, *sizes]
    means = [jnp.mean(targets[:count], axis=0) for count in counts]
    jobs = [
        (count, targets - mean, relative * jnp.trace(gram[:count, :count]) / count)
        for count, mean in zip(counts, means, strict=True)
    ]
    coefficients = _leading(gram, jobs)

    def refit(index):
        some, size = kept[index], sizes[index]
        tried, used = coefficients[index], coefficients[len(sizes) + index]
        guesses = means[index] + jnp.einsum("vn,lnk->lvk", gram[some:size], tried)
        losses = jnp.mean((guesses - targets[some:size]) ** 2, axis=1)
        usable = jnp.isfinite(losses) & jnp.all(jnp.isfinite(used), axis=1)
        choice = jnp.argmin(jnp.where(usable, losses, jnp.inf), axis=0)
        chosen = jnp.take_along_axis(used, choice[None, None], axis=0)[0]
        mean = means[len(sizes) + index]
        return Fit(mean + cross @ chosen, mean + gram @ chosen, relative[choice])

    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(refit, range(len(sizes))))
