"""Queries, keys, values and outputs of heads."""

from typing import Any

import jax
from jaxtyping import Array, Float

from jattn.mechanisms.layers.linear_maps import linear, linear_init


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


def split_heads(x: Float[Array, "*batch hd"], heads: int) -> Float[Array, "*batch h d"]:
    """`[..., h d] -> [..., h, d]`."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: Float[Array, "*batch h d"]) -> Float[Array, "*batch hd"]:
    """`[..., h, d] -> [..., h d]`."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def project_qkv(
    params: dict[str, Any], x: Float[Array, "b t m"], source: Float[Array, "b s m"]
) -> dict[str, Float[Array, "b n c"]]:
    """Linear maps `query` of x, `key` and `value` of the source: the usual part `project`."""
    return {
        "query": linear(x, params["query"]),
        "key": linear(source, params["key"]),
        "value": linear(source, params["value"]),
    }


def split_qkv(
    maps: dict[str, Array], heads: int, kv_heads: int
) -> tuple[Float[Array, "b t h d"], Float[Array, "b s g d"], Float[Array, "b s g e"]]:
    """Queries, keys and values split into heads."""
    return (
        split_heads(maps["query"], heads),
        split_heads(maps["key"], kv_heads),
        split_heads(maps["value"], kv_heads),
    )


def qkv(
    params: dict[str, Any],
    x: Float[Array, "b t m"],
    source: Float[Array, "b s m"],
    heads: int,
    kv_heads: int,
) -> tuple[Float[Array, "b t h d"], Float[Array, "b s g d"], Float[Array, "b s g e"]]:
    """Queries of x, keys and values of the source, split into heads."""
    return split_qkv(project_qkv(params, x, source), heads, kv_heads)


def project_output(
    params: dict[str, Any], merged: Float[Array, "*batch he"], x: Any = None
) -> Float[Array, "*batch m"]:
    """Merged heads projected back to the model dimension: the usual part `output`."""
    return linear(merged, params["output"])
