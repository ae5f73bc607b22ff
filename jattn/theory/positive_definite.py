"""Linear systems with positive definite matrices, in a program that stays small as they grow.

XLA writes a Cholesky factorisation for a TPU out block by block: at n = 4096 the program takes
minutes to compile. Here one block is one turn of a loop, so that its size does not depend on n; for
that it does 6 times the operations, nearly all of them in matrix products.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from jattn.checks import check_shape


def solve_positive_definite(
    matrix: Float[Array, "n n"], right: Float[Array, "n k"], *, block: int = 128
) -> Float[Array, "n k"]:
    """Solves `A x = y` by a blocked Cholesky factorisation `A = L L^T`.

    Args:
        matrix: A `[n, n]`, symmetric and positive definite.
        right: y `[n, k]`.
        block: rows that are factorised at a time; it changes the result in rounding only.

    Returns:
        x `[n, k]`; NaN where A is not positive definite in its precision.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        Golub and Van Loan, Matrix computations, 4.2.

    Example:
        >>> solve_positive_definite(4 * jnp.eye(3), jnp.ones((3, 1)), block=2)[:, 0].tolist()
        [0.25, 0.25, 0.25]
    """
    sizes: dict[str, int] = {}
    check_shape("matrix", matrix, "n n", sizes)
    check_shape("right", right, "n k", sizes)
    count, columns = right.shape
    missing = -count % block
    # Behind the matrix comes an identity, up to whole blocks.
    rows = jnp.arange(count + missing)
    lower = jnp.pad(matrix, ((0, missing), (0, missing)))
    lower = lower + jnp.diag((rows >= count).astype(matrix.dtype))
    solution = jnp.pad(right, ((0, missing), (0, 0)))
    blocks = len(rows) // block
    eye = jnp.eye(block, dtype=matrix.dtype)

    def forward(index, carry):
        """Factorises one block of columns, takes it out of those behind, and solves `L z = y`."""
        lower, inverses, solution = carry
        start = index * block
        panel = lax.dynamic_slice(lower, (0, start), (len(rows), block))
        here = jnp.linalg.cholesky(lax.dynamic_slice(panel, (start, 0), (block, block)))
        inverse = solve_triangular(here, eye, lower=True)
        panel = jnp.where((rows >= start)[:, None], panel @ inverse.T, 0)
        solved = inverse @ lax.dynamic_slice(solution, (start, 0), (block, columns))
        below = jnp.where((rows >= start + block)[:, None], panel, 0)
        solution = lax.dynamic_update_slice(solution - below @ solved, solved, (start, 0))
        lower = lax.dynamic_update_slice(lower - below @ below.T, panel, (0, start))
        return lower, inverses.at[index].set(inverse), solution

    def backward(index, solution):
        """Solves `L^T x = z` for one block, the last ones first."""
        index = blocks - 1 - index
        start = index * block
        panel = lax.dynamic_slice(lower, (0, start), (len(rows), block))
        below = jnp.where((rows >= start + block)[:, None], panel, 0)
        rest = lax.dynamic_slice(solution, (start, 0), (block, columns)) - below.T @ solution
        return lax.dynamic_update_slice(solution, inverses[index].T @ rest, (start, 0))

    with jax.default_matmul_precision("highest"):
        inverses = jnp.zeros((blocks, block, block), matrix.dtype)
        lower, inverses, solution = lax.fori_loop(0, blocks, forward, (lower, inverses, solution))
        return lax.fori_loop(0, blocks, backward, solution)[:count]
