"""DiffQKV attention (Sigma, arXiv 2501.13629): queries, keys and values differ in number and size.

    o_i = sum_j softmax_j( q_i . k_j / sqrt(d) ) v_j,  head i of n_q: key head i n_k // n_q and
                                                       value head i n_v // n_q

Keys bear compression better than values: few key heads (`key_heads`), more value heads
(`value_heads`), and keys cached at half the size of a head (`compress_keys`), led back by a linear
map before the product. What that saves pays for larger queries (`query_hidden`).

Distinctive: the cache of a token has n_k d_k + n_v d_v numbers, `cache_size`; Sigma's 4 key heads
and 16 value heads take 37.5% less than 16 of both.

Limits: n_k = n_v = n_q is multi-head attention, 1 multi-query, n_k = n_v grouped-query attention.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.checks import check_choice, check_count, check_flag
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.layers.heads import split_heads
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_heads, largest_divisor
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

ACTIVATIONS = {"silu": jax.nn.silu, "none": lambda x: x}


def diffqkv_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s gk d"],
    value: Float[Array, "b s gv e"],
    *,
    top_values: int | None = None,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention with numbers of key and value heads of their own.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, gk, d]`, gk a divisor of h.
        value: `[b, s, gv, e]`, gv a divisor of h; neither of gk and gv needs to divide the other.
        top_values: fetch values of so many keys only, those of the largest weights, and leave the
            weights as they are; the error is at most the sum of the weights left out times the
            largest value. For decoding with a long cache; None fetches all.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: numbers that do not fit.

    Reference:
        arXiv 2501.13629.

    Example:
        >>> x = jnp.ones((1, 5, 6, 8))
        >>> diffqkv_attention(x, x[:, :, :2], x[:, :, :3]).shape
        (1, 5, 6, 8)
    """
    if top_values is None:
        return attend(query, key, value, mask=mask)
    if top_values < 1:
        raise ValueError(f"top_values: expected at least 1, got {top_values}")
    # The weights themselves are needed, to choose by; values are not read for them.
    _, weights = attend(query, key, value[..., :1], mask=mask, return_weights=True)
    kept, index = lax.top_k(weights, min(top_values, key.shape[1]))
    heads, groups = query.shape[2], value.shape[2]

    def fetch(value, index):  # `[s, e]`, `[h / g, t, k] -> [h / g, t, k, e]`
        return value[index]

    b, _, t, k = index.shape
    index = index.reshape(b, groups, heads // groups, t, k)
    rows = jax.vmap(jax.vmap(fetch))(jnp.swapaxes(value, 1, 2), index)
    rows = rows.reshape(b, heads, t, k, -1)
    # A key without weight may be hidden, and its value anything.
    rows = jnp.where(kept[..., None] > 0, rows, 0)
    return jnp.einsum("bhtk,bhtke->bthe", kept, rows).astype(query.dtype)


def augmented_query(
    x: Float[Array, "b t m"],
    down: Float[Array, "m a"],
    up: Float[Array, "a hd"],
    *,
    activation: str = "silu",
) -> Float[Array, "b t hd"]:
    """Queries `act(x W_1) W_2` of all heads, by way of a size a of their own.

    Args:
        x: tokens.
        down: W_1.
        up: W_2.
        activation: `"silu"` or `"none"`; the paper does not say which.

    Returns:
        `[b, t, h d]`.

    Raises:
        ValueError: an unknown activation.

    Reference:
        arXiv 2501.13629, augmented Q.

    Example:
        >>> augmented_query(jnp.ones((1, 2, 4)), jnp.ones((4, 6)), jnp.ones((6, 8))).shape
        (1, 2, 8)
    """
    check_choice("activation", activation, list(ACTIVATIONS))
    return linear(ACTIVATIONS[activation](linear(x, down)), up)


def cache_size(key_heads: int, value_heads: int, key_dim: int, value_dim: int) -> int:
    """Numbers that a cache keeps for each token.

    Example:
        >>> 1 - cache_size(4, 16, 64, 64) / cache_size(16, 16, 64, 64)
        0.375
    """
    return key_heads * key_dim + value_heads * value_dim


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    key_heads: int | None = None,
    value_heads: int | None = None,
    compress_keys: bool = False,
    query_hidden: int | None = None,
    activation: str = "silu",
    top_values: int | None = None,
    rotary: bool = False,
    window: int | None = None,
) -> Mixer:
    """Makes the mixer. A head's size is d = dim / heads.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        key_heads: key heads, a divisor of h; default the largest one up to h / 8, as in Sigma.
        value_heads: value heads, a divisor of h; default the largest one up to h / 2, as in Sigma.
        compress_keys: project keys to d / 2, cache them so, and lead them back to d by a matrix of
            each key head, `key_up`, before any rotation.
        query_hidden: size a of `augmented_query`, 1.5 m in the paper, with parameters `query`
            `[m, a]` and `query_up` `[a, m]`; default None, one plain projection.
        activation: of `augmented_query`.
        top_values: see `diffqkv_attention`.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=8, causal=True, key_heads=2, value_heads=4)
        >>> params = mixer.init(jax.random.key(0))
        >>> state = mixer.init_state(params, 1, 6)
        >>> state.key.shape, state.value.shape
        ((1, 6, 2, 4), (1, 6, 4, 4))
    """
    check_heads(dim, heads)
    size = dim // heads
    key_heads = largest_divisor(heads, heads // 8) if key_heads is None else key_heads
    value_heads = largest_divisor(heads, heads // 2) if value_heads is None else value_heads
    for name, count in (("key_heads", key_heads), ("value_heads", value_heads)):
        check_count(name, count, 0)
        if count < 1 or heads % count:
            raise ValueError(f"{name}: expected a divisor of heads={heads}, got {count}")
    check_flag("compress_keys", compress_keys)
    if compress_keys and size % 2:
        raise ValueError(f"compress_keys: needs an even dim / heads, got {dim} / {heads} = {size}")
    for name, number in (("query_hidden", query_hidden), ("top_values", top_values)):
        if number is not None:
            check_count(name, number)
    check_choice("activation", activation, list(ACTIVATIONS))
    key_size = size // 2 if compress_keys else size

    def init(key):
        keys = jax.random.split(key, 5)
        own = {
            "key": linear_init(keys[0], dim, key_heads * key_size),
            "value": linear_init(keys[1], dim, value_heads * size),
        }
        if compress_keys:
            ups = jax.random.split(keys[2], key_heads)
            own["key_up"] = jax.vmap(lambda k: linear_init(k, key_size, size))(ups)
        if query_hidden is not None:
            own["query"] = linear_init(keys[3], dim, query_hidden)
            own["query_up"] = linear_init(keys[4], query_hidden, dim)
        return own

    def prepare(params, maps, x, source):
        query = maps["query"]
        if query_hidden is not None:
            query = linear(ACTIVATIONS[activation](query), params["query_up"])
        return (
            split_heads(query, heads),
            split_heads(maps["key"], key_heads),
            split_heads(maps["value"], value_heads),
        )

    def expand(params, key):
        return jnp.einsum("bsgc,gcd->bsgd", key, params["key_up"].astype(key.dtype))

    def core(params, query, key, value, context):
        return diffqkv_attention(query, key, value, top_values=top_values, mask=context.mask)

    return attention_mixer(
        "diffqkv_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        init=init,
        prepare=prepare,
        expand=expand if compress_keys else None,
        rotary=rotary,
        window=window,
    )


MECHANISM = Mechanism(
    name="diffqkv_attention",
    title="Sigma: DiffQKV attention",
    arxiv="2501.13629",
    family="softmax",
    equation="o_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j, fewer key heads than value heads",
    core=diffqkv_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
)
