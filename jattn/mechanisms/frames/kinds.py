"""Frames of gates, pools and pointers: what they are given is checked, and padding is zeros."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_array, check_shape
from jattn.mechanisms.frames.checks import check_parameters, shapes_of
from jattn.mechanisms.frames.tokens import in_order, take_tokens
from jattn.mechanisms.kinds import Gate, Pointer, Pool
from jattn.mechanisms.layers.batch_norm import EPSILON, batch_norm
from jattn.mechanisms.mixer import Params


def framed_gate(
    name: str,
    *,
    dim: int,
    init: Callable[[jax.Array], Params],
    factors: Callable[..., Array],
    by_index: bool = False,
    normed: bool = False,
) -> Gate:
    """A `Gate` whose arguments are checked, and whose padding is out of the way.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        init: as in `Gate`.
        factors: `(params, x, real) -> factors`, with zeros in x where real is False.
        by_index: where tokens stand matters: real ones are brought to the front, and factors back.
            Images stay as they are.
        normed: `factors` takes `norm=`, `(params, x, real) -> x`, and the gate has a `train`.
    """
    expected = shapes_of(init)

    def clean(params, x, mask):
        check_parameters(name, params, expected())
        check_array("x", x, "floating")
        if x.ndim < 3:
            raise ValueError(f"x: expected axes [b, ..., m], got shape {list(x.shape)}")
        space = " ".join(f"space{axis}" for axis in range(1, x.ndim - 1))
        return _without_padding("x", x, f"b {space} m", mask, {"m": dim})

    def ordered_factors(params, x, real, **norm):
        if not by_index or real is None or x.ndim != 3:
            return factors(params, x, real, **norm)
        order = in_order(real, None, *real.shape)
        real = jnp.take_along_axis(real, order, 1)
        found = factors(params, take_tokens(x, order), real, **norm)
        return found if found.shape[1] == 1 else take_tokens(found, jnp.argsort(order, axis=1))

    def framed_factors(params, x, /, *, mask=None):
        return ordered_factors(params, *clean(params, x, mask))

    def apply(params, x, /, *, mask=None):
        x, real = clean(params, x, mask)
        return x * ordered_factors(params, x, real) if x.size else x

    def train(params, x, /, *, mask=None):
        x, real = clean(params, x, mask)
        found, statistics = _over_batch(ordered_factors, params, x, real)
        return x * found, statistics

    return Gate(init, apply, framed_factors, train if normed else None)


def framed_pool(
    name: str,
    *,
    dim: int,
    init: Callable[[jax.Array], Params],
    apply: Callable[..., Array],
    by_index: bool = False,
    normed: bool = False,
) -> Pool:
    """A `Pool` whose arguments are checked, and whose padding is out of the way.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        init: as in `Pool`.
        apply: `(params, x, real) -> y`, with zeros in x where real is False.
        by_index, normed: as in `framed_gate`.
    """
    expected = shapes_of(init)

    def clean(params, x, mask):
        check_parameters(name, params, expected())
        check_array("x", x, "floating")
        x, real = _without_padding("x", x, "b n m", mask, {"m": dim})
        if by_index and real is not None:
            order = in_order(real, None, *real.shape)
            x, real = take_tokens(x, order), jnp.take_along_axis(real, order, 1)
        return x, real

    def framed_apply(params, x, /, *, mask=None):
        return apply(params, *clean(params, x, mask))

    def train(params, x, /, *, mask=None):
        return _over_batch(apply, params, *clean(params, x, mask))

    return Pool(init, framed_apply, train if normed else None)


def _over_batch(function: Callable[..., Array], params: Any, *given: Any) -> tuple[Array, Any]:
    """What a function with a norm gives if that is over the batch, and the next averages."""
    after = []

    def norm(params, x, real=None, *, eps=EPSILON):
        y, statistics = batch_norm(params, x, real, eps=eps)
        after.append(statistics)
        return y

    y = function(params, *given, norm=norm)
    (statistics,) = after
    return y, statistics


def framed_pointer(
    name: str,
    *,
    dim: int,
    init: Callable[[jax.Array], Params],
    apply: Callable[[Any, Array, Array], Array],
    behind: bool = False,
) -> Pointer:
    """A `Pointer` whose arguments are checked, and whose logits of padding are -inf.

    Args:
        name: the mechanism's name, for messages.
        dim: model dimension m.
        init: as in `Pointer`.
        apply: `(params, query, tokens) -> logits` `[b, t, s]`, or with others before those of the
            tokens, which no mask hides.
        behind: those others stand behind the tokens.
    """
    expected = shapes_of(init)

    def framed_apply(params, query, tokens, /, *, mask=None):
        check_parameters(name, params, expected())
        sizes = {"m": dim}
        check_array("query", query, "floating")
        check_shape("query", query, "b t m", sizes)
        check_array("tokens", tokens, "floating")
        tokens, real = _without_padding("tokens", tokens, "b s m", mask, sizes)
        logits = apply(params, jnp.asarray(query), tokens)
        if real is None:
            return logits
        others = logits.shape[-1] - tokens.shape[1]
        around = (0, others) if behind else (others, 0)
        shown = jnp.pad(real, ((0, 0), around), constant_values=True)
        return jnp.where(shown[:, None], logits, -jnp.inf)

    return Pointer(init, framed_apply)


def _without_padding(
    name: str, x: Float[Array, "b *space m"], axes: str, mask: Any, sizes: dict[str, int]
) -> tuple[Float[Array, "b *space m"], Bool[Array, " b *space"] | None]:
    """Features with zeros in place of padding, and which are real.

    Raises:
        ValueError: features of another shape, or a mask that is none or does not fit them.
    """
    check_shape(name, x, axes, sizes)
    x = jnp.asarray(x)
    if mask is None:
        return x, None
    check_array("mask", mask, "bool")
    check_shape("mask", mask, axes.removesuffix(" m"), sizes)
    real = jnp.asarray(mask)
    return jnp.where(real[..., None], x, 0), real
