"""From scores to weights: `weight = f(score)`, divided by the sum over the row or not.

    softmax       f = exp                     divided: weights sum to one
    sigmoid       f = 1 / (1 + exp(-score))   not divided
    softplus_l1   f = log(1 + exp(score))     divided
    relu          f = max(score, 0)           divided; a row without a positive score gives zeros
    given_lse     f = exp(score - lse)        not divided; lse is an argument

Every one can be streamed: a backend walks over blocks of keys and keeps one sum per query.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_choice, said

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normalizer:
    """How a row of scores becomes a row of weights.

    Attributes:
        name: for messages.
        function: elementwise, non-negative and differentiable. Define it at module level: backends
            recognise it by identity, and a new lambda each call compiles anew outside `jax.jit`.
        divide: divide each row by its sum. A row whose sum is zero gives zeros.
        running_max: take the largest score seen so far off before `function`. Right only for an
            exponential, where the common factor drops out of the quotient; needs `divide`.
        shift: taken off the scores before `function`; broadcastable to `[b, h, t, s]`,
            differentiable. An axis of size 1 is never broadcast in memory.

    Reference:
        Streaming normalisation: arXiv 1805.02867; sigmoid weights: arXiv 2409.04431.

    Example:
        >>> import jattn
        >>> cubed = Normalizer("cubed", lambda score: jax.nn.relu(score) ** 3, divide=True)
        >>> x = jnp.ones((1, 4, 2, 8))
        >>> jattn.attend(x, x, x, normalizer=cubed).shape
        (1, 4, 2, 8)
    """

    name: str = dataclasses.field(metadata=_STATIC)
    function: Callable[[Array], Array] = dataclasses.field(metadata=_STATIC)
    divide: bool = dataclasses.field(metadata=_STATIC)
    running_max: bool = dataclasses.field(default=False, metadata=_STATIC)
    shift: Array | None = None

    def __bool__(self) -> bool:
        raise ValueError("normalizer: a normalizer has no truth value, and cannot be joined")


softmax = Normalizer("softmax", jnp.exp, divide=True, running_max=True)
sigmoid = Normalizer("sigmoid", jax.nn.sigmoid, divide=False)
softplus_l1 = Normalizer("softplus_l1", jax.nn.softplus, divide=True)
relu = Normalizer("relu", jax.nn.relu, divide=True)

BY_NAME = {n.name: n for n in (softmax, sigmoid, softplus_l1, relu)}


def given_lse(lse: Float[Array, "b t h"]) -> Normalizer:
    """Weights `exp(score - lse)` with a log-sum-exp from elsewhere, for two-pass mechanisms.

    With the `lse` of an earlier `attend(..., return_lse=True)` on the same scores these are the
    softmax weights.

    Args:
        lse: one number a query and head, `[b, t, h]`; differentiable.

    Returns:
        A `Normalizer`.

    Example:
        >>> import jattn
        >>> x = jax.random.normal(jax.random.key(0), (1, 4, 2, 8))
        >>> out, lse = jattn.attend(x, x, x, return_lse=True)
        >>> again = jattn.attend(x, x, x, normalizer=given_lse(lse))
        >>> bool(jnp.allclose(out, again, atol=1e-6))
        True
    """
    shift = jnp.swapaxes(lse, 1, 2)[..., None]
    return Normalizer("given_lse", jnp.exp, divide=False, shift=shift)


def as_normalizer(normalizer: Any) -> Normalizer:
    """A `Normalizer` as it is, or the one of that name.

    Raises:
        ValueError: no normaliser has that name, or it asks for a running max without division.
    """
    if callable(normalizer) or not isinstance(normalizer, str | Normalizer):
        raise ValueError(
            f"normalizer: expected one of {', '.join(map(repr, BY_NAME))}, or a Normalizer(name, "
            f"function, divide) with an elementwise function, got {said(normalizer)}"
        )
    if isinstance(normalizer, Normalizer):
        if normalizer.running_max and not normalizer.divide:
            raise ValueError(
                f"normalizer: running_max needs divide=True, got divide=False in {normalizer.name}"
            )
        return normalizer
    check_choice("normalizer", normalizer, list(BY_NAME))
    return BY_NAME[normalizer]
