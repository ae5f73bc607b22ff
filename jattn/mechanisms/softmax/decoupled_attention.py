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
from jattn.checks import check_array, check_shape
from jattn.mechanisms.frames.checks import check_tokens
from jattn.mechanisms.frames.framed import framed
from jattn.mechanisms.frames.tokens import hide_padding
from jattn.mechanisms.layers.heads import merge_heads, split_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
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
        causal: hide later tokens. It then streams; `step` takes the token of the other stream,
            `[b, m]` or `[1, m]`, as `context`, and without it c = x.
        rotary: rotate queries and keys by their positions.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> x = jnp.ones((3, 6, 32))
        >>> jax.eval_shape(mixer.apply, params, x, context=x[:1]).shape
        (3, 6, 32)
    """
    plain = softmax_attention.make(dim=dim, heads=heads, causal=causal, rotary=rotary)
    return _of_streams(plain, dim, heads, causal, rotary)


def _of_streams(plain: Mixer, dim: int, heads: int, causal: bool, rotary: bool) -> Mixer:
    """The mixer that takes weights of a context, from the one that takes them of x."""
    parts, rebuild, plain_step = plain.parts, plain.rebuild, plain.step
    assert parts is not None
    assert rebuild is not None

    def arrays_of(params, x, stream, positions):
        maps = parts.project(params, stream, stream)
        maps["value"] = parts.project(params, x, x)["value"]
        query, key, value = (split_heads(maps[n], heads) for n in ("query", "key", "value"))
        if not rotary:
            return query, key, value
        if positions is not None and len(positions) > len(stream):
            query, key = (jnp.broadcast_to(a, (len(positions), *a.shape[1:])) for a in (query, key))
        return rotate(query, positions), rotate(key, positions), value

    def check_stream(stream, sizes):
        check_array("context", stream, "floating")
        axes = " ".join(sizes)
        check_shape("context", stream, axes.replace("b", "1") if len(stream) == 1 else axes, sizes)

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        if context is None:
            return plain.apply(params, x, mask=mask, positions=positions)
        check_tokens(dim, x, None, positions)
        check_stream(context, dict(zip("btm", x.shape, strict=True)))

        def mixed(params, given):
            stream = context
            if given.mask is not None and len(context) == len(x):
                stream = hide_padding(context, given.mask, keep=True)
            query, key, value = arrays_of(params, given.x, stream, given.positions)
            mask = given.mask
            if causal:
                mask = masks.causal() if mask is None else mask & masks.causal()
            out = decoupled_attention(query, key, value, mask=mask)
            return parts.output(params, merge_heads(out), given.x)

        whole = framed(
            "decoupled_attention",
            dim=dim,
            init=plain.init,
            apply=mixed,
            takes="any",
            causal=causal,
        )
        return whole.apply(params, x, mask=mask, positions=positions, key=key)

    def step(params, x, state, *, context=None):
        assert plain_step is not None
        if context is None:
            return plain_step(params, x, state)
        check_array("x", x, "floating")
        check_shape("x", x, "b m", {"m": dim})
        check_stream(context, dict(zip("bm", x.shape, strict=True)))
        position = jnp.broadcast_to(state.position, (len(x), 1))
        query, key, value = arrays_of(params, x[:, None], context[:, None], position)
        query, key = (jnp.broadcast_to(a, (len(x), *a.shape[1:])) for a in (query, key))
        state = state.append(key[:, 0], value[:, 0])
        cached = (state.key.astype(x.dtype), state.value.astype(x.dtype))
        out = attend(query.astype(x.dtype), *cached, mask=state.filled())
        return parts.output(params, merge_heads(out), x[:, None])[:, 0], state

    return plain._replace(
        apply=apply,
        step=None if plain_step is None else step,
        rebuild=lambda parts: _of_streams(rebuild(parts), dim, heads, causal, rotary),
    )


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
    equivariant=True,
)
