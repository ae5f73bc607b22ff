"""What mechanisms share around their cores: projections, heads, padding, caches."""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import masks
from jattn.checks import check_shape


def linear_init(key: jax.Array, inputs: int, outputs: int) -> Float[Array, "inputs outputs"]:
    """Weights of a linear map without bias: U(-1/sqrt(inputs), 1/sqrt(inputs)).

    Parameters have JAX's default float type, float32; computations follow the tokens' dtype.
    """
    bound = inputs**-0.5
    return jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound)


def qkvo_init(
    key: jax.Array,
    dim: int,
    heads: int,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
) -> dict[str, Float[Array, "..."]]:
    """Query, key, value and output projections, as `{"query", "key", "value", "output"}`.

    Args:
        key: a PRNG key.
        dim: model dimension m.
        heads: query heads h.
        kv_heads: key and value heads g; default h.
        head_dim: dimension d of a head; default m / h.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    head_dim = dim // heads if head_dim is None else head_dim
    keys = jax.random.split(key, 4)
    return {
        "query": linear_init(keys[0], dim, heads * head_dim),
        "key": linear_init(keys[1], dim, kv_heads * head_dim),
        "value": linear_init(keys[2], dim, kv_heads * head_dim),
        "output": linear_init(keys[3], heads * head_dim, dim),
    }


class Convolved(NamedTuple):
    """Weights of a linear map and, on what it gives, of a causal convolution of each channel.

    Attributes:
        weight: `[inputs, outputs]`.
        taps: one filter a channel, the last tap for the current token, `[width, outputs]`.
        past: the width - 1 tokens before the first one; None where there are none.
    """

    weight: Float[Array, "inputs outputs"]
    taps: Float[Array, "width outputs"]
    past: Float[Array, "b before inputs"] | None = None

    @property
    def dtype(self) -> Any:
        """That of the weights."""
        return self.weight.dtype


def linear(
    x: Float[Array, "*batch inputs"], weights: Float[Array, "inputs outputs"] | Convolved
) -> Float[Array, "*batch outputs"]:
    """`x W`, in x's dtype; `Convolved` weights are for `[b, t, inputs]` or one token a row."""
    if not isinstance(weights, Convolved):
        return x @ weights.astype(x.dtype)
    if x.ndim == 2:  # one token
        return linear(x[:, None], weights)[:, 0]
    before = len(weights.taps) - 1
    if weights.past is None:
        padded = jnp.pad(x, ((0, 0), (before, 0), (0, 0)))
    else:
        padded = jnp.concatenate([weights.past.astype(x.dtype), x], axis=1)
    y = padded @ weights.weight.astype(x.dtype)
    taps = weights.taps.astype(x.dtype)
    shifted = [y[:, tap : tap + x.shape[1]] * taps[tap] for tap in range(before + 1)]
    return functools.reduce(operator.add, shifted)


def depthwise(
    x: Float[Array, "b *space c"],
    weight: Float[Array, "*taps c"],
    bias: Float[Array, " c"] | None = None,
) -> Float[Array, "b *space c"]:
    """A convolution of each channel by itself, zeros around, along one axis or two."""
    axes = "YX"[4 - x.ndim :]
    out = lax.conv_general_dilated(
        x,
        weight[..., None, :].astype(x.dtype),
        window_strides=(1,) * len(axes),
        padding="SAME",
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=x.shape[-1],
    )
    return out if bias is None else out + bias.astype(x.dtype)


def split_heads(x: Float[Array, "*batch hd"], heads: int) -> Float[Array, "*batch h d"]:
    """`[..., h d] -> [..., h, d]`."""
    return x.reshape(*x.shape[:-1], heads, -1)


def merge_heads(x: Float[Array, "*batch h d"]) -> Float[Array, "*batch hd"]:
    """`[..., h, d] -> [..., h d]`."""
    return x.reshape(*x.shape[:-2], -1)


def qkv(
    params: dict[str, Any],
    x: Float[Array, "b t m"],
    context: Float[Array, "b s m"],
    heads: int,
    kv_heads: int,
) -> tuple[Float[Array, "b t h d"], Float[Array, "b s g d"], Float[Array, "b s g e"]]:
    """Queries of x, keys and values of the context, split into heads."""
    return (
        split_heads(linear(x, params["query"]), heads),
        split_heads(linear(context, params["key"]), kv_heads),
        split_heads(linear(context, params["value"]), kv_heads),
    )


def project_out(
    params: dict[str, Any], merged: Float[Array, "*batch he"]
) -> Float[Array, "*batch m"]:
    """Merged heads projected back to the model dimension.

    A combinator that wants the heads themselves takes `output` out of params, so every mixer that
    ends here can be combined.
    """
    return linear(merged, params["output"]) if "output" in params else merged


def output(params: dict[str, Any], mixed: Float[Array, "*batch h e"]) -> Float[Array, "*batch m"]:
    """Heads merged and projected back to the model dimension; see `project_out`."""
    return project_out(params, merge_heads(mixed))


def rms_norm(
    x: Float[Array, "*batch d"], weight: Float[Array, " d"] | None = None, *, eps: float = 1e-6
) -> Float[Array, "*batch d"]:
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis, computed in float32 at least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide * lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + eps)
    return (wide if weight is None else wide * weight).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*batch d"],
    scale: Float[Array, " d"],
    shift: Float[Array, " d"],
    *,
    eps: float = 1e-6,
) -> Float[Array, "*batch d"]:
    """`scale * (x - mean(x)) / sqrt(var(x) + eps) + shift`, computed in float32 at least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, -1, keepdims=True)
    wide = wide * lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + eps)
    return (scale * wide + shift).astype(x.dtype)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, 1 at least.

    Example:
        >>> largest_divisor(12, 5)
        4
    """
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)


def check_heads(dim: int, heads: int, kv_heads: int | None = None) -> None:
    """Checks that heads divide the model dimension, and key-value heads the heads.

    Raises:
        ValueError: they do not.
    """
    if heads < 1 or dim < 1 or dim % heads:
        raise ValueError(f"heads: expected a divisor of dim={dim}, got {heads}")
    if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
        raise ValueError(f"kv_heads: expected a divisor of heads={heads}, got {kv_heads}")


def check_tokens(
    dim: int, x: Array, context: Array | None = None, positions: Array | None = None
) -> Array:
    """Checks a mixer's input, and returns what it attends to: the context, or x itself.

    Raises:
        ValueError: a shape that does not fit.
    """
    sizes = {"m": dim}
    check_shape("x", x, "b t m", sizes)
    if positions is not None:
        check_shape("positions", positions, "b t", sizes)
    if context is None:
        return x
    check_shape("context", context, "b s m", sizes)
    return context


def no_context(name: str, context: Array | None) -> None:
    """Refuses a context.

    Raises:
        ValueError: there is one.
    """
    if context is not None:
        raise ValueError(f"context: {name} mixes x with itself only; expected None")


def padding(mask: Any, batch: int, length: int) -> Bool[Array, "b s"] | None:
    """The padding mask of a mechanism that takes no other: None, or bool `[b, s]`, True = real.

    Raises:
        ValueError: another kind of mask.
    """
    if mask is None:
        return None
    if isinstance(mask, masks.Mask) or jnp.ndim(mask) != 2:
        got = type(mask).__name__ if isinstance(mask, masks.Mask) else f"{jnp.ndim(mask)} axes"
        raise ValueError(f"mask: expected a bool padding mask [b, s] (True = real), got {got}")
    check_shape("mask", mask, "b s", {"b": batch, "s": length})
    return jnp.asarray(mask, bool)


def real_tokens(mask: Any, batch: int, length: int) -> Bool[Array, "b s"] | None:
    """Which tokens are real, by a mask that `attention_mask` takes; None if it is no padding mask.

    Args:
        mask: None, bool `[b, s]` (True = real), a `Mask`, or bool `[b, h, t, s]`.
        batch: b.
        length: s.
    """
    if mask is None or isinstance(mask, masks.Mask) or jnp.ndim(mask) != 2:
        return None
    return padding(mask, batch, length)


def attention_mask(mask: Any, batch: int, length: int, *, causal: bool) -> Any:
    """A mask for `attend`: of padding `[b, s]`, or any that `attend` takes, and causality.

    Args:
        mask: None, bool `[b, s]` (True = real), a `Mask`, or bool `[b, h, t, s]`.
        batch: b.
        length: s.
        causal: whether keys after the query are hidden, too.
    """
    future = masks.causal() if causal else None
    if mask is None:
        return future
    if not isinstance(mask, masks.Mask):
        if jnp.ndim(mask) == 2:
            check_shape("mask", mask, "b s", {"b": batch, "s": length})
            mask = jnp.asarray(mask, bool)[:, None, None]
        mask = masks.from_array(mask)
    return mask if future is None else mask & future


class KeyValueCache(NamedTuple):
    """Keys and values of the tokens so far, in a buffer of fixed length.

    Attributes:
        key: `[b, s, gk, d]`.
        value: `[b, s, gv, e]`.
        position: how many tokens are in it.
    """

    key: Float[Array, "b s gk d"]
    value: Float[Array, "b s gv e"]
    position: Int[Array, ""]

    def append(self, key: Float[Array, "b gk d"], value: Float[Array, "b gv e"]) -> "KeyValueCache":
        """The cache with one more token. A token too many becomes NaN, and so does what sees it."""
        # Under jit nothing can be raised, and an update past the end would replace the last token.
        fits = self.position < self.key.shape[1]
        put = lambda buffer, x: lax.dynamic_update_slice_in_dim(
            buffer, jnp.where(fits, x, jnp.nan)[:, None].astype(buffer.dtype), self.position, axis=1
        )
        return KeyValueCache(put(self.key, key), put(self.value, value), self.position + 1)

    @property
    def filled(self) -> Bool[Array, "1 1 1 s"]:
        """Which entries hold tokens, as a mask for `attend`."""
        return (jnp.arange(self.key.shape[1]) < self.position)[None, None, None]


def key_value_cache(key: Any, value: Any, length: int) -> KeyValueCache:
    """An empty cache for `length` tokens.

    Args:
        key: what the keys of one token are like: an array or `jax.ShapeDtypeStruct` `[b, 1, g, d]`.
        value: the same of values, `[b, 1, g, e]`.
        length: s.
    """
    empty = lambda one: jnp.zeros((one.shape[0], length, *one.shape[2:]), one.dtype)
    return KeyValueCache(empty(key), empty(value), jnp.zeros((), jnp.int32))
