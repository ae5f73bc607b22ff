"""Hedgehog: linear attention whose feature maps learn to imitate softmax.

Paper: The Hedgehog & the Porcupine, arXiv 2402.04347.

    o_i = sum_j phi_q(q_i).phi_k(k_j) v_j / sum_j phi_q(q_i).phi_k(k_j)
    phi(x) = [exp(y), exp(-y)],   y = x W + c

with a matrix W for each head, for queries and for keys apart. They begin as the identity, and
`distillation_loss` moves the weights towards those of softmax attention on the same q and k.

Distinctive: 2d features instead of softmax's infinitely many, spiky and monotone in q.k as far as
training makes them; a trained softmax model becomes a linear one by training the maps only.

Limits: W = 0 gives the mean of the values. `"softmax_dim"`, the authors' released form and the
default here, divides each half by its sum over features, so that nothing overflows; `"exp_dim"`
divides each by its maximum. Both weigh tokens otherwise than `"exp"`, the paper's formula, does.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.attention import masks
from jattn.attention.attend import attend
from jattn.checks import check_choice, check_flag, check_shape
from jattn.extremes import largest
from jattn.mechanisms.frames.linear_mixer import linear_mixer
from jattn.mechanisms.layers.heads import qkvo_init
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.linear.linear_attention import linear_attention
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer

FEATURE_MAPS = ("softmax_dim", "exp", "exp_dim", "joint_softmax")
EPSILON = 1e-12  # the least feature, and what is added to the normaliser


def hedgehog_features(
    x: Float[Array, "b t h d"],
    weight: Float[Array, "h d d"],
    bias: Float[Array, "h d"] | None = None,
    *,
    feature_map: str = "softmax_dim",
) -> Float[Array, "b t h n"]:
    """2d positive features of each head's vector, from y = x W + c.

    Args:
        x: queries or keys, `[b, t, h, d]`.
        weight: W, `[h, d, d]`, from inputs to outputs.
        bias: c, `[h, d]`; None is zero.
        feature_map: `"softmax_dim"`: [softmax(y), softmax(-y)]; `"exp"`: [exp(y), exp(-y)], which
            overflows for large y; `"exp_dim"`: [exp(y - max y), exp(-y + min y)];
            `"joint_softmax"`: softmax([2y, -2y]).

    Returns:
        `[b, t, h, 2d]`, float32 at least.

    Raises:
        ValueError: an unknown feature map, or shapes that do not fit.

    Reference:
        arXiv 2402.04347.

    Example:
        >>> hedgehog_features(jnp.ones((1, 1, 1, 2)), jnp.eye(2)[None]).tolist()
        [[[[0.5, 0.5, 0.5, 0.5]]]]
    """
    check_choice("feature_map", feature_map, FEATURE_MAPS)
    sizes: dict[str, int] = {}
    check_shape("x", x, "b t h d", sizes)
    check_shape("weight", weight, "h d d", sizes)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # Heads before tokens, where XLA's CPU backend takes the product as it stands.
    y = jnp.moveaxis(jnp.moveaxis(wide, 2, 1) @ weight.astype(wide.dtype), 1, 2)
    if bias is not None:
        check_shape("bias", bias, "h d", sizes)
        y = y + bias.astype(wide.dtype)
    both = jnp.stack([y, -y], -2)
    if feature_map == "softmax_dim":
        return _softmax(both).reshape(*x.shape[:-1], -1)
    if feature_map == "joint_softmax":
        return _softmax(2 * both.reshape(*x.shape[:-1], -1))
    both = jnp.exp(both - largest(both, -1) if feature_map == "exp_dim" else both)
    flat = both.reshape(*x.shape[:-1], -1)
    # Added where it is needed rather than chosen: gradients are those of the map itself.
    return flat + jax.lax.stop_gradient(jnp.maximum(EPSILON - flat, 0))


@jax.custom_jvp
def _softmax(x: Array) -> Array:
    """Softmax over the last axis, at least epsilon.

    Its gradient is one that XLA's CPU backend computes faster, from the result alone.
    """
    return jnp.maximum(jax.nn.softmax(x, -1), EPSILON)


@_softmax.defjvp
def _softmax_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    out, tangent = _softmax(*primals), tangents[0]
    along = jnp.einsum("...n,...n->...", out, tangent, precision="highest")
    return out, out * (tangent - along[..., None])


def hedgehog(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    query_map: dict[str, Array],
    key_map: dict[str, Array],
    *,
    feature_map: str = "softmax_dim",
    causal: bool = False,
    mask: Array | None = None,
    starts: Bool[Array, "b t"] | None = None,
    initial_state: Array | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Linear attention with learned features.

    Args:
        query: `[b, t, h, d]`; there is no scale.
        key: `[b, s, g, d]`, g dividing h; s = t if `causal`.
        value: `[b, s, g, e]`.
        query_map: `{"weight": [h, d, d]}`, and `"bias"` `[h, d]` if there is one.
        key_map: the same with g heads.
        feature_map: as in `hedgehog_features`.
        causal: token t sees tokens <= t.
        mask: True for real keys, bool `[b, s]`; None if all are.
        starts: causal only; True where a document begins, which sees nothing of those before.
        initial_state: causal only; `[b, h, 2d, e + 1]`, the last column for the sum of weights.
        return_state: causal only; return the state after the last token, too.

    Returns:
        `[b, t, h, e]` in the query's dtype; with `return_state` the pair of it and the state.

    Raises:
        ValueError: an unknown feature map, or shapes that do not fit.

    Reference:
        arXiv 2402.04347.

    Example:
        >>> x = jnp.ones((1, 5, 2, 4))
        >>> eyes = {"weight": jnp.stack([jnp.eye(4)] * 2)}
        >>> hedgehog(x, x, x, eyes, eyes, causal=True).shape
        (1, 5, 2, 4)
    """
    phi_q = hedgehog_features(query, **query_map, feature_map=feature_map)
    phi_k = hedgehog_features(key, **key_map, feature_map=feature_map)
    value = value.astype(phi_k.dtype)
    # The normaliser is a value that is always 1: its own here, for the smaller epsilon.
    sums = linear_attention(
        phi_q,
        phi_k,
        jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1),
        feature_map="identity",
        normalize=False,
        causal=causal,
        mask=mask,
        starts=starts,
        initial_state=initial_state,
        return_state=return_state,
    )
    read, state = sums if return_state else (sums, None)
    out = (read[..., :-1] / (read[..., -1:] + EPSILON)).astype(query.dtype)
    return (out, state) if return_state else out


def distillation_loss(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    query_map: dict[str, Array],
    key_map: dict[str, Array],
    *,
    feature_map: str = "softmax_dim",
    causal: bool = False,
    scale: float | None = None,
) -> Float[Array, ""]:
    """Cross-entropy from softmax's weights to Hedgehog's, the mean over queries.

        -(1/N) sum_i sum_j softmax(scale q_i.k)_j log a_ij

    The queries and keys are a trained layer's: differentiate with respect to the maps only.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g dividing h; s = t if `causal`.
        query_map: as in `hedgehog`.
        key_map: as in `hedgehog`.
        feature_map: as in `hedgehog_features`.
        causal: token t sees tokens <= t.
        scale: of the teacher's scores; default `d**-0.5`.

    Returns:
        A scalar, at least the teacher's mean entropy.

    Raises:
        ValueError: an unknown feature map, or shapes that do not fit.

    Reference:
        arXiv 2402.04347.

    Example:
        >>> x, eye = jnp.zeros((1, 4, 1, 2)), {"weight": jnp.eye(2)[None]}
        >>> round(float(distillation_loss(x, x, eye, eye)), 4)  # log(4)
        1.3863
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    query, key = query.astype(wide), key.astype(wide)
    mask = masks.causal() if causal else None
    _, teacher = attend(query, key, key, mask=mask, scale=scale, return_weights=True)
    phi_q = hedgehog_features(query, **query_map, feature_map=feature_map)
    phi_k = hedgehog_features(key, **key_map, feature_map=feature_map)
    phi_k = jnp.repeat(phi_k, query.shape[2] // key.shape[2], axis=2)
    weights = jnp.einsum("bthn,bshn->bhts", phi_q, phi_k)
    visible = jnp.tril(jnp.ones(weights.shape[-2:], bool)) if causal else True
    total = jnp.where(visible, weights, 0).sum(-1, keepdims=True) + EPSILON
    return -jnp.where(visible, teacher * jnp.log(weights / total), 0).sum(-1).mean()


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    feature_map: str = "softmax_dim",
    bias: bool = False,
) -> Mixer:
    """Hedgehog between projections; its maps begin as the identity.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: token t sees tokens <= t; then there is no `context`.
        feature_map: as in `hedgehog_features`.
        bias: whether the maps have one, as the paper's do.

    Returns:
        A `Mixer`; its state is `[b, h, 2d, e + 1]`.

    Raises:
        ValueError: an unknown feature map, or a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_choice("feature_map", feature_map, FEATURE_MAPS)
    check_flag("bias", bias)
    size = dim // heads

    def init(key):
        params: dict[str, Any] = qkvo_init(key, dim, heads)
        for name in ("query_map", "key_map"):
            params[name] = {"weight": jnp.tile(jnp.eye(size), (heads, 1, 1))}
            if bias:
                params[name]["bias"] = jnp.zeros((heads, size))
        return params

    def core(params, query, key, value, context, **carry):
        return hedgehog(
            query, key, value, params["query_map"], params["key_map"],
            feature_map=feature_map, causal=causal, mask=context.real, starts=context.starts,
            **carry,
        )  # fmt: skip

    def empty_state(batch, dtype):
        return jnp.zeros((batch, heads, 2 * size, size + 1), dtype)

    return linear_mixer(
        "hedgehog",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        empty_state=empty_state,
        init=init,
    )


MECHANISM = Mechanism(
    name="hedgehog",
    title="Hedgehog: linear attention with learned feature maps",
    arxiv="2402.04347",
    family="linear",
    equation="o_i = sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j), phi = [e^(xW), e^(-xW)]",
    core=hedgehog,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="causal",
    parameters=("query_map", "key_map"),
)
