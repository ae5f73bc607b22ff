"""L-query attention of MQSA-TED (arXiv 2311.01056): the last L tokens ask together.

    u_i = norm( mean of the real ones among x_{i-L+1} .. x_i )
    o_i = sum_{j <= i} softmax_j( u_i W_query . k_j / sqrt(d) ) v_j        k = x W_key
                                                                           v = x W_value + b
    y_i = norm( z_i + mlp(z_i) ),   z_i = norm( u_i + o_i )                the paper's layer

A short query (L = 1) sees the last step of a sequence, a long one what the sequence is about; the
paper adds what two layers say, of L = 1 and L = 3: `jattn.mechanisms.combinators.mix`. The items'
table learns from `jattn.training.distillation`.

Distinctive: only the query changes. `make` is the attention alone, for pre-norm blocks, without an
output projection, as the paper has it; `make_layer` is the paper's layer, whose residual is u.

Limits: L = 1 is softmax attention of SASRec (arXiv 1808.09781), L >= t asks with all tokens so far.

Of the paper's three biases of projections values have theirs, which adds b to every o_i. The one of
keys does nothing, and what the one of queries does, the norm's shift and b do together.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.attention import attend, masks
from jattn.checks import check_count, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.key_value_cache import KeyValueCache, key_value_cache
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import layer_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Params, Parts, last_tokens


def window_mean(
    x: Float[Array, "b t m"],
    length: int,
    mask: Bool[Array, "#b t"] | None = None,
    documents: Int[Array, "b t"] | None = None,
) -> Float[Array, "b t m"]:
    """The mean of each token and the length - 1 before it, of those that are real.

    Args:
        x: tokens `[b, t, m]`.
        length: L.
        mask: True = a real token; where a window holds none, the mean is 0.
        documents: the number of each token's document, the only one its window looks at; those of
            a document stand together.

    Returns:
        `[b, t, m]`, in x's dtype; summed in float32 at least.

    Raises:
        ValueError: a shape that does not fit, or a length below 1.

    Reference:
        arXiv 2311.01056.

    Example:
        >>> x = jnp.array([8.0, 2.0, 4.0, 0.0])[None, :, None]
        >>> window_mean(x, 2)[0, :, 0].tolist()
        [8.0, 5.0, 3.0, 2.0]
        >>> window_mean(x, 3, jnp.array([[False, True, True, True]]))[0, :, 0].tolist()
        [0.0, 2.0, 3.0, 2.0]
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "b t m", sizes)
    check_count("length", length)
    t = sizes["t"]
    real = jnp.ones((1, t), bool) if mask is None else jnp.asarray(mask, bool)
    check_shape("mask", real, "one_or_b t", {"t": t})
    wide = jnp.promote_types(x.dtype, jnp.float32)
    span = max(min(length, t), 1)

    def summed(values):
        window, strides = (1, span, 1), (1, 1, 1)
        before = ((0, 0), (span - 1, 0), (0, 0))
        # A constant zero: with one that is traced it would have no gradient.
        return lax.reduce_window(values, wide.type(0), lax.add, window, strides, before)

    def summed_by_document(values, documents):
        def add(total, back):
            index = jnp.maximum(jnp.arange(t) - back, 0)
            own = (documents[:, index] == documents) & (jnp.arange(t) >= back)
            return total + jnp.where(own[..., None], values[:, index], 0), None

        return lax.scan(add, jnp.zeros_like(values), jnp.arange(span))[0]

    real = real[..., None]
    if documents is not None:
        real = jnp.broadcast_to(real, (*documents.shape, 1))
        summed = functools.partial(summed_by_document, documents=documents)
    total = summed(jnp.where(real, x, 0).astype(wide))
    return (total / jnp.maximum(summed(real.astype(wide)), 1)).astype(x.dtype)


class WindowState(NamedTuple):
    """State of a step: what it needs of the tokens before it.

    Attributes:
        cache: their keys and values.
        recent: the last L - 1 of them, `[b, L - 1, m]`, zeros in front of the first.
    """

    cache: KeyValueCache
    recent: Float[Array, "b n m"]


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = True,
    kv_heads: int | None = None,
    query_window: int = 3,
) -> Mixer:
    """Makes the mixer; the norm of its queries is `query_scale` and `query_shift`, `[m]`.

    The bias of its values is `value_bias`, `[g d]`.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens; there is no other form.
        kv_heads: key-value heads g, a divisor of h; default h. Without an output projection,
            a head's values are as they come.
        query_window: tokens L that ask together.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, query_window=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> sorted(params), jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (['key', 'query', 'query_scale', 'query_shift', 'value', 'value_bias'], (1, 6, 32))
    """
    if causal is not True:
        raise ValueError("causal: window_query_attention has only a causal form; pass causal=True")
    return _mixer(dim, heads, kv_heads, query_window, lambda key: {}, lambda params, o, u: o)


def make_layer(*, dim: int, heads: int, query_window: int = 3, hidden: int | None = None) -> Mixer:
    """Makes the paper's layer, causal: attention and an MLP, with its own residuals and norms.

    It takes the place of a block: nothing is to be added to what it gives. On top of the mixer's
    parameters it has `up`, `up_bias`, `down`, `down_bias`, and `scale` and `shift` of its norms.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        query_window: tokens L that ask together.
        hidden: inner size of the MLP; default m.

    Raises:
        ValueError: a size that does not fit.

    Reference:
        arXiv 2311.01056.

    Example:
        >>> layer = make_layer(dim=16, heads=1)
        >>> y = layer.apply(layer.init(jax.random.key(0)), jnp.ones((1, 6, 16)))
        >>> y.shape, bool(jnp.allclose(y.mean(-1), 0, atol=1e-5))
        ((1, 6, 16), True)
    """
    hidden = dim if hidden is None else hidden
    check_count("hidden", hidden)

    def init(key):
        up, down = jax.random.split(key)
        return {
            "up": linear_init(up, dim, hidden),
            "up_bias": jnp.zeros(hidden),
            "down": linear_init(down, hidden, dim),
            "down_bias": jnp.zeros(dim),
            "scale": jnp.ones((2, dim)),
            "shift": jnp.zeros((2, dim)),
        }

    def finish(params, out, u):
        norm = lambda x, i: layer_norm(x, params["scale"][i], params["shift"][i])
        z = norm(out + u, 0)
        inner = jax.nn.relu(linear(z, params["up"]) + params["up_bias"].astype(z.dtype))
        z += linear(inner, params["down"]) + params["down_bias"].astype(z.dtype)
        return norm(z, 1)

    return _mixer(dim, heads, None, query_window, init, finish)


def _mixer(
    dim: int,
    heads: int,
    kv_heads: int | None,
    query_window: int,
    init: Callable[[jax.Array], Params],
    finish: Callable[[Params, Array, Array], Array],
) -> Mixer:
    """The mixer y = finish(params, o, u), o the attention's merged heads."""
    kv_heads = heads if kv_heads is None else kv_heads
    check_heads(dim, heads, kv_heads)
    check_count("query_window", query_window)

    def init_all(key):
        shared, own = jax.random.split(key)
        params = qkvo_init(shared, dim, heads, kv_heads=kv_heads)
        del params["output"]
        params |= {"query_scale": jnp.ones(dim), "query_shift": jnp.zeros(dim)}
        return params | {"value_bias": jnp.zeros(params["value"].shape[1])} | init(own)

    def normed(params, mean):
        return layer_norm(mean, params["query_scale"], params["query_shift"])

    def heads_of(parts, params, u, x):
        maps = parts.project(params, u, x)
        value = maps["value"] + params["value_bias"].astype(x.dtype)
        return split_qkv(maps | {"value": value}, heads, kv_heads)

    def apply(parts, params, given):
        x, mask, documents = given.x, masks.causal(), None
        if given.real is not None:
            mask = mask & masks.padding(given.real)
        if given.starts is not None:
            documents = jnp.cumsum(given.starts, axis=1)
            mask = mask & masks.segments(documents)
        u = normed(params, window_mean(x, query_window, given.real, documents))
        out = attend(*heads_of(parts, params, u, x), mask=mask)
        return parts.output(params, merge_heads(out), u)

    def init_state(parts, params, batch_size, max_length, dtype):
        one = jax.ShapeDtypeStruct((batch_size, 1, kv_heads, dim // heads), dtype)
        # Windows longer than the sequence hold all of it.
        before = min(query_window, max_length) - 1
        recent = jnp.zeros((batch_size, before, dim), dtype)
        return WindowState(key_value_cache(one, one, max_length), recent)

    def step(parts, params, x, state):
        window = jnp.concatenate([state.recent, x[:, None].astype(state.recent.dtype)], axis=1)
        count = jnp.minimum(state.cache.position + 1, window.shape[1])
        u = normed(params, (window.sum(1, keepdims=True) / count).astype(x.dtype))
        query, key, value = heads_of(parts, params, u, x[:, None])
        cache = state.cache.append(key[:, 0], value[:, 0])
        out = attend(
            query, cache.key.astype(x.dtype), cache.value.astype(x.dtype), mask=cache.filled()
        )
        y = parts.output(params, merge_heads(out), u)[:, 0]
        return y, WindowState(cache, window[:, 1:])

    def prefill(parts, params, x, state, length):
        u = normed(params, window_mean(x, query_window))
        query, key, value = heads_of(parts, params, u, x)
        out = attend(query, key, value, mask=masks.causal())
        cache, recent = state.cache.fill(key, value, length), last_tokens(state.recent, x, length)
        return parts.output(params, merge_heads(out), u), WindowState(cache, recent)

    return framed_parts(
        "window_query_attention",
        Parts(project_qkv, None, finish),
        dim=dim,
        init=init_all,
        apply=apply,
        init_state=init_state,
        step=step,
        prefill=prefill,
        takes="rows",
        causal=True,
    )


MECHANISM = Mechanism(
    name="window_query_attention",
    title="MQSA-TED: queries of the last L tokens together",
    arxiv="2311.01056",
    family="softmax",
    equation="o_i = sum_{j<=i} softmax_j(norm(mean(x_{i-L+1}..x_i)) W_q . k_j / sqrt(d)) v_j",
    core=window_mean,
    make=make,
    causal=True,
    bidirectional=False,
    cross=False,
    streaming=True,
    cost="quadratic",
    parameters=("query_scale", "query_shift", "value_bias"),
    absent=("output",),
)
