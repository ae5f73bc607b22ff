"""Softmax attention (Vaswani et al. 2017, arXiv 1706.03762), with shared key-value heads.

    o_i = sum_j softmax_j( q_i . k_j / sqrt(d) ) v_j

`kv_heads` g < h shares each key-value head among h / g query heads: g = h is multi-head attention,
g = 1 multi-query (arXiv 1911.02150), in between grouped-query (arXiv 2305.13245). Options add
rotary positions (arXiv 2104.09864), a sliding window, a soft cap of scores, and a learned sink
logit per head.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend, scores
from jattn.checks import check_flag, check_number
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


def softmax_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    mask=None,
    soft_cap: float | None = None,
    sink: Float[Array, " h"] | None = None,
) -> Float[Array, "b t h e"]:
    """Scaled dot-product attention.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h.
        mask: anything `jattn.attend` takes.
        soft_cap: bounds scores by `c tanh(score / c)`; None for no bound.
        sink: a logit per head that takes attention and gives nothing.

    Returns:
        `[b, t, h, e]`.

    Reference:
        arXiv 1706.03762.

    Example:
        >>> x = jnp.ones((1, 5, 4, 8))
        >>> softmax_attention(x, x[:, :, :2], x[:, :, :2]).shape
        (1, 5, 4, 8)
    """
    score_mod = None if soft_cap is None else scores.soft_cap(soft_cap)
    return attend(query, key, value, mask=mask, score_mod=score_mod, sink=sink)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    soft_cap: float | None = None,
    sink: bool = False,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        soft_cap: see `softmax_attention`.
        sink: learn a sink logit per head, from 0.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4, causal=True, kv_heads=2)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    if soft_cap is not None:
        check_number("soft_cap", soft_cap, above=0)
    check_flag("sink", sink)

    def core(params, query, key, value, context):
        return softmax_attention(
            query, key, value, mask=context.mask, soft_cap=soft_cap, sink=params.get("sink")
        )

    return attention_mixer(
        "softmax_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        kv_heads=kv_heads,
        core=core,
        init=lambda key: {"sink": jnp.zeros(heads)} if sink else {},
        rotary=rotary,
        window=window,
    )


MECHANISM = Mechanism(
    name="softmax_attention",
    title="Attention is all you need",
    arxiv="1706.03762",
    family="softmax",
    equation="o_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j",
    core=softmax_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
)
