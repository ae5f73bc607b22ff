"""In-context linear regression: a prompt of labelled points and one query.

    beta_n ~ N(0, I_s / s) on the s coordinates S_n of response n,
    x_l ~ N(0, Sigma),   y_{l,n} = <beta_n, x_l> + eps_{l,n},   eps ~ N(0, noise_variance).

Every response has unit signal variance (for Sigma = I). The query's target carries noise too.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Prompt(NamedTuple):
    """One regression problem, or a batch of them with leading axes.

    Attributes:
        inputs: demonstrations `[..., l, d]`.
        responses: their labels `[..., l, n]`.
        query: the point to predict at `[..., d]`.
        target: its label `[..., n]`.
    """

    inputs: Float[Array, "*batch l d"]
    responses: Float[Array, "*batch l n"]
    query: Float[Array, "*batch d"]
    target: Float[Array, "*batch n"]


def toeplitz_covariance(dim: int, rho: float) -> Float[np.ndarray, "d d"]:
    """The covariance `Sigma_ij = rho^|i-j|`.

    Example:
        >>> toeplitz_covariance(3, 0.5)[0].tolist()
        [1.0, 0.5, 0.25]
    """
    index = np.arange(dim)
    return np.asarray(rho ** np.abs(index[:, None] - index), dtype=np.float64)


def linear_regression(
    dim: int,
    length: int,
    noise_variance: float,
    *,
    covariance: Float[np.ndarray, "d d"] | None = None,
    tasks: Sequence[Sequence[int]] | None = None,
) -> Callable[[jax.Array], Prompt]:
    """Makes the sampler of one prompt.

    Args:
        dim: number of input coordinates d.
        length: number of demonstrations l.
        noise_variance: variance (not deviation) of the label noise.
        covariance: Sigma `[d, d]` of the inputs; None is the identity.
        tasks: for each response, the coordinates (from 0) its regressor lives on; None is one
            response over all coordinates.

    Returns:
        `sample(key) -> Prompt`, to be vmapped over keys.

    Raises:
        ValueError: a size below one, a covariance of another shape, a coordinate out of range.

    Reference:
        arXiv 2503.12734, section 2 (one response) and 3 (several).

    Example:
        >>> sample = linear_regression(5, 40, 0.1)
        >>> jax.tree.map(jnp.shape, sample(jax.random.key(0)))
        Prompt(inputs=(40, 5), responses=(40, 1), query=(5,), target=(1,))
    """
    if dim < 1 or length < 1:
        raise ValueError(f"dim, length: expected at least 1, got {dim}, {length}")
    if noise_variance < 0:
        raise ValueError(f"noise_variance: expected a variance >= 0, got {noise_variance}")
    tasks = [range(dim)] if tasks is None else tasks
    regressor_scale = np.zeros((len(tasks), dim))
    for row, coordinates in zip(regressor_scale, tasks, strict=True):
        if not len(coordinates) or min(coordinates) < 0 or max(coordinates) >= dim:
            raise ValueError(
                f"tasks: expected coordinates in 0..{dim - 1}, got {tuple(coordinates)}"
            )
        row[list(coordinates)] = len(coordinates) ** -0.5
    if covariance is not None and np.shape(covariance) != (dim, dim):
        raise ValueError(f"covariance: expected shape [{dim}, {dim}], got {np.shape(covariance)}")
    root = None if covariance is None else np.linalg.cholesky(covariance).T
    responses = len(tasks)

    def sample(key: jax.Array) -> Prompt:
        # One draw for everything: many small draws would cost more than the model's step.
        points, labels = (length + 1) * dim, (length + 1) * responses
        normals = jax.random.normal(key, (points + labels + responses * dim,))
        x, noise, beta = jnp.split(normals, (points, points + labels))
        x = x.reshape(length + 1, dim)
        if root is not None:
            x = x @ jnp.asarray(root, x.dtype)
        beta = beta.reshape(responses, dim) * jnp.asarray(regressor_scale, x.dtype)
        y = x @ beta.T + noise_variance**0.5 * noise.reshape(length + 1, responses)
        return Prompt(x[:-1], y[:-1], x[-1], y[-1])

    return sample
