"""Voxels whose linear weights share a small subspace, seen through few noisy responses.

    w = U z,  z ~ N(0, I_r),   e ~ N(0, I),   y = w . e + noise

with the columns of U orthogonal and of length r^(-1/2), so that y has variance one without noise.
Whoever knows U needs r responses; whoever does not, as many as there are features. After arXiv
2505.15813.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_count, check_number


def shared_subspace(key: jax.Array, *, dim: int = 16, rank: int = 4) -> Float[Array, "e r"]:
    """Draws U.

    Args:
        key: a PRNG key.
        dim: number of features e.
        rank: r, at most e.

    Example:
        >>> basis = shared_subspace(jax.random.key(0))
        >>> bool(jnp.allclose(basis.T @ basis, jnp.eye(4) / 4, atol=1e-5))
        True
    """
    check_count("dim", dim)
    check_count("rank", rank)
    if rank > dim:
        raise ValueError(f"rank: expected at most dim={dim}, got {rank}")
    return jnp.linalg.qr(jax.random.normal(key, (dim, rank)))[0] / rank**0.5


def voxel(
    key: jax.Array, basis: Float[Array, "e r"], *, images: int = 64, noise: float = 0.3
) -> tuple[Float[Array, " e"], Float[Array, "n e"], Float[Array, " n"]]:
    """Draws a voxel's weights, images' features, and its responses to them.

    Args:
        key: a PRNG key.
        basis: U.
        images: n.
        noise: standard deviation of a response.

    Example:
        >>> w, e, y = voxel(jax.random.key(0), shared_subspace(jax.random.key(1)), noise=0.0)
        >>> bool(jnp.allclose(e @ w, y, atol=1e-5))
        True
    """
    check_count("images", images)
    check_number("noise", noise)
    of_weights, of_images, of_noise = jax.random.split(key, 3)
    weights = basis @ jax.random.normal(of_weights, (basis.shape[1],))
    features = jax.random.normal(of_images, (images, basis.shape[0]))
    responses = features @ weights + noise * jax.random.normal(of_noise, (images,))
    return weights, features, responses


def posterior_mean(
    features: Float[Array, "n e"],
    responses: Float[Array, " n"],
    prior: Float[Array, "e e"],
    noise: float,
) -> Float[Array, " e"]:
    """The mean of the weights given responses: no other estimate has a smaller squared error.

    `C E^T (E C E^T + noise^2 I)^(-1) y`, C the prior's covariance; with a multiple of the identity
    for C it is ridge regression.

    Args:
        features: E.
        responses: y.
        prior: C.
        noise: standard deviation of a response.

    Example:
        >>> posterior_mean(jnp.ones((1, 1)), jnp.ones(1), jnp.eye(1), 1.0).tolist()
        [0.5]
    """
    gram = features @ prior @ features.T + noise**2 * jnp.eye(len(features))
    return prior @ features.T @ jnp.linalg.solve(gram, responses)
