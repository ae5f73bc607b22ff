"""What is varied: the operation of attention, biases, positions, masks, optimisation and data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

OPERATIONS = (
    *("softmax", "sigmoid", "sigmoid_norm", "elu", "elu_norm"),
    *("identity", "elu_kernel_norm", "mlp", "mlp_norm"),
)
BIASES = ("none", "key", "key_value", "value")
POSITIONS = ("rotary", "none", "learned", "alibi")


class Arm(NamedTuple):
    """One network of a seed. The defaults are what all others are compared with.

    Attributes:
        operation: one of `OPERATIONS`; `_norm`: rows are divided by their sum.
        bias: one of `BIASES`: what stands beside keys and values, softmax only.
        positions: one of `POSITIONS`.
        window: keys that a query sees, itself included; 0: all.
        prefix: tokens that see each other whatever their order; their own are not asked for.
        decay: decoupled weight decay.
        rate: factor of the learning rate.
        first: where the token stands that begins every sequence, or -1: nowhere.
        few: train on a fixed set of few sequences.
    """

    operation: Any = "softmax"
    bias: Any = "none"
    positions: Any = "rotary"
    window: Any = 0
    prefix: Any = 0
    decay: Any = 0.1
    rate: Any = 1.0
    first: Any = 0
    few: Any = False


def arrays(arms: Sequence[Arm]) -> Arm:
    """The fields of arms as arrays `[arms]`, names by their place in their list."""
    number = dict(operation=OPERATIONS, bias=BIASES, positions=POSITIONS)
    found: dict[str, Any] = {}
    for field in Arm._fields:
        values = [getattr(arm, field) for arm in arms]
        names = number.get(field)
        found[field] = jnp.array([names.index(v) for v in values] if names else values)
    return Arm(**found)


def is_any(index: jax.Array, names: Sequence[str], *chosen: str) -> jax.Array:
    """Whether a traced field is one of some names."""
    return jnp.isin(index, jnp.array([names.index(name) for name in chosen]))
