"""Patches of objects, some of one class: what a patch shows, and which of them it belongs to.

    x = A c_class + B u_object + noise

A and B are fixed; u is drawn anew for every object of every image, so it has no label: that two
patches show one object, and not two of one class, can be told by comparing them, and by nothing
else. After arXiv 2510.24709.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_count, check_number


class Coded(NamedTuple):
    """Patches of an image, the object each shows, and the class of that object."""

    patches: Float[Array, "*b n c"]
    objects: Int[Array, "*b n"]
    classes: Int[Array, "*b n"]


def directions(key: jax.Array, *, dim: int, classes: int, rank: int) -> Float[Array, "c k"]:
    """Columns of A, one for each class, and of B, all orthogonal and of length one.

    Args:
        key: a PRNG key.
        dim: c, at least classes + rank.
        classes: number of classes.
        rank: columns of B.

    Example:
        >>> found = directions(jax.random.key(0), dim=6, classes=3, rank=2)
        >>> bool(jnp.allclose(found.T @ found, jnp.eye(5), atol=1e-5))
        True
    """
    for name, number in (("dim", dim), ("classes", classes), ("rank", rank)):
        check_count(name, number)
    if classes + rank > dim:
        raise ValueError(f"dim: expected at least classes + rank = {classes + rank}, got {dim}")
    return jnp.linalg.qr(jax.random.normal(key, (dim, classes + rank)))[0]


def coded_patches(
    key: jax.Array,
    axes: Float[Array, "c k"],
    *,
    classes: int = 3,
    each: int = 2,
    patches: int = 4,
    contrast: float = 3.0,
    noise: float = 0.1,
) -> Coded:
    """Draws an image: so many objects of each class, and so many patches of each object.

    Args:
        key: a PRNG key.
        axes: of `directions`.
        classes: how many columns of it are A.
        each: objects of a class.
        patches: of an object.
        contrast: length of a class's direction; u is standard normal.
        noise: standard deviation of each feature.

    Example:
        >>> axes = directions(jax.random.key(0), dim=8, classes=3, rank=2)
        >>> image = coded_patches(jax.random.key(1), axes)
        >>> image.patches.shape, image.objects[:5].tolist(), image.classes[:9].tolist()
        ((24, 8), [0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, 1])
    """
    check_count("each", each)
    check_count("patches", patches)
    check_number("noise", noise)
    of_code, of_noise = jax.random.split(key)
    objects = jnp.arange(classes * each).repeat(patches)
    kinds = objects // each
    codes = jax.random.normal(of_code, (classes * each, axes.shape[1] - classes))
    x = contrast * axes[:, kinds].T + codes[objects] @ axes[:, classes:].T
    return Coded(x + noise * jax.random.normal(of_noise, x.shape), objects, kinds)
