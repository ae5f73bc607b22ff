"""Sigmoid attention (Ramapuram et al. 2024, arXiv 2409.04431): weights that do not compete.

    o_i = sum_j sigmoid( q_i . k_j / sqrt(d) + b_i ) v_j,   b_i = -ln(n_i)

n_i is the number of keys query i may see, so that at small scores the weights sum to about one, as
softmax's do; the paper takes the sequence length n for all. With n_i a causal model gives the same
numbers token by token as all at once, and padding changes nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mechanism, Mixer


def sigmoid_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    bias: Array | float,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Attention with an elementwise sigmoid in place of softmax.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h.
        bias: added to scores; the paper's is minus the log of the number of keys.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`.

    Reference:
        arXiv 2409.04431.

    Example:
        >>> x = jnp.ones((1, 5, 4, 8))
        >>> sigmoid_attention(x, x, x, bias=-jnp.log(5.0)).shape
        (1, 5, 4, 8)
    """
    return attend(query, key, value, bias=bias, mask=mask, normalizer="sigmoid")


def make(*, dim: int, heads: int, causal: bool = False, kv_heads: int | None = None) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4)
        >>> params = mixer.init(jax.random.key(0))
        >>> mixer.apply(params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    kv_heads = heads if kv_heads is None else kv_heads
    p.check_heads(dim, heads, kv_heads)

    def project(params, x, context):
        query = p.split_heads(p.linear(x, params["query"]), heads)
        key = p.split_heads(p.linear(context, params["key"]), kv_heads)
        value = p.split_heads(p.linear(context, params["value"]), kv_heads)
        return query, key, value

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        context = p.check_tokens(dim, x, context, positions)
        batch, length = context.shape[:2]
        # Only padding is counted: a mask of another kind hides keys but does not change n.
        real = jnp.ones((batch, length), bool)
        if getattr(mask, "ndim", None) == 2:
            real = jnp.asarray(p.padding(mask, batch, length))
        count = real.sum(1, keepdims=True)
        if causal:
            count = jnp.cumsum(real, 1)[:, jnp.minimum(jnp.arange(x.shape[1]), length - 1)]
        bias = -jnp.log(jnp.maximum(count, 1).astype(jnp.float32))[:, None, :, None]
        mixed = sigmoid_attention(
            *project(params, x, context),
            bias=bias,
            mask=p.attention_mask(mask, batch, length, causal=causal),
        )
        return p.linear(p.merge_heads(mixed), params["output"])

    def init_state(params, batch_size, max_length):
        return p.key_value_cache(batch_size, max_length, kv_heads, dim // heads)

    def step(params, x, state):
        query, key, value = project(params, x[:, None], x[:, None])
        state = state.append(key[:, 0], value[:, 0])
        mixed = sigmoid_attention(
            query,
            state.key.astype(x.dtype),
            state.value.astype(x.dtype),
            bias=-jnp.log(state.position.astype(jnp.float32))[None, None, None, None],
            mask=state.filled,
        )
        return p.linear(p.merge_heads(mixed), params["output"])[:, 0], state

    def init(key):
        return p.qkvo_init(key, dim, heads, kv_heads=kv_heads)

    return Mixer(init, apply, init_state, step) if causal else Mixer(init, apply)


MECHANISM = Mechanism(
    name="sigmoid_attention",
    title="Theory, analysis, and best practices for sigmoid self-attention",
    arxiv="2409.04431",
    family="softmax",
    equation="o_i = sum_j sigmoid(q_i.k_j / sqrt(d) - ln n_i) v_j",
    core=sigmoid_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
)
