"""Attention whose weights come from elsewhere than its values (arXiv 2510.11602).

    o_i = sum_j softmax_j( q(c_i) . k(c_j) / sqrt(d) ) v(x_j)

x is the hidden state, c another stream of as many tokens: the embeddings of the tokens, in every
layer (StaticEmbQK); what earlier layers make of a fixed text (FixedSeqQK) or of fixed noise
(RndEmbQK). A fixed stream has batch size 1: its weights are worked out once for the whole batch.
`jattn.nn.streams.apply_with_stream` runs the two side by side through a model.

Distinctive: of attention's ingredients it takes away that weights depend on what the layers before
have made of the sequence, and for fixed streams that they depend on the sequence at all.

Limits: c = x is softmax attention, and the default.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend, masks
from jattn.attention.positions import rotary as rotate
from jattn.checks import check_shape
from jattn.mechanisms import projections as p
from jattn.mechanisms.mixer import Mechanism, Mixer
from jattn.mechanisms.softmax import softmax_attention


def decoupled_attention(
    query: Float[Array, "#b t h d"],
    key: Float[Array, "#b s h d"],
    value: Float[Array, "b s h e"],
    *,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention with weights of one batch entry or of each.

    Args:
        query, key: `[b, t, h, d]`, `[b, s, h, d]`, or both with batch size 1.
        value: `[b, s, h, e]`.
        mask: anything `jattn.attend` takes; if it differs between batch entries, weights do.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2510.11602.

    Example:
        >>> x = jnp.ones((3, 5, 2, 4))
        >>> decoupled_attention(x[:1], x[:1], x).shape
        (3, 5, 2, 4)
    """
    b, s, h, e = value.shape
    one = query.shape[0] == 1 and b > 1
    if not one:
        return attend(query, key, value, mask=mask)
    varied = mask is not None and not (isinstance(mask, masks.Mask) and mask == masks.causal())
    if varied:
        query, key = (jnp.broadcast_to(a, (b, *a.shape[1:])) for a in (query, key))
        return attend(query, key, value, mask=mask)
    # One batch entry whose values are those of all, side by side.
    together = jnp.moveaxis(value, 0, 2).reshape(1, s, h, b * e)
    out = attend(query, key, together, mask=mask)
    return jnp.moveaxis(out.reshape(*out.shape[1:3], b, e), 2, 0)


def make(*, dim: int, heads: int, causal: bool = False, rotary: bool = False) -> Mixer:
    """Makes the mixer. Its `context` is c, `[b, t, m]` or `[1, t, m]`; default x.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: hide later tokens. It then streams, with c = x.
        rotary: rotate queries and keys by their positions.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = mixer.init(jax.random.key(0))
        >>> x = jnp.ones((3, 6, 32))
        >>> jax.jit(mixer.apply)(params, x, context=x[:1]).shape
        (3, 6, 32)
    """
    plain = softmax_attention.make(dim=dim, heads=heads, causal=causal, rotary=rotary)

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        if context is None:
            return plain.apply(params, x, mask=mask, positions=positions)
        p.check_tokens(dim, x, None, positions)
        alone = len(context) == 1
        check_shape("context", context, "1 t m" if alone else "b t m",
                    dict(zip("btm", x.shape, strict=True)))  # fmt: skip
        query = p.split_heads(p.linear(context, params["query"]), heads)
        key = p.split_heads(p.linear(context, params["key"]), heads)
        value = p.split_heads(p.linear(x, params["value"]), heads)
        if rotary:
            if alone and positions is not None:
                query, key = (jnp.broadcast_to(a, (len(x), *a.shape[1:])) for a in (query, key))
            query, key = rotate(query, positions), rotate(key, positions)
        mask = p.attention_mask(mask, *x.shape[:2], causal=causal)
        return p.output(params, decoupled_attention(query, key, value, mask=mask))

    return plain._replace(apply=apply)


MECHANISM = Mechanism(
    name="decoupled_attention",
    title="Deconstructing attention: weights of another stream",
    arxiv="2510.11602",
    family="softmax",
    equation="o_i = sum_j softmax_j(q(c_i).k(c_j) / sqrt(d)) v(x_j)",
    core=decoupled_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=False,
    streaming=True,
    cost="quadratic",
)
