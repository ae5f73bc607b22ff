"""Softplus attention with re-weighting, LSSAR (arXiv 2501.13428): only keys above average are kept.

    A_ij = the weights of softplus attention
    B_ij = relu( n_i A_ij - o_i )^p,  o_i = 0 for the first 3 rows, else 1
    o_i  = sum_j B_ij v_j / sum_j B_ij

n_i is the number of keys query i may see, so n_i A_ij is 1 on average. p = 15 holds at many times
the length of training; p = 3 is best at that length.

Distinctive: the more keys there are, the more of them fall below the average and out of the sum, so
attention does not thin out with length. A row without any key above average gives zeros.

Limits: p = 1 without the offset is softplus attention; p to infinity is the key of largest weight.

Two passes over the keys: the first finds the row sums. The second takes ln B as the scores of a
softmax, since a power of 15 of what is far from 1 leaves the range of floats.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jattn.attention import attend
from jattn.checks import check_count, check_number
from jattn.mechanisms.frames.attention_mixer import attention_mixer, per_head
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.mechanisms.softmax.softplus_attention import EPS, SINK, scaled_cosine

ROUNDING = 32  # units in the last place by which n A of equal keys may miss 1


def reweighted_softplus_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    visible_keys: Int[Array, "#b #t"] | Int[Array, "#b #t #h"],
    power: float | int = 15,
    free_rows: int = 3,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softplus attention whose weights are cut at the average and raised to a power.

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h; rotated
            beforehand if at all.
        visible_keys: how many keys each query may see, broadcastable to `[b, t]` or `[b, t, h]`.
        power: p, at least 1.
        free_rows: queries that see so few keys (or fewer) have the offset 0. Of a causal sequence
            these are the first rows.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, in value's dtype.

    Raises:
        ValueError: a power below 1, or no number of rows.

    Reference:
        arXiv 2501.13428.

    Example:
        >>> x = jnp.eye(8)[None, :, None]
        >>> out = reweighted_softplus_attention(x, x, x, visible_keys=jnp.full((1, 1), 8))
        >>> bool(jnp.allclose(out, x, atol=1e-5))
        True
    """
    _check(power, free_rows)
    query, key = scaled_cosine(query, key, visible_keys)
    ones = jnp.ones((*key.shape[:2], 1, 1), key.dtype)
    _, log_sum = attend(
        query, key, ones, mask=mask, normalizer="softplus_l1", scale=1.0, sink=SINK, return_lse=True
    )
    count = jnp.broadcast_to(per_head(visible_keys), log_sum.shape)
    to_mean = jnp.exp(-log_sum) * jnp.maximum(count, 1).astype(log_sum.dtype)  # n / R, [b, t, h]

    # Among equal keys none is above the average: what rounding lifts there is not kept.
    margin = ROUNDING * jnp.finfo(log_sum.dtype).eps

    def log_weight(score, batch, head, q_index, k_index):
        """ln B = p ln( n A - o ), -inf where the key is not above the average."""
        offset = jnp.where(count[batch, q_index, head] > free_rows, 1, 0)
        above = jax.nn.softplus(score) * to_mean[batch, q_index, head] - offset
        kept = above > offset * margin
        return jnp.where(kept, power * jnp.log(jnp.where(kept, above, 1)), -jnp.inf)

    # EPS joins the sum of B.
    out = attend(query, key, value, mask=mask, score_mod=log_weight, scale=1.0, sink=math.log(EPS))
    return out.astype(value.dtype)


def _check(power: Any, free_rows: Any) -> None:
    check_number("power", power, least=1)
    check_count("free_rows", free_rows, 0)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    power: float | int = 15,
    free_rows: int = 3,
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        power: p, at least 1; 15 for lengths beyond training, 3 for the best loss at its length.
        free_rows: queries that see at most so many keys have the offset 0.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    _check(power, free_rows)

    def core(params, query, key, value, context):
        return reweighted_softplus_attention(
            query,
            key,
            value,
            visible_keys=context.visible_keys(),
            power=power,
            free_rows=free_rows,
            mask=context.mask,
        )

    return attention_mixer(
        "reweighted_softplus_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        rotary=rotary,
    )


MECHANISM = Mechanism(
    name="reweighted_softplus_attention",
    title="Softplus attention with re-weighting (LSSAR)",
    arxiv="2501.13428",
    family="softmax",
    equation="o_i = sum_j B_ij v_j / sum_j B_ij, B = relu(n_i A_ij - 1)^15, A by softplus",
    core=reweighted_softplus_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
)
