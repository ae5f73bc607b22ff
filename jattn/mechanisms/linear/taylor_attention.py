"""Taylor attention, the approximate form of deconstructed attention (arXiv 2510.11602).

    o_i = sum_j f(s_ij) v_j / sum_j f(s_ij),   f(s) = 1 + s + s^2 / 2,   s_ij = q_i . k_j / sqrt(d)

f is the exponential's Taylor series to second order, at least 1/2, and a product of features:
1, the channels, their products. So it is softmax attention as a linear recurrence with n numbers
for each value, n = 1 + d + d (d + 1) / 2.

Distinctive: linear cost at softmax's form, exact to |s|^3 e^|s| / 6 in each weight.

Limits: small scores give softmax attention, zero ones the mean. `normalize="separate"` divides each
of the three orders by its own sum and adds the quotients, as the paper's appendix prints it; its
text and the work it follows have one common denominator, the default here. Sums of the first order
alone may come near zero, so "separate" is not for training.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice
from jattn.mechanisms.frames.linear_mixer import linear_mixer
from jattn.mechanisms.frames.recurrent_mixer import resets
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur
from jattn.recurrence.feature_maps import taylor_features

NORMALIZE = ("common", "separate")


def taylor_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    normalize: str = "common",
    causal: bool = False,
    mask: Bool[Array, "b s"] | None = None,
    starts: Bool[Array, "b t"] | None = None,
    initial_state: Float[Array, "b h n k"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Attention with the exponential replaced by its second Taylor polynomial.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g dividing h; s = t if `causal`.
        value: `[b, s, g, e]`.
        normalize: `"common"`, or `"separate"` for each order.
        causal: token t sees tokens <= t.
        mask: True for real keys, `[b, s]`; default all are.
        starts: causal only; True where a document begins, which sees nothing of those before.
        initial_state: causal only; `[b, h, n, e + 1]`, n = 1 + d + d (d + 1) / 2; the last column
            is for the weights.
        return_state: causal only; return the state behind the last token, too.

    Returns:
        `[b, t, h, e]` in the query's dtype; with `return_state` the pair of it and the state.

    Raises:
        ValueError: an unknown value of `normalize`, or shapes that do not fit.

    Reference:
        arXiv 2510.11602.

    Example:
        >>> x = jnp.ones((1, 5, 2, 4))
        >>> taylor_attention(x, x, x, causal=True).shape
        (1, 5, 2, 4)
    """
    check_choice("normalize", normalize, NORMALIZE)
    dtype, size = query.dtype, query.shape[-1]
    wide = jnp.promote_types(dtype, jnp.float32)
    # Half of 1 / sqrt(d) each.
    parts = [taylor_features(x.astype(wide) * size**-0.25, 2) for x in (query, key)]
    query, key = (jnp.concatenate(part, -1) for part in parts)
    value = value.astype(wide)
    value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)
    if mask is not None:
        key = jnp.where(mask[:, :, None, None], key, 0)
    state = initial_state
    if not causal:
        state = jnp.einsum("bsgn,bsge->bgne", key, value)
        state = jnp.repeat(state, query.shape[2] // key.shape[2], axis=1)

    def total(query):
        if causal:
            decay = resets(starts, query.shape[2])
            return recur(query, key, value, decay=decay, initial_state=state, return_state=True)
        return jnp.einsum("bthn,bhne->bthe", query, state), state

    def quotient(sums):
        weight = sums[..., -1:]
        return sums[..., :-1] / jnp.where(weight == 0, 1, weight)

    if normalize == "common":
        read, state = total(query)
        out = quotient(read)
    else:
        # Each order reads its own features of the same state.
        order = np.repeat(np.arange(3), [phi.shape[-1] for phi in parts[0]])
        reads = [total(jnp.where(order == degree, query, 0)) for degree in range(3)]
        out = quotient(reads[0][0]) + quotient(reads[1][0]) + quotient(reads[2][0])
        state = reads[0][1]
    out = out.astype(dtype)
    return (out, state) if return_state else out


def make(*, dim: int, heads: int, causal: bool = False, normalize: str = "common") -> Mixer:
    """Taylor attention between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: token t sees tokens <= t; then there is no `context`.
        normalize: as in `taylor_attention`.

    Returns:
        A `Mixer`; its state is `[b, h, 1 + d + d (d + 1) / 2, e + 1]`.

    Raises:
        ValueError: an unknown value, or a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=8, heads=2, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_choice("normalize", normalize, NORMALIZE)
    size = dim // heads

    def core(params, query, key, value, context, **carry):
        return taylor_attention(
            query, key, value,
            normalize=normalize, causal=causal, mask=context.real, starts=context.starts, **carry,
        )  # fmt: skip

    def empty_state(batch, dtype):
        return jnp.zeros((batch, heads, 1 + size + size * (size + 1) // 2, size + 1), dtype)

    return linear_mixer(
        "taylor_attention", dim=dim, heads=heads, causal=causal, core=core, empty_state=empty_state
    )


MECHANISM = Mechanism(
    name="taylor_attention",
    title="Deconstructing attention: the exponential to second order",
    arxiv="2510.11602",
    family="linear",
    equation="o_i = sum_j f(q_i.k_j / sqrt(d)) v_j / sum_j f(q_i.k_j / sqrt(d)), f(s) = 1+s+s^2/2",
    core=taylor_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="causal",
)
