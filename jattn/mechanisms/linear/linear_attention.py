"""Linear attention: the softmax kernel replaced by an inner product of features.

Paper: Transformers are RNNs, arXiv 2006.16236.

    o_i = sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j)

Sums over j do not depend on i other than by its limit, so they are computed once: causally they
are the state of a recurrence, S_i = S_{i-1} + phi(k_i) v_i^T, and without a causal mask a single
matrix. Time grows with the length, not its square.

Distinctive: O(n) time, a state of constant size; weights cannot be as sharp as softmax's.

Limits: with `normalize=False` and the identity, causal form, it is the Hebbian recurrence that
retention, gated linear attention (decay 0) and the delta rules (beta -> 0) extend.
"""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_choice, check_flag
from jattn.mechanisms.frames.linear_mixer import linear_mixer
from jattn.mechanisms.frames.recurrent_mixer import resets
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur
from jattn.recurrence.feature_maps import FEATURE_MAPS

EPSILON = 1e-10  # added to the normaliser, as in the authors' code


def linear_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    *,
    feature_map: Literal["elu1", "exp", "identity", "relu"] = "elu1",
    normalize: bool = True,
    causal: bool = False,
    mask: Bool[Array, "b s"] | None = None,
    starts: Bool[Array, "b t"] | None = None,
    initial_state: Float[Array, "b h d n"] | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Linear attention on query, key and value arrays.

    Args:
        query: `[b, t, h, d]`.
        key: `[b, s, g, d]`, g dividing h; s = t if `causal`.
        value: `[b, s, g, e]`.
        feature_map: name of phi: `"elu1"`, `"exp"`, `"relu"`, or `"identity"`.
        normalize: divide by the sum of weights; features must not be negative then.
        causal: token t sees tokens <= t.
        mask: True for real keys, `[b, s]`; None if all are.
        starts: causal only; True where a document begins, which sees nothing of those before.
        initial_state: causal only; the state before the first token, `[b, h, d, e]`, with
            `normalize` `[b, h, d, e + 1]`, the last column for the sum of weights.
        return_state: causal only; return the state after the last token, too.

    Returns:
        `[b, t, h, e]` in the query's type; with `return_state` the pair of it and the state.

    Raises:
        ValueError: an unknown feature map, or a normaliser that could be negative.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1, 10, 2, 4))
        >>> linear_attention(x, x, x, causal=True).shape
        (1, 10, 2, 4)
    """
    check_choice("feature_map", feature_map, sorted(FEATURE_MAPS))
    if normalize and feature_map == "identity":
        raise ValueError("normalize: expected False with feature_map='identity', got True")
    phi, result_type = FEATURE_MAPS[feature_map], query.dtype
    work_type = jnp.promote_types(result_type, jnp.float32)
    query, key = phi(query.astype(work_type)), phi(key.astype(work_type))
    value = value.astype(work_type)
    if mask is not None:
        key = jnp.where(mask[:, :, None, None], key, 0)
    if normalize:  # The normaliser is one more value, which is always 1.
        value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], -1)
    state = None
    if causal:
        out, state = recur(
            query, key, value,
            decay=resets(starts, query.shape[2]), initial_state=initial_state, return_state=True,
        )  # fmt: skip
    else:
        state = jnp.einsum("bsgd,bsge->bgde", key, value)
        shared = query.shape[2] // key.shape[2]
        out = jnp.einsum("bthd,bhde->bthe", query, jnp.repeat(state, shared, axis=1))
    if normalize:
        out = out[..., :-1] / (out[..., -1:] + EPSILON)
    out = out.astype(result_type)
    return (out, state) if return_state else out


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    feature_map: Literal["elu1", "exp", "identity", "relu"] = "elu1",
    normalize: bool = True,
) -> Mixer:
    """Linear attention between projections.

    Args:
        dim: model dimension m.
        heads: heads h, dividing m.
        causal: token t sees tokens <= t; then there is no `context`.
        feature_map: as in `linear_attention`.
        normalize: as in `linear_attention`.

    Returns:
        A `Mixer`; its state is `[b, h, d, e (+ 1)]`.

    Raises:
        ValueError: sizes or options that do not fit.

    Example:
        >>> import jax
        >>> mixer = make(dim=8, heads=2, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_choice("feature_map", feature_map, sorted(FEATURE_MAPS))
    check_flag("normalize", normalize)
    size = dim // heads

    def core(params, query, key, value, context, **carry):
        return linear_attention(
            query, key, value, feature_map=feature_map, normalize=normalize,
            causal=causal, mask=context.real, starts=context.starts, **carry,
        )  # fmt: skip

    def empty_state(batch, dtype):
        return jnp.zeros((batch, heads, size, size + normalize), dtype)

    return linear_mixer(
        "linear_attention", dim=dim, heads=heads, causal=causal, core=core, empty_state=empty_state
    )


MECHANISM = Mechanism(
    name="linear_attention",
    title="Linear attention",
    arxiv="2006.16236",
    family="linear",
    equation="o_i = sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j)",
    core=linear_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="causal",
)
