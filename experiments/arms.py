"""Arms: networks that differ in numbers only, trained side by side in one program.

Their parameters are `{"nets": tree, ...}`, the arms the first axis of each leaf of the tree. What
is minimised is the sum of their losses, so that no arm's gradient knows of the others.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax


def along(values: jax.Array, like: jax.Array) -> jax.Array:
    """A value of each arm, to go with an array whose first axis is the arms."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def copies(params: Any, count: int) -> Any:
    """The same parameters for so many arms."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), params)


def adamw(
    rates: Sequence[float], decays: Sequence[float], *, b2: float = 0.999
) -> optax.GradientTransformation:
    """AdamW with a learning rate and a decoupled weight decay for each arm.

    Args:
        rates: learning rates.
        decays: weight decays, which the learning rate multiplies.
        b2: of the second moment.
    """

    def scale(updates, params):
        def of_leaf(update, param):
            decayed = update + along(jnp.array(decays), param) * param
            return -along(jnp.array(rates), param) * decayed

        return updates | {"nets": jax.tree.map(of_leaf, updates["nets"], params["nets"])}

    return optax.chain(optax.scale_by_adam(b2=b2), optax.stateless(scale))
