"""The contrastive loss of structured world models (C-SWM): slots that transitions must explain.

E(z) = 0.5 / sigma^2 mean_k |z_k|^2
L = mean E(z + T(z) - z') + mean max(0, hinge - E(z - z_other))
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.checks import check_number, check_shape


class SlotLoss(NamedTuple):
    """The loss and its parts.

    Attributes:
        loss: a number.
        positive: energy of what the transition missed, `[b]`.
        negative: energy between a state and another example's, `[b]`.
    """

    loss: Float[Array, ""]
    positive: Float[Array, " b"]
    negative: Float[Array, " b"]


def slot_energy(slots: Float[Array, "b k e"], *, sigma: float = 0.5) -> Float[Array, " b"]:
    """`0.5 / sigma^2` times the squared length of slots, its mean over them.

    Example:
        >>> slot_energy(jnp.ones((1, 3, 2))).tolist()
        [4.0]
    """
    check_number("sigma", sigma, above=0)
    return 0.5 / sigma**2 * (slots**2).sum(-1).mean(-1)


def contrastive_slots(
    state: Float[Array, "b k e"],
    transition: Float[Array, "b k e"],
    next_state: Float[Array, "b k e"],
    permutation: Int[Array, " b"],
    *,
    hinge: float = 1.0,
    sigma: float = 0.5,
) -> SlotLoss:
    """The loss of a batch; see the module.

    Args:
        state: slots now.
        transition: what a model says they change by.
        next_state: slots after.
        permutation: of the batch: which other state each is told apart from.
        hinge: energy beyond which another state is far enough.
        sigma: width of the energy.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 1911.12247.

    Example:
        >>> state = jnp.array([[[0.0]], [[3.0]]])
        >>> found = contrastive_slots(state, jnp.ones((2, 1, 1)), state + 1, jnp.array([1, 0]))
        >>> float(found.loss)
        0.0
    """
    sizes: dict[str, int] = {}
    check_shape("state", state, "b k e", sizes)
    check_shape("transition", transition, "b k e", sizes)
    check_shape("next_state", next_state, "b k e", sizes)
    check_shape("permutation", permutation, "b", sizes)
    positive = slot_energy(state + transition - next_state, sigma=sigma)
    negative = slot_energy(state - state[permutation], sigma=sigma)
    loss = positive.mean() + jnp.maximum(0.0, hinge - negative).mean()
    return SlotLoss(loss, positive, negative)
