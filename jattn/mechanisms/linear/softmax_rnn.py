"""Softmax attention as recurrent networks, up to an order (arXiv 2507.23632).

    exp(s) = sum_n s^n / n!,   (q . k)^n = <q^(x n), k^(x n)>
    H^n_t = H^n_{t-1} + phi_n(k_t) v_t^T,   o_t = sum_{n<=N} phi_n(q_t)^T H^n_t / g_t

One recurrence an order, with all products of n channels as features; g_t is the same read of values
that are always 1, or the length of the vector (`normalizer="l2"`). Order 0 is a running sum of the
values, order 1 linear attention without a feature map, all orders together softmax attention.

Distinctive: linear cost at any order, for a state of (d + N choose N) rows a head: products differ
in the channels they are of, not in their sequence, so order 2 has d (d + 1) / 2 features, not d^2.

Limits: N = 2 is `taylor_attention`; small scores give softmax attention, which order N is away from
by |s|^(N+1) max(1, e^s) / (N+1)! in each weight. Odd orders may give negative weights, which
no sum divides safely: they need the length.
"""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_count
from jattn.mechanisms.frames.linear_mixer import linear_mixer
from jattn.mechanisms.layers.norms import unit
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence.feature_maps import taylor_features

NORMALIZERS = ("sum", "l2")


def taylor_rnn(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    order: int,
    *,
    normalizer: str = "sum",
    causal: bool = False,
    mask: Bool[Array, "b s"] | None = None,
    starts: Bool[Array, "b t"] | None = None,
    initial_state: Float[Array, "b h n k"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Attention with the exponential's Taylor polynomial, as a recurrence.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g dividing h; s = t if `causal`.
        value: `[b, s, g, e]`.
        order: N; even for `"sum"`.
        normalizer: what divides: the `"sum"` of weights, or the length of the read, `"l2"`.
        causal: token t sees tokens <= t.
        mask: True for real keys, `[b, s]`; None if all are.
        starts: causal only; True where a document begins, which sees nothing of those before.
        initial_state: causal only; `[b, h, (d + N choose N), e]`, with `"sum"` e + 1 columns, the
            last one for the weights.
        return_state: causal only; return the state behind the last token, too.

    Returns:
        `[b, t, h, e]` in the query's dtype; with `return_state` the pair of it and the state.

    Raises:
        ValueError: an order or a normaliser that cannot be.

    Reference:
        arXiv 2507.23632.

    Example:
        >>> x = jnp.ones((1, 5, 2, 4))
        >>> taylor_rnn(x, x, x, 4, causal=True).shape
        (1, 5, 2, 4)
    """
    _check_order(order, normalizer)
    dtype = query.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    # Half of 1 / sqrt(d) each.
    scale = query.shape[-1] ** -0.25
    query, key = (
        jnp.concatenate(taylor_features(x.astype(wide) * scale, order), -1) for x in (query, key)
    )
    value = value.astype(wide)
    if normalizer == "sum":  # The normaliser is one more value, which is always 1.
        value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)
    read, state = linear_attention(
        query,
        key,
        value,
        feature_map="identity",
        normalize=False,
        causal=causal,
        mask=mask,
        starts=starts,
        initial_state=initial_state,
        return_state=True,
    )
    if normalizer == "sum":
        total = read[..., -1:]
        out = read[..., :-1] / jnp.where(total == 0, 1, total)
    else:
        out = unit(read)
    out = out.astype(dtype)
    return (out, state) if return_state else out


def _check_order(order: int, normalizer: str) -> None:
    check_choice("normalizer", normalizer, NORMALIZERS)
    check_count("order", order, -1)
    if order < 0 or (normalizer == "sum" and order % 2):
        even = "an even number" if normalizer == "sum" else "a number"
        raise ValueError(f"order: expected {even} of 0 or more, got {order}")


def make(
    *, dim: int, heads: int, causal: bool = False, order: int = 2, normalizer: str = "sum"
) -> Mixer:
    """Softmax as recurrent networks up to an order, between projections.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: token t sees tokens <= t; then there is no `context`.
        order: N, as in `taylor_rnn`; cost and state grow as d^N / N!.
        normalizer: as in `taylor_rnn`.

    Returns:
        A `Mixer`; its state is that of `taylor_rnn`.

    Raises:
        ValueError: an order, a normaliser or a size that cannot be.

    Example:
        >>> import jax
        >>> mixer = make(dim=8, heads=2, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    _check_order(order, normalizer)
    size = dim // heads

    def core(params, query, key, value, context, **carry):
        return taylor_rnn(
            query, key, value, order,
            normalizer=normalizer, causal=causal, mask=context.real, starts=context.starts, **carry,
        )  # fmt: skip

    def empty_state(batch, dtype):
        features = math.comb(size + order, order)
        return jnp.zeros((batch, heads, features, size + (normalizer == "sum")), dtype)

    return linear_mixer(
        "softmax_rnn", dim=dim, heads=heads, causal=causal, core=core, empty_state=empty_state
    )


MECHANISM = Mechanism(
    name="softmax_rnn",
    title="Softmax attention as recurrent networks",
    arxiv="2507.23632",
    family="linear",
    equation="o_t = sum_n phi_n(q_t)^T H^n_t / g_t, H^n_t = H^n_{t-1} + phi_n(k_t) v_t^T, n <= N",
    core=taylor_rnn,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="causal",
)
