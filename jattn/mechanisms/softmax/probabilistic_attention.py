"""Probabilistic attention of Zonkey (arXiv 2601.21768): tokens that exist with a probability.

    S_ij = q_i . k_j / sqrt(d) + [j > i] (ln p_j - ln p_i),   o_i = sum_j softmax_j(S_ij) v_j
    p_k  = prod_{l = 1 .. k} (1 - bos_l),   bos_l = sigmoid(x_l . w + b)

A later key counts as much as P(j exists | i exists) = p_j / p_i; an earlier one is certain, for
segments exist from their start up to somewhere. Keys with p = 0 are hidden, and tokens with p = 0
get zeros.

Distinctive: a mask that fades and has a gradient, so where a segment ends is learned. Past and
future are two attentions that are merged: ln p_j is a number a key, -ln p_i joins the future's
log-sum-exp, and there is no bias of pairs. `segment_splitter` cuts sequences into such segments.

Limits: all p equal is softmax attention, p in {1, 0} padding. Under causality p has no part in it,
so there is no causal form.

Of the paper's model these parts are here: attention over one sequence and across two, the option
`exclusive` of its later code, and in `segment_splitter` the splitter, overlapping windows, shares
and stitching where it is known which token is which. Left out, as they make a language model of the
mechanism and are trained at a size that cannot be checked here: the compressor (a segment to a few
vectors), the denoising diffusion over levels of those vectors, the losses between levels, and
stitching generated segments, whose overlap has to be inferred. docs/softmax_family.md says more.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.attention import attend, masks, merge
from jattn.attention.positions import rotary as rotate
from jattn.checks import check_count, check_flag, check_shape
from jattn.mechanisms.frames.framed import framed_parts
from jattn.mechanisms.layers.heads import (
    merge_heads,
    project_output,
    project_qkv,
    qkvo_init,
    split_qkv,
)
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer, Parts
from jattn.mechanisms.softmax.segment_splitter import (
    beginning_probabilities,
    existence_probabilities,
    initial_bias,
)

SMALLEST = 1e-20  # ln p is cut off here


def probabilistic_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s gv e"],
    query_existence: Float[Array, "b t"],
    key_existence: Float[Array, "b s"],
    *,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention over tokens that may not exist.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g a divisor of h. Query i and key j are counted from 0, also where
            they are of two sequences.
        value: `[b, s, gv, e]`, gv a divisor of h.
        query_existence: p of the queries, `[b, t]`, in [0, 1]. Only ratios count.
        key_existence: p of the keys, `[b, s]`.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, in query's dtype; zeros where p is 0.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2601.21768.

    Example:
        The second token exists half of the time, given the first, and the first for sure:

        >>> x, p = jnp.zeros((1, 2, 1, 1)), jnp.array([[0.8, 0.4]])
        >>> value = jnp.array([3.0, 9.0]).reshape(1, 2, 1, 1)
        >>> [round(float(o), 5) for o in probabilistic_attention(x, x, value, p, p).ravel()]
        [5.0, 6.0]
    """
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    check_shape("query_existence", query_existence, "b t", sizes)
    check_shape("key_existence", key_existence, "b s", sizes)
    exist = masks.from_array(query_existence[:, None, :, None] > 0)
    exist &= masks.from_array(key_existence[:, None, None] > 0)
    if mask is not None:
        exist &= mask
    wide = jnp.promote_types(jnp.result_type(query, key_existence), jnp.float32)
    log = lambda existence: jnp.log(jnp.maximum(existence.astype(wide), SMALLEST))
    past = attend(query, key, value, mask=masks.causal() & exist, return_lse=True)
    future, lse = attend(
        query,
        key,
        value,
        mask=~masks.causal() & exist,
        bias=log(key_existence)[:, None, None],
        return_lse=True,
    )
    return merge(past, (future, lse - log(query_existence)[..., None]))[0]


def exclude_own(
    out: Float[Array, "b t h e"], value: Float[Array, "b t g e"]
) -> Float[Array, "b t h e"]:
    """Each head's output less its component along the token's own value.

    Args:
        out: of self-attention.
        value: of the same tokens, `[b, t, g, e]`, g a divisor of h.

    Returns:
        `[b, t, h, e]`; a value of zero takes nothing away.

    Reference:
        Exclusive self-attention, arXiv 2603.09078; Zonkey's later code has it.

    Example:
        >>> out, value = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
        >>> exclude_own(out[None, None, None], value[None, None, None]).ravel().tolist()
        [3.0, 0.0]
    """
    sizes: dict[str, int] = {}
    check_shape("out", out, "b t h e", sizes)
    check_shape("value", value, "b t g e", sizes)
    wide = jnp.promote_types(out.dtype, jnp.float32)
    value = jnp.repeat(value.astype(wide), sizes["h"] // sizes["g"], axis=2)
    square = (value**2).sum(-1, keepdims=True)
    along = (out * value).sum(-1, keepdims=True) / jnp.where(square == 0, 1, square)
    return (out - along * value).astype(out.dtype)


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    max_segment_length: int = 32,
    exclusive: bool = False,
) -> Mixer:
    """Makes the mixer: a sequence is a segment from token 0, and learns how far it reaches.

    Its splitter is the parameters `splitter` `[m, 1]` and `splitter_bias` `[1]`.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: False; there is no causal form.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        max_segment_length: bos starts near 2 / this; at least 3.
        exclusive: see `exclude_own`; self-attention only.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> params["splitter"].shape
        (32, 1)
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    if causal:
        raise ValueError("causal: probabilistic_attention has no causal form; pass causal=False")
    kv_heads = heads if kv_heads is None else kv_heads
    check_heads(dim, heads, kv_heads)
    check_flag("rotary", rotary)
    if rotary and dim // heads % 2:
        raise ValueError(f"rotary: needs an even dim / heads, got {dim} / {heads} = {dim // heads}")
    check_count("max_segment_length", max_segment_length, 3)
    check_flag("exclusive", exclusive)

    def init(key):
        shared, own = jax.random.split(key)
        return qkvo_init(shared, dim, heads, kv_heads=kv_heads) | {
            "splitter": linear_init(own, dim, 1),
            "splitter_bias": jnp.full(1, initial_bias(max_segment_length)),
        }

    def existence(params, x, real):
        logits = linear(x, params["splitter"])[..., 0] + params["splitter_bias"]
        return existence_probabilities(beginning_probabilities(logits, real))

    def apply(parts, params, given):
        x, source, real, positions = given.x, given.source, given.real, given.positions
        mask = None if real is None else masks.padding(real)
        query, key, value = split_qkv(parts.project(params, x, source), heads, kv_heads)
        if rotary:
            query, key = rotate(query, positions), rotate(key, positions)
        of_keys = existence(params, source, real)  # no segment begins at padding
        of_queries = existence(params, x, None) if given.crossed else of_keys
        out = probabilistic_attention(query, key, value, of_queries, of_keys, mask=mask)
        out = exclude_own(out, value) if exclusive else out
        return parts.output(params, merge_heads(out), x)

    option = " with rotary positions" if rotary else " with exclusive=True" if exclusive else ""
    return framed_parts(
        f"probabilistic_attention{option}",
        Parts(project_qkv, None, project_output),
        dim=dim,
        init=init,
        apply=apply,
        takes="row",
        causal=False,
        cross=not (rotary or exclusive),
    )


MECHANISM = Mechanism(
    name="probabilistic_attention",
    title="Zonkey: attention to tokens that exist with a probability",
    arxiv="2601.21768",
    family="softmax",
    equation="o_i = sum_j softmax_j(q_i.k_j / sqrt(d) + [j > i] (ln p_j - ln p_i)) v_j",
    core=probabilistic_attention,
    make=make,
    causal=False,
    bidirectional=True,
    cross=True,
    streaming=False,
    cost="quadratic",
    documents="never",
    parameters=("splitter", "splitter_bias"),
)
