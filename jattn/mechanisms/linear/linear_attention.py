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

from jattn.checks import check_choice
from jattn.mechanisms.mixer import Mechanism, Mixer
from jattn.mechanisms.projections import (
    check_heads,
    check_tokens,
    linear,
    output,
    padding,
    qkvo_init,
    split_heads,
)
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
        out, state = recur(query, key, value, initial_state=initial_state, return_state=True)
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
        >>> params = mixer.init(jax.random.key(0))
        >>> jax.jit(mixer.apply)(params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_choice("feature_map", feature_map, sorted(FEATURE_MAPS))
    options: dict[str, Any] = {"feature_map": feature_map, "normalize": normalize, "causal": causal}
    size = dim // heads

    def init(key):
        return qkvo_init(key, dim, heads)

    def arrays(params, x, source):
        parts = (("query", x), ("key", source), ("value", source))
        return [split_heads(linear(of, params[name]), heads) for name, of in parts]

    def apply(params, x, /, *, context=None, mask=None, positions=None, key=None):
        if causal and context is not None:
            raise ValueError("context: causal linear attention mixes x with itself; expected None")
        source = check_tokens(dim, x, context, positions)
        real = padding(mask, *source.shape[:2])
        out = linear_attention(*arrays(params, x, source), mask=real, **options)
        return output(params, out)

    def init_state(params, batch_size, max_length):
        return jnp.zeros((batch_size, heads, size, size + normalize))

    def step(params, x, state):
        x = x[:, None]
        out, state = linear_attention(
            *arrays(params, x, x), initial_state=state, return_state=True, **options
        )
        return output(params, out)[:, 0], state

    return Mixer(init, apply, init_state, step) if causal else Mixer(init, apply)


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
)
