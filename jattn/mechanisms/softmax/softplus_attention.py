"""Softplus attention, LSSA (arXiv 2501.13428): softmax's exponential replaced, its sum kept.

    o_i = sum_j A_ij v_j,  A_ij = P_ij / sum_j P_ij,  P_ij = softplus( ln d ln n_i cos(q_i, k_j) )

n_i is the number of keys query i may see, d the size of a head. There is no 1 / sqrt(d): queries
and keys are of length one.

Distinctive: of softmax's two parts, a positive map and division by the sum, the second is what
matters. The factor ln n_i keeps weights as sharp in long sequences as in short ones. Alone it is no
better than softmax at lengths beyond training; `reweighted_softplus_attention` builds on it.

Limits: the first token of a causal sequence has n = 1 and a weight of one; equal keys are averaged.
Nothing changes when a query or key is stretched.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import attend
from jattn.mechanisms.frames.attention_mixer import attention_mixer, per_head
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

EPS = 1e-8  # joins the sum of a row
# softplus(SINK) is EPS: the engine's way to add a number to the sum of a row.
SINK = math.log(math.expm1(EPS))


def softplus_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    visible_keys: Int[Array, "#b #t"] | Int[Array, "#b #t #h"],
    mask=None,
) -> Float[Array, "b t h e"]:
    """Attention weighted by the softplus of scaled cosines, divided by its sum.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h; rotated
            beforehand if at all.
        visible_keys: how many keys each query may see, broadcastable to `[b, t]` or `[b, t, h]`.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, in value's dtype.

    Reference:
        arXiv 2501.13428.

    Example:
        >>> x = jnp.ones((1, 5, 4, 8))
        >>> softplus_attention(x, x, x, visible_keys=jnp.full((1, 1), 5)).shape
        (1, 5, 4, 8)
    """
    query, key = scaled_cosine(query, key, visible_keys)
    out = attend(query, key, value, mask=mask, normalizer="softplus_l1", scale=1.0, sink=SINK)
    return out.astype(value.dtype)


def scaled_cosine(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    visible_keys: Int[Array, "#b #t"] | Int[Array, "#b #t #h"],
) -> tuple[Float[Array, "b t h d"], Float[Array, "b s g d"]]:
    """Queries and keys whose products are `ln d ln n cos(q, k)`, in float32 at least."""
    query, key = unit(query), unit(key)
    count = jnp.maximum(per_head(visible_keys), 1).astype(query.dtype)
    return query * (math.log(query.shape[-1]) * jnp.log(count))[..., None], key


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """

    def core(params, query, key, value, context):
        return softplus_attention(
            query, key, value, visible_keys=context.visible_keys(), mask=context.mask
        )

    return attention_mixer(
        "softplus_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        rotary=rotary,
    )


MECHANISM = Mechanism(
    name="softplus_attention",
    title="Softplus attention (LSSA)",
    arxiv="2501.13428",
    family="softmax",
    equation="o_i = sum_j P_ij v_j / sum_j P_ij, P_ij = softplus(ln d ln n_i cos(q_i, k_j))",
    core=softplus_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
)
