"""Influence of each token on each output: an attention pattern for mechanisms without one.

    I_ij = || d y_i / d x_j ||_F

Softmax attention's own weights are a part of it; mechanisms that keep a state, gate or route their
tokens have no weights, and this all the same.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_shape


def influence(
    function: Callable[[Float[Array, "t m"]], Float[Array, "t k"]], x: Float[Array, "s m"]
) -> Float[Array, "t s"]:
    """Measures how much each output depends on each input, to first order.

    Args:
        function: from tokens to outputs, of one sequence.
        x: where, `[s, m]`.

    Returns:
        The Frobenius norms of the Jacobian's blocks, `[t, s]`; 0 where nothing depends. The
        Jacobian itself, `[t, k, s, m]`, is held at once: this is for short sequences.

    Raises:
        ValueError: not two axes.

    Example:
        >>> influence(lambda x: 3 * jnp.cumsum(x, 0), jnp.ones((3, 1))).tolist()
        [[3.0, 0.0, 0.0], [3.0, 3.0, 0.0], [3.0, 3.0, 3.0]]
    """
    check_shape("x", x, "s m", {})
    return jnp.sqrt(jnp.sum(jax.jacobian(function)(x) ** 2, axis=(1, 3)))
