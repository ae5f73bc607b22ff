"""Keys and values for the kernels: as they came, and without what is not finite."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.gpu.plan import DifferentiableOperands, Plan
from jattn.attention.gpu.tiles import padded
from jattn.attention.nonfinite import hide_nonfinite


class Keys(NamedTuple):
    """Keys and values `[b, s, g, d]`, padded.

    Tiles on the edge of a mask take those without NaN and infinity; `bad`, NaN at such keys, is
    added to their scores before they are masked. What is hidden then does no harm, the rest does.
    """

    key: Array
    value: Array
    good_key: Array
    good_value: Array
    bad: tuple[Array, ...]  # nothing without a mask, else one array `[b, h, 1, s]`


def prepare_keys(plan: Plan, x: DifferentiableOperands, length: int) -> Keys:
    """Keys and values for kernels that take `length` of them."""
    key, value = (padded(y, length) for y in (x.key, x.value))
    if not plan.has_mask:
        return Keys(key, value, key, value, ())
    across = lambda y: jnp.swapaxes(y, 1, 2)
    good_key, good_value, bad = hide_nonfinite(across(key), across(value), x.query.shape[2])
    return Keys(key, value, across(good_key), across(good_value), (bad.astype(jnp.float32),))
