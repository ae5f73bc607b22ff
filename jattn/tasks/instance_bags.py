"""Bags of instances, some of which hold a few of three unusual kinds (arXiv 2311.07125).

Instances are Gaussian. A positive bag has two instances of each of three kinds, shifted along
directions of their own; one kind would be enough to tell it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_count, check_number

KINDS, EACH = 3, 2


def instance_bag(
    key: jax.Array, *, instances: int = 60, dim: int = 16, shift: float = 2.5
) -> tuple[Float[Array, "n m"], Bool[Array, ""], Bool[Array, " n"]]:
    """Draws a bag, whether it is positive, which it is half the time, and which instances say so.

    Args:
        key: a PRNG key.
        instances: n, six or more.
        dim: m, three or more.
        shift: of an unusual instance, along one of the first three axes.

    Example:
        >>> draw = jax.vmap(instance_bag)
        >>> x, positive, unusual = draw(jax.random.split(jax.random.key(0), 100))
        >>> bool((unusual.sum(1) == 6 * positive).all())
        True
    """
    check_count("instances", instances, KINDS * EACH)
    check_count("dim", dim, KINDS)
    check_number("shift", shift)
    of_label, of_places, of_noise = jax.random.split(key, 3)
    positive = jax.random.bernoulli(of_label)
    rank = jax.random.permutation(of_places, instances)
    unusual = (rank < KINDS * EACH) & positive
    along = jax.nn.one_hot(rank // EACH, dim)
    x = jax.random.normal(of_noise, (instances, dim))
    return x + shift * jnp.where(unusual[:, None], along, 0), positive, unusual
