"""Affine-scaled attention (arXiv 2602.23057): weights of a row need not sum to one.

    o_i = sum_j ( alpha_i softmax_j( q_i . k_j / sqrt(d) ) + beta_i ) v_j    over visible keys j
    alpha_i = clip(0.1 x_i W + 0.5, 0, 1),   beta_i = (alpha_mean - alpha_i) / N

alpha is a number of each token and head, alpha_mean a moving average of it over training. N is the
number of keys that query i may see, or the length of the sequence; the paper has the length and
does not spell out masks. A key that is hidden gets no beta: it would leak.

Distinctive: a token with nothing to look for spreads its attention evenly instead of giving it to
a sink; weights may be negative. It costs one prefix sum of the values.

Limits: alpha = alpha_mean = 1 is softmax attention; alpha = 0 averages the visible values. With N
the number of visible keys, rows sum to alpha_mean whatever alpha is.

The average is a statistic, not a weight: no gradient reaches it, and weight decay is not for it. It
starts at 0; each step of training gives the next one (`Mixer.auxiliary`, `update_average`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.attention import attend, masks
from jattn.checks import check_choice
from jattn.mechanisms.frames.attention_mixer import attention_mixer
from jattn.mechanisms.frames.tokens import clean_tokens
from jattn.mechanisms.layers.linear_maps import linear, linear_init
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Auxiliary, Mixer, replace_fields

ACTIVATIONS = {
    "clip": lambda z: jnp.clip(0.1 * z + 0.5, 0, 1),
    "sigmoid": jax.nn.sigmoid,
}
DENOMINATORS = ("visible", "length")


def affine_attention(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b s g d"],
    value: Float[Array, "b s g e"],
    alpha: Float[Array, "b t h"],
    average: Float[Array, ""],
    *,
    denominator: str = "visible",
    mask=None,
) -> Float[Array, "b t h e"]:
    """Softmax attention scaled by alpha, and shifted towards the mean of the visible values.

        alpha_i O_i + (average - alpha_i) n_i / N mean_i(v)

    Args:
        query, key, value: `[b, t, h, d]`, `[b, s, g, d]`, `[b, s, g, e]`, g a divisor of h.
        alpha: `[b, t, h]`.
        average: the moving average of alpha.
        denominator: N, `"visible"`, the number n_i of keys the query may see, or `"length"`, s.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]`.

    Raises:
        ValueError: an unknown denominator.

    Reference:
        arXiv 2602.23057.

    Example:
        >>> x, alpha = jnp.ones((1, 5, 4, 8)), jnp.full((1, 5, 4), 0.5)
        >>> float(affine_attention(x, x, x, alpha, jnp.float32(0.75))[0, 0, 0, 0])
        0.75
    """
    check_choice("denominator", denominator, DENOMINATORS)
    mean, counts = visible_mean(value, query.shape[1], query.shape[2], mask)
    rest = average - alpha
    if denominator == "length":
        rest *= counts / value.shape[1]
    out = attend(query, key, value, mask=mask)
    scaled = alpha[..., None] * out + rest[..., None] * mean
    return scaled.astype(out.dtype)


def visible_mean(
    value: Float[Array, "b s g e"], queries: int, heads: int, mask: Any = None
) -> tuple[Float[Array, "b t h e"], Float[Array, "#b t #h"]]:
    """Mean of the values that each query may see, and their number.

    A prefix sum where the mask is none or causal; attention with equal scores elsewhere.

    Args:
        value: `[b, s, g, e]`.
        queries: t.
        heads: h, a multiple of g.
        mask: anything `jattn.attend` takes.

    Returns:
        `[b, t, h, e]` in float32 (float64), 0 where nothing is visible; and the numbers,
        broadcastable to `[b, t, h]`.
    """
    value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
    b, s, g, _ = value.shape
    if mask is not None and not (isinstance(mask, masks.Mask) and mask == masks.causal()):
        zeros = jnp.zeros((b, max(queries, s), heads, 1), value.dtype)
        mean, lse = attend(zeros[:, :queries], zeros[:, :s, :1], value, mask=mask, return_lse=True)
        return mean, jnp.exp(lse)
    counts = jnp.full(queries, s) if mask is None else jnp.minimum(jnp.arange(queries) + 1, s)
    counts = counts.astype(value.dtype)[None, :, None]
    if mask is None:
        sums = jnp.broadcast_to(value.sum(1, keepdims=True), (b, queries, *value.shape[2:]))
    else:
        sums = jnp.cumsum(value, axis=1)[:, jnp.minimum(jnp.arange(queries), s - 1)]
    return jnp.repeat(sums / counts[..., None], heads // g, axis=2), counts


def alpha_of(
    x: Float[Array, "b t m"], weights: Float[Array, "m h"], activation: str = "clip"
) -> Float[Array, "b t h"]:
    """The scale of each token and head, in [0, 1], float32 (float64).

    Args:
        x: tokens.
        weights: W.
        activation: `"clip"`, `clip(0.1 x W + 0.5, 0, 1)`, or `"sigmoid"`.
    """
    logits = linear(x, weights)
    return ACTIVATIONS[activation](logits.astype(jnp.promote_types(x.dtype, jnp.float32)))


def update_average(
    params: dict[str, Array],
    x: Float[Array, "b t m"],
    *,
    activation: str = "clip",
    rho: float = 0.9,
    real: Bool[Array, "b t"] | None = None,
) -> dict[str, Array]:
    """The parameters after one step of training: rho average + (1 - rho) mean(alpha).

    Args:
        params: of the mixer.
        x: the tokens it was given in this step.
        activation: the mixer's.
        rho: how much of the average stays.
        real: True where a token is real; default everywhere.

    Returns:
        The same parameters with another `average`.

    Example:
        >>> mixer = make(dim=8, heads=2)
        >>> params = mixer.init(jax.random.key(0)) | {"alpha": jnp.zeros((8, 2))}
        >>> round(float(update_average(params, jnp.ones((1, 3, 8)))["average"]), 4)
        0.05
    """
    alpha = alpha_of(x, params["alpha"], activation)
    where = None if real is None else real[..., None]
    average = rho * params["average"] + (1 - rho) * jnp.mean(alpha, where=where)
    return params | {"average": average.astype(params["average"].dtype)}


def make(
    *,
    dim: int,
    heads: int,
    causal: bool = False,
    kv_heads: int | None = None,
    rotary: bool = False,
    window: int | None = None,
    activation: str = "clip",
    denominator: str = "visible",
) -> Mixer:
    """Makes the mixer.

    Args:
        dim: model dimension m.
        heads: query heads h, a divisor of m.
        causal: hide later tokens.
        kv_heads: key-value heads g, a divisor of h; default h.
        rotary: rotate queries and keys by their positions; self-attention only.
        window: a token sees itself and window - 1 tokens before it (and after it, unless causal).
        activation: `"clip"` or `"sigmoid"`; see `alpha_of`.
        denominator: `"visible"` or `"length"`; see `affine_attention`. Token by token the length
            is that of the cache.

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=32, heads=4, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 6, 32))).shape
        (1, 6, 32)
    """
    check_choice("activation", activation, list(ACTIVATIONS))
    check_choice("denominator", denominator, DENOMINATORS)

    def init(key):
        return {"alpha": linear_init(key, dim, heads), "average": jnp.zeros(())}

    def core(params, query, key, value, context):
        return affine_attention(
            query,
            key,
            value,
            alpha_of(context.x, params["alpha"], activation),
            lax.stop_gradient(params["average"]),
            denominator=denominator,
            mask=context.mask,
        )

    def auxiliary(params, x, /, *, context=None, mask=None, positions=None, key=None):
        x, real = clean_tokens(x, context=context, mask=mask)
        moved = update_average(params, x, activation=activation, real=real)
        return Auxiliary({}, {"average": moved["average"]})

    mixer = attention_mixer(
        "affine_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        kv_heads=kv_heads,
        init=init,
        rotary=rotary,
        window=window,
        whole_cache=denominator == "length",
    )
    if denominator == "length":  # of the cache, which only steps know
        mixer = replace_fields(mixer, prefill=None)
    return replace_fields(mixer, auxiliary=auxiliary, statistics=("average",))


MECHANISM = Mechanism(
    name="affine_attention",
    title="Affine-scaled attention",
    arxiv="2602.23057",
    family="softmax",
    equation="o_i = sum_j (a_i softmax_j(q_i.k_j / sqrt(d)) + (mean a - a_i) / n_i) v_j",
    core=affine_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="quadratic",
    equivariant=True,
    parameters=("alpha", "average"),
    statistics=("average",),
)
