"""Sigmoid attention (Ramapuram et al. 2024, arXiv 2409.04431): weights that do not compete.

    o_i = sum_j sigmoid( q_i . k_j / sqrt(d) + b_i ) v_j,   b_i = -ln(n_i)

n_i is the number of keys query i may see, so that at small scores the weights sum to about one, as
softmax's do; the paper takes the sequence length n for all, which `bias=-log(n)` restores. With n_i
a causal model gives the same numbers token by token as all at once, and padding changes nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend
from jattn.checks import check_number
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer


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


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    bias: float | None = None,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        bias: added to all scores; default minus the log of the number of keys the query may see.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    if bias is not None:
        check_number("bias", bias)

    def core(params, query, key, value, context):
        # The floor is for queries before all real tokens; they see nothing whatever the bias.
        visible_keys = jnp.swapaxes(context.visible_keys(), 1, 2)
        by_count = -jnp.log(jnp.maximum(visible_keys, 1))[..., None]
        own = by_count if bias is None else bias
        return sigmoid_attention(query, key, value, bias=own, mask=context.mask)

    return attention_mixer(
        "sigmoid_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        kv_heads=kv_heads,
        core=core,
        rotary=rotary,
    )


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
    equivariant=True,
)
