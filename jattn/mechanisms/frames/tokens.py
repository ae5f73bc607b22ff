"""Tokens and masks as mixers take them: padding cleaned, documents in runs.

A mechanism says what kinds of masks it can honour, and is never given another:

    "any"         whatever `jattn.attend` takes; it hides keys only
    "padding"     real tokens and others; where they stand does not matter
    "documents"   padding, and packed documents, which come one behind the other, as runs
    "row"         padding; its arithmetic goes by index, so real tokens are brought to the front
    "rows"        both

Padding is never computed with: its tokens are zeros, whatever was in them, so nothing of them
reaches an output or a gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import masks
from jattn.attention.mask_parts import conjuncts, is_of_keys, layout
from jattn.checks import check_shape
from jattn.mechanisms.frames.checks import check_tokens

KINDS = ("any", "padding", "documents", "row", "rows")
PADDING = "padding, a bool [b, s] (True = real), jattn.masks.padding(real) or jattn.masks.prefix(n)"


class Given(NamedTuple):
    """Arguments of a mixer, checked and laid out.

    Attributes:
        x: the tokens that ask, `[b, t, m]`.
        source: the tokens that are looked at, x or a context, `[b, s, m]`.
        mask: for `attend`, without causality; None hides nothing. For `"any"` only.
        real: which tokens of the source are no padding, `[b, s]`; None: all are. For `"any"` it is
            part of the mask.
        starts: where a document begins, `[b, s]`; None: there is one.
        positions: `[b, t]`, or None.
        key: for random numbers, or None.
        crossed: whether the source is a context.
    """

    x: Float[Array, "b t m"]
    source: Float[Array, "b s m"]
    mask: masks.Mask | None
    real: Bool[Array, "b s"] | None
    starts: Bool[Array, "b s"] | None
    positions: Int[Array, "b t"] | None
    key: jax.Array | None
    crossed: bool


def lay_out(
    name: str,
    x: Float[Array, "b t m"],
    context: Float[Array, "b s m"] | None,
    mask: Any,
    positions: Int[Array, "b t"] | None,
    key: jax.Array | None,
    *,
    takes: str,
    causal: bool,
) -> tuple[Given, Int[Array, "b t"] | None]:
    """Tokens as a mixer that takes such masks wants them, and how to put its outputs back.

    Args:
        name: the mechanism's name, for messages.
        x, context, mask, positions, key: what `apply` was given, checked but for the mask.
        takes: one of `KINDS`.
        causal: whether the mixer is.

    Returns:
        What the mixer is given, and which of its outputs belongs to each token; None where they
        are in order.

    Raises:
        ValueError: a mask that it cannot honour.
    """
    crossed = context is not None
    source = jnp.asarray(context) if crossed else x
    b, t, s = source.shape[0], x.shape[1], source.shape[1]
    mask = sequence_mask(mask, b, t, s)
    found = layout(mask, s)
    real = None if found.real is None else jnp.broadcast_to(found.real, (b, s))
    if takes == "any":
        if mask is not None:
            source = hide_padding(source, mask)
            x = x if crossed else source
        return Given(x, source, mask, real, None, positions, key, crossed), None
    packs = takes in ("documents", "rows")
    documents = None if crossed or not packs else found.documents
    refused = list(found.rest)
    if (found.causal and not causal) or (found.documents is not None and documents is None):
        refused.append(mask)
    if refused:
        also = " and documents, jattn.masks.segments(ids)" if packs else ""
        one = "expected" if not crossed else "with a context expected"
        raise ValueError(f"mask: {name} {one} {PADDING}{also}; got {_described(mask)}")
    if real is not None:
        source = jnp.where(real[..., None], source, 0)
        x = x if crossed else source
    starts = back = None
    by_index = takes in ("row", "rows") and real is not None and not found.ends
    move = documents is not None or by_index
    if move:
        order = in_order(real, documents, b, s)
        if documents is not None:
            index = jnp.broadcast_to(jnp.arange(s), (b, s)) if positions is None else positions
            positions = jnp.take_along_axis(index, order, 1)
            number = jnp.take_along_axis(jnp.broadcast_to(documents, (b, s)), order, 1)
            starts = number != jnp.pad(number, ((0, 0), (1, 0)))[:, :-1]
            starts = starts.at[:, 0].set(True)
        elif positions is not None:
            positions = jnp.take_along_axis(positions, order, 1)
        source = take_tokens(source, order)
        real = None if real is None else jnp.take_along_axis(real, order, 1)
        if not crossed:
            x, back = source, jnp.argsort(order, axis=1)
    return Given(x, source, None, real, starts, positions, key, crossed), back


def in_order(
    real: Bool[Array, "b s"] | None, documents: Int[Array, "b s"] | None, b: int, s: int
) -> Int[Array, "b s"]:
    """Real tokens before padding, those of a document together, otherwise as they came."""
    order = jnp.broadcast_to(jnp.arange(s), (b, s))
    if documents is not None:
        order = jnp.argsort(jnp.broadcast_to(documents, (b, s)), axis=1, stable=True)
    if real is not None:
        padding = ~jnp.take_along_axis(real, order, 1)
        order = jnp.take_along_axis(order, jnp.argsort(padding, axis=1, stable=True), 1)
    return order


def take_tokens(x: Float[Array, "b s m"], order: Int[Array, "b s"]) -> Float[Array, "b s m"]:
    """Tokens of each row in another order."""
    return jnp.take_along_axis(x, order[..., None], axis=1)


def sequence_mask(mask: Any, b: int, t: int, s: int) -> masks.Mask | None:
    """Turns what a mixer was given as a mask into a `Mask`. Two axes are read here only.

    Two axes are padding, `[b, s]`. Where b is t they may have been meant as `[t, s]`, and are
    refused.

    Args:
        mask: None, a `Mask`, a bool `[b, s]`, or a bool array that broadcasts to `[b, h, t, s]`.
        b, t, s: batch size, queries and keys.

    Raises:
        ValueError: something else.
    """
    if mask is None:
        return None
    if isinstance(mask, jax.Array | np.ndarray) and mask.ndim == 2 and mask.dtype == bool:
        if mask.shape == (t, s) != (b, s):
            raise ValueError(
                f"mask: expected shape [b={b}, s={s}], got [{t}, {s}]; [t, s] is said by "
                "jattn.masks.from_array(mask)"
            )
        check_shape("mask", mask, "b s", {"b": b, "s": s})
        if b == t > 1:
            raise ValueError(
                f"mask: [{b}, {s}] may be padding [b, s] or [t, s]; say which by "
                "jattn.masks.padding(mask) or jattn.masks.from_array(mask)"
            )
        return masks.padding(mask)
    return masks.as_mask(mask).fit(b, -1, t, s)  # of heads, `attend` knows


def hide_padding(
    tokens: Float[Array, "b s m"], mask: masks.Mask, *, keep: bool = False
) -> Float[Array, "b s m"]:
    """Tokens without what is in those that a mask hides from everybody.

    Padding becomes zeros. Tokens that other masks hide may still ask, so of those only what is not
    finite does; with `keep`, of padding too.
    """
    for part in conjuncts(mask):
        if is_of_keys(part):
            real = part.dense(1, tokens.shape[1])[:, 0, 0, :, None]
            whole = isinstance(part, masks.Padding) and not keep
            kept = real if whole else real | jnp.isfinite(tokens)
            tokens = jnp.where(kept, tokens, 0)
    return tokens


def clean_tokens(
    x: Float[Array, "b t m"], *, context: Any = None, mask: Any = None, **_: Any
) -> tuple[Float[Array, "b t m"], Bool[Array, "#b t"] | None]:
    """x as what stands beside a mixer should see it: see `hide_padding`; and which are real.

    Args:
        x, context, mask: what the mixer is given. With a context the mask is not of x.
    """
    check_tokens(None, x, context)
    if context is not None or mask is None:
        return x, None
    mask = sequence_mask(mask, x.shape[0], x.shape[1], x.shape[1])
    if mask is None:
        return x, None
    return hide_padding(x, mask), layout(mask, x.shape[1]).real


def _described(mask: Any) -> str:
    parts = conjuncts(mask)
    return " & ".join(type(part).__name__.strip("_").lower() for part in parts)
