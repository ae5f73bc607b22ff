"""Convolutions of tokens and images."""

import functools
import operator

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


def depthwise(
    x: Float[Array, "b *space c"],
    weight: Float[Array, "*taps c"],
    bias: Float[Array, " c"] | None = None,
) -> Float[Array, "b *space c"]:
    """A convolution of each channel by itself, zeros around, along one axis or more.

    A sum of shifted products: XLA divides the gradient of a grouped convolution wrongly among
    devices, and is slow at it on a CPU.
    """
    widths = weight.shape[:-1]
    around = [((width - 1) // 2, width // 2) for width in widths]
    padded = jnp.pad(x, [(0, 0), *around, (0, 0)])
    weight = weight.astype(x.dtype)

    def shifted(tap):
        first = (0, *tap, 0)
        end = [start + size for start, size in zip(first, x.shape, strict=True)]
        return lax.slice(padded, first, end) * weight[tap]

    out = functools.reduce(operator.add, map(shifted, np.ndindex(*widths)))
    return out if bias is None else out + bias.astype(x.dtype)


def causal_depthwise(
    x: Float[Array, "b t c"],
    taps: Float[Array, "width c"],
    *,
    past: Float[Array, "b before c"] | None = None,
    documents: Int[Array, "b t"] | None = None,
) -> Float[Array, "b t c"]:
    """A convolution of each channel by itself along the tokens, which sees none ahead.

    Args:
        x: `[b, t, c]`.
        taps: one filter a channel, the last tap for the current token.
        past: the width - 1 tokens before the first one; None: zeros.
        documents: the number of each token's document, whose tokens alone the filter sees; None:
            there is one.

    Example:
        >>> causal_depthwise(jnp.arange(4.0)[None, :, None], jnp.array([[10.0], [1.0]])).ravel()
        Array([ 0.,  1., 12., 23.], dtype=float32)
    """
    before, length = len(taps) - 1, x.shape[1]
    ahead = lambda array: jnp.pad(array, [(0, 0), (before, 0)] + [(0, 0)] * (array.ndim - 2))
    padded = ahead(x) if past is None else jnp.concatenate([past.astype(x.dtype), x], axis=1)
    taps = taps.astype(x.dtype)
    shifted = [padded[:, tap : tap + length] * taps[tap] for tap in range(before + 1)]
    if documents is not None:
        padded = ahead(documents)
        same = (padded[:, tap : tap + length] == documents for tap in range(before + 1))
        shifted = [jnp.where(s[..., None], y, 0) for s, y in zip(same, shifted, strict=True)]
    return functools.reduce(operator.add, shifted)


def convolution(
    x: Float[Array, "b *space c"],
    weight: Float[Array, "*taps c n"],
    bias: Float[Array, " n"] | None = None,
) -> Float[Array, "b *space n"]:
    """A convolution of all channels over the last axes of space, zeros around.

    A sum of shifted products, as `depthwise` is.

    Args:
        x: `[b, ..., c]`.
        weight: `[width, c, n]` along the last axis of space, `[height, width, c, n]` along the last
            two; odd widths are centred.
        bias: `[n]`, or none.

    Example:
        >>> taps = jnp.array([1.0, 10.0, 0.0]).reshape(3, 1, 1)
        >>> convolution(jnp.arange(1.0, 4.0).reshape(1, 3, 1), taps).ravel().tolist()
        [10.0, 21.0, 32.0]
    """
    widths = weight.shape[:-2]
    first = x.ndim - 1 - len(widths)
    if first < 1:
        raise ValueError(
            f"x: expected {len(widths)} axes of space at least, got shape {list(x.shape)}"
        )
    around = [((width - 1) // 2, width // 2) for width in widths]
    padded = jnp.pad(x, [*[(0, 0)] * first, *around, (0, 0)])
    weight = weight.astype(x.dtype)

    def shifted(tap):
        start = (*[0] * first, *tap, 0)
        end = [begin + size for begin, size in zip(start, x.shape, strict=True)]
        return lax.slice(padded, start, end) @ weight[tap]

    out = functools.reduce(operator.add, map(shifted, np.ndindex(*widths)))
    return out if bias is None else out + bias.astype(x.dtype)
