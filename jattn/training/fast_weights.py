"""Fast weights: some that are adapted to each batch anew, so that the others learn to go with them.

Before each step on the slow weights, fast ones take a few steps of gradient descent on the same
batch; the slow ones then get the gradient of the loss with the fast ones held fixed,

    fast' = fast - rate clip(d loss / d fast),   some times over
    d loss(slow, fast') / d slow                 no derivative of fast' by slow

and the fast ones are thrown away.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from jattn.checks import check_count, check_number

Slow = TypeVar("Slow", bound=PyTree)
Fast = TypeVar("Fast", bound=PyTree)


def fast_weights_loss(
    loss: Callable[[Slow, Fast], Float[Array, ""]],
    slow: Slow,
    fast: Fast,
    *,
    steps: int = 2,
    rate: float = 1.0,
    clip: float = 1.0,
) -> Float[Array, ""]:
    """The loss once the fast weights are adapted; its gradient is of first order.

    Args:
        loss: of slow and fast weights, on one batch.
        slow: weights that are trained.
        fast: weights to begin from, e.g. adapters that change nothing yet.
        steps: of gradient descent on the fast ones; 0 is the loss as it is.
        rate: their learning rate.
        clip: the largest norm of a gradient, of each array by itself.

    Returns:
        The loss, to be differentiated by `slow`.

    Raises:
        ValueError: a number out of range.

    Reference:
        arXiv 2605.09932 (FocuSFT), its inner and outer loop.

    Example:
        >>> loss = lambda slow, fast: (slow + fast - 3.0) ** 2
        >>> adapted = lambda slow: fast_weights_loss(loss, slow, 0.0, steps=1, rate=0.25, clip=9.0)
        >>> float(adapted(1.0)), float(jax.grad(adapted)(1.0))
        (1.0, -2.0)
    """
    check_count("steps", steps, 0)
    check_number("clip", clip, above=0)
    fixed = lax.stop_gradient(slow)

    def clipped(gradient):
        norm = jnp.sqrt((gradient**2).sum())
        return gradient * jnp.minimum(1, clip / jnp.maximum(norm, 1e-12))

    for _ in range(steps):
        gradients = jax.grad(lambda fast: loss(fixed, fast))(fast)
        fast = jax.tree.map(lambda x, g: x - rate * clipped(g), fast, gradients)
    return loss(slow, lax.stop_gradient(fast))
