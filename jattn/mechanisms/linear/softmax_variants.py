"""Softmax attention taken apart: its numerator, its denominator, and what can stand in for it.

Paper: On the Expressiveness of Softmax Attention: A Recurrent Neural Network Perspective,
arXiv 2507.23632.

    o_i = post( gate_i / D_i sum_j f(min(s_ij, c)) gate_j v_j ),   s_ij = q_i . k_j / sqrt(d)

    numerator   f = exp; its Taylor polynomial; or s_ij of relu(q), relu(k), of elu + 1, of q / |q|
    normalizer  D_i = sum_j f: "sum"; max(sum, 1): "clamp", "detach" without its gradient;
                the number of keys: "length"; 1: "none"
    post        nothing, the vector divided by its length, RMSNorm or LayerNorm of each head

The exponential is a sum over all orders n of recurrences with the state sum_j k_j^(x n) v_j^T; the
denominator only scales what they read. `jattn.mechanisms.linear.softmax_rnn` runs them.

Distinctive: `"gated_softmax_no_gate_L2norm_nodivS_noclamp"`, the default: a norm of the output in
place of the denominator. It has exactly the direction of softmax attention.

Limits: "softmax" is softmax attention, "linear_relu" and "linear_elu" are linear attention. A gate
of one number a head vanishes in a norm that follows it; combine this mixer with
`jattn.mechanisms.combinators.gated` for one behind the norm.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jattn.attention import attend
from jattn.attention.mask_parts import conjuncts, is_of_keys
from jattn.attention.normalizers import Normalizer
from jattn.checks import check_choice, check_flag, check_number, check_shape
from jattn.mechanisms.frames.attention_mixer import AttentionContext, attention_mixer, per_head
from jattn.mechanisms.layers.heads import split_qkv
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.layers.norms import layer_norm, rms_norm, unit
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence.feature_maps import elu1, relu

FEATURES = {"relu": relu, "elu": elu1, "cosine": unit}
NUMERATORS = ("exp", "taylor", *FEATURES)
NORMALIZERS = ("sum", "clamp", "detach", "length", "none")
POSTS = ("none", "l2", "rms", "layer")
COSINE_POWER = 0.5  # logit of the power of the length that "cosine" starts from


class Variant(NamedTuple):
    """Names what stands where in the formula; see the module's docstring.

    Attributes:
        numerator: one of NUMERATORS.
        order: of the Taylor polynomial.
        clamp: c, the largest score; None for none.
        normalizer: one of NORMALIZERS.
        post: one of POSTS.
        in_gate: values have a gate, sigmoid(x w + b), one a head.
        out_gate: outputs have one.
    """

    numerator: str = "exp"
    order: int | None = None
    clamp: float | None = None
    normalizer: str = "sum"
    post: str = "none"
    in_gate: bool = False
    out_gate: bool = False


_CLAMPED = Variant(clamp=5.0)
_GATED = _CLAMPED._replace(normalizer="length", post="layer", in_gate=True, out_gate=True)
_NO_GATE = _GATED._replace(in_gate=False, out_gate=False)
_L2 = Variant(normalizer="none", post="l2")

# The paper's names.
VARIANTS: dict[str, Variant] = {
    "softmax": Variant(),
    "softmax_clamp_denom": _CLAMPED._replace(normalizer="clamp"),
    "softmax_detach_denom": _CLAMPED._replace(normalizer="detach"),
    "softmax_detach_denom_gate": _CLAMPED._replace(normalizer="detach", out_gate=True),
    "softmax_divs": _CLAMPED._replace(normalizer="length"),
    "softmax_gate": _CLAMPED._replace(normalizer="none", out_gate=True),
    "softmax_divS_gate": _CLAMPED._replace(normalizer="length", out_gate=True),
    "softmax_divS_norm": _CLAMPED._replace(normalizer="length", post="rms"),
    # One term more than the name says: of even order, the polynomial is positive.
    "softmax_taylor_80terms": Variant("taylor", order=80),
    "gated_softmax": _GATED,
    "gated_softmax_no_norm": _GATED._replace(post="none"),
    "gated_softmax_no_in_gate": _GATED._replace(in_gate=False),
    "gated_softmax_no_out_gate": _GATED._replace(out_gate=False),
    "gated_softmax_no_out_gate_no_norm": _GATED._replace(out_gate=False, post="none"),
    "gated_softmax_no_gate": _NO_GATE,
    "gated_softmax_no_gate_rmsnorm": _NO_GATE._replace(post="rms"),
    "gated_softmax_no_gate_rmsnorm_nodivS": _NO_GATE._replace(post="rms", normalizer="none"),
    "gated_softmax_no_gate_L2norm_nodivS": _L2._replace(clamp=5.0),
    "gated_softmax_no_gate_L2norm_nodivS_noclamp": _L2,
    "gated_ReLU_no_gate_L2norm_nodivS_noclamp": _L2._replace(numerator="relu"),
    "linear_elu": Variant("elu"),
    "linear_relu": Variant("relu"),
    "linear_cosine": Variant("cosine", normalizer="none"),
}


def taylor_exp(score: Float[Array, "*shape"], order: int) -> Float[Array, "*shape"]:
    """The exponential's Taylor polynomial, `sum_{n<=order} score^n / n!`.

    Example:
        >>> float(taylor_exp(jnp.array(2.0), 3))  # 1 + 2 + 2 + 8/6
        6.333333492279053
    """
    total = jnp.ones_like(score)
    for n in range(order, 0, -1):
        total = 1 + total * score / n
    return total


@functools.cache  # the engine knows a function by its identity
def _weights(numerator: str, order: int | None, clamp: float | None, divide: bool) -> Normalizer:
    """From scores to weights, and whether they are divided by their sum."""
    if numerator == "exp" and clamp is None and divide:
        return Normalizer("softmax", jnp.exp, divide=True, running_max=True)

    def function(score):
        score = score if clamp is None else jnp.minimum(score, clamp)
        if numerator == "taylor":
            return taylor_exp(score, order or 0)
        return jnp.exp(score) if numerator == "exp" else score

    return Normalizer(f"{numerator}_variant", function, divide=divide)


def check_variant(variant: Variant) -> None:
    """Checks a variant.

    Raises:
        ValueError: an unknown value, or parts that do not go together.
    """
    check_choice("numerator", variant.numerator, NUMERATORS)
    check_choice("normalizer", variant.normalizer, NORMALIZERS)
    check_choice("post", variant.post, POSTS)
    check_flag("in_gate", variant.in_gate)
    check_flag("out_gate", variant.out_gate)
    if variant.clamp not in (None, math.inf):
        check_number("clamp", variant.clamp)
    order, taylor = variant.order, variant.numerator == "taylor"
    if taylor and (isinstance(order, bool) or not isinstance(order, int) or order < 0):
        raise ValueError(f"order: expected 0 or more with 'taylor', got {order!r}")
    if not taylor and order is not None:
        raise ValueError(f"order: expected None with {variant.numerator!r}, got {order!r}")
    signed = variant.numerator == "cosine" or (taylor and (order or 0) % 2)
    if signed and variant.normalizer == "sum":
        of_order = f" of order {order}" if taylor else ""
        raise ValueError(
            "normalizer: expected another than 'sum' with weights that may be negative, got "
            f"{variant.numerator!r}{of_order}"
        )


def softmax_variant(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    numerator: str = "exp",
    order: int | None = None,
    clamp: float | None = None,
    normalizer: str = "sum",
    post: str = "none",
    in_gate: Float[Array, "b s g"] | None = None,
    out_gate: Float[Array, "b t h"] | None = None,
    visible_keys: Int[Array, "#b #t"] | Int[Array, "#b #t #h"] | None = None,
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention with other parts; see the module's docstring.

    Args:
        query: `[b, t, h, d]`, rotated beforehand if at all.
        key: `[b, s, g, d]`, g a divisor of h.
        value: `[b, s, g, e]`.
        numerator: `"exp"`, `"taylor"`, `"relu"`, `"elu"` or `"cosine"`, which has no 1 / sqrt(d).
        order: of `"taylor"`. Odd ones may give negative weights, which cannot be divided by their
            sum.
        clamp: the largest score; None for none.
        normalizer: `"sum"`, `"clamp"`, `"detach"`, `"length"` or `"none"`.
        post: `"none"`, `"l2"`, `"rms"` or `"layer"`, of each head and without weights.
        in_gate: a factor of each value, `[b, s, g]`. The paper's cosine attention has the number
            of keys to a learned negative power.
        out_gate: a factor of each output, `[b, t, h]`, before `post`.
        visible_keys: how many keys each query may see, broadcastable to `[b, t]` or `[b, t, h]`,
            for `"length"`; default all s.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`, in value's dtype.

    Raises:
        ValueError: an unknown value, parts that do not go together, or shapes that do not fit.

    Reference:
        arXiv 2507.23632.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1, 5, 2, 4))
        >>> out = softmax_variant(x, x, x, normalizer="none", post="l2")
        >>> direction = unit(softmax_variant(x, x, x))
        >>> bool(jnp.allclose(out, direction, atol=1e-6))
        True
    """
    check_variant(Variant(numerator, order, clamp, normalizer, post))
    sizes: dict[str, int] = {}
    check_shape("query", query, "b t h d", sizes)
    check_shape("key", key, "b s g d", sizes)
    check_shape("value", value, "b s g e", sizes)
    dtype, wide = value.dtype, jnp.promote_types(value.dtype, jnp.float32)
    value = value.astype(wide)
    if in_gate is not None:
        check_shape("in_gate", in_gate, "b s g", sizes)
        value = value * in_gate[..., None].astype(wide)
    if numerator in FEATURES:
        query, key = (FEATURES[numerator](x.astype(wide)) for x in (query, key))
    counted = normalizer in ("clamp", "detach")
    if counted:  # The denominator is the read of a value that is always 1.
        value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)
    # A norm of length one does not see the denominator; with it nothing can overflow.
    free = numerator == "exp" and clamp is None and post == "l2" and not counted
    weights = _weights(numerator, order, clamp, free or normalizer == "sum")
    scale = 1.0 if numerator == "cosine" else None
    query, key = query.astype(wide), key.astype(wide)
    out = attend(query, key, value, mask=mask, normalizer=weights, scale=scale)
    if counted:
        total = jnp.maximum(out[..., -1:], 1)
        out = out[..., :-1] / (lax.stop_gradient(total) if normalizer == "detach" else total)
    elif normalizer == "length":
        count = (
            jnp.full((1, 1), sizes["s"]) if visible_keys is None else jnp.maximum(visible_keys, 1)
        )
        out = out / per_head(count)[..., None].astype(wide)
    if out_gate is not None:
        check_shape("out_gate", out_gate, "b t h", sizes)
        out = out * out_gate[..., None].astype(wide)
    if post == "l2":
        out = unit(out)
    elif post == "rms":
        out = rms_norm(out)
    elif post == "layer":
        size = sizes["e"]
        out = layer_norm(out, jnp.ones(size, wide), jnp.zeros(size, wide))
    return out.astype(dtype)


def _counts_of_keys(
    context: AttentionContext, query: Array, key: Array, causal: bool
) -> Int[Array, "#b #s #g"]:
    """Counts the keys of which each key is one: as many as it could see itself."""
    if causal and query.shape[1] != key.shape[1]:  # a step sees one query, and a cache without gaps
        return jnp.arange(1, key.shape[1] + 1)[None, :, None]
    visible_keys = context.visible_keys()
    if context.crossed:
        if not all(map(is_of_keys, conjuncts(context.mask))):
            raise ValueError(
                "mask: cosine attention counts the keys of a context; expected padding, the same "
                "for all queries"
            )
        visible_keys = visible_keys[:, :1]
    if visible_keys.shape[2] not in (1, key.shape[2]):
        raise ValueError("mask: cosine attention counts keys; expected the same mask for all heads")
    return visible_keys


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    variant: str | Variant = "gated_softmax_no_gate_L2norm_nodivS_noclamp",
    kv_heads: int | None = None,
    rotary: bool = False,
) -> Mixer:
    """Makes the mixer.

    Gates have the parameters `in_gate` and `out_gate`, RMSNorm and LayerNorm `norm_scale` and
    `norm_shift`, shared by the heads, and cosine attention `power`, a number a head.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        variant: one of VARIANTS, or a `Variant`.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.

    Raises:
        ValueError: a size that does not fit, or an unknown or impossible variant.

    Example:
        >>> mixer = make(dim=32, heads=4, causal=True, variant="gated_softmax")
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> sorted(params)[:4], jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (['in_gate', 'key', 'norm_scale', 'norm_shift'], (1, 6, 32))
    """
    if isinstance(variant, str):
        check_choice("variant", variant, list(VARIANTS))
    elif not isinstance(variant, Variant):
        raise ValueError(f"variant: expected a name or a Variant, got a {type(variant).__name__}")
    chosen = VARIANTS[variant] if isinstance(variant, str) else variant
    check_variant(chosen)
    check_heads(dim, heads, kv_heads)
    groups = heads if kv_heads is None else kv_heads
    cosine = chosen.numerator == "cosine"

    def init(key):
        params = {}
        keys = jax.random.split(key)
        for name, wanted, gates, k in (
            ("in_gate", chosen.in_gate, groups, keys[0]),
            ("out_gate", chosen.out_gate, heads, keys[1]),
        ):
            if wanted:
                weight = linear_init(k, dim, gates)
                params[name] = {"weight": weight, "bias": jnp.zeros(gates)}
        if chosen.post in ("rms", "layer"):
            params["norm_scale"] = jnp.ones(dim // heads)
        if chosen.post == "layer":
            params["norm_shift"] = jnp.zeros(dim // heads)
        if cosine:
            params["power"] = jnp.full(groups, COSINE_POWER)
        return params

    def gate(params, x):
        return jax.nn.sigmoid(linear(x, params["weight"]) + params["bias"].astype(x.dtype))

    def prepare(params, maps, x, source):
        query, key, value = split_qkv(maps, heads, groups)
        if chosen.in_gate:
            value = value * gate(params["in_gate"], source)[..., None]
        return query, key, value

    def core(params, query, key, value, context):
        in_gate = None
        if cosine:
            count = _counts_of_keys(context, query, key, causal)
            wide = jnp.promote_types(value.dtype, jnp.float32)
            power = jax.nn.sigmoid(params["power"].astype(wide))
            in_gate = jnp.maximum(count, 1) ** -power
            in_gate = jnp.broadcast_to(in_gate, key.shape[:3])
        out = softmax_variant(
            query,
            key,
            value,
            numerator=chosen.numerator,
            order=chosen.order,
            clamp=chosen.clamp,
            normalizer=chosen.normalizer,
            post=chosen.post,
            in_gate=in_gate,
            out_gate=gate(params["out_gate"], context.x) if chosen.out_gate else None,
            visible_keys=context.visible_keys() if chosen.normalizer == "length" else None,
            mask=context.mask,
        )
        if "norm_scale" in params:
            out = out * params["norm_scale"].astype(out.dtype)
        if "norm_shift" in params:
            out = out + params["norm_shift"].astype(out.dtype)
        return out

    return attention_mixer(
        "softmax_variant with cosine" if cosine else "softmax_variant",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        init=init,
        prepare=prepare,
        rotary=rotary,
        self_only=cosine and causal,
    )


MECHANISM = Mechanism(
    name="softmax_variant",
    title="Softmax attention with a norm, a gate or a length for a denominator",
    arxiv="2507.23632",
    family="linear",
    equation="o_i = u_i / |u_i|, u_i = sum_j exp(q_i.k_j / sqrt(d)) v_j",
    core=softmax_variant,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
)
