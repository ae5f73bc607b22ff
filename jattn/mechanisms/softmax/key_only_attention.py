"""Key-only attention, the non-approximate form of deconstructed attention (arXiv 2510.11602).

    o_i = sum_{j <= i} exp(a_j) v_j / sum_{j <= i} exp(a_j),   a_j = silu(q_j) . k_j / sqrt(d)

Distinctive: no token is compared with another. A score is a matter of the key alone, so a layer is
a weighted running mean of values, of linear cost and with e + 1 numbers a head to remember.

Limits: equal scores give the running mean. Without causality all tokens get the same output.

On its own in every layer it does not train well without `qk_norm`; every other layer it does.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jattn.attention import attend
from jattn.checks import check_flag, check_shape
from jattn.mechanisms.frames.linear_mixer import linear_mixer
from jattn.mechanisms.layers.heads import project_qkv, qkvo_init
from jattn.mechanisms.layers.norms import rms_norm
from jattn.mechanisms.layers.size_checks import check_heads
from jattn.mechanisms.mechanism import Mechanism
from jattn.mechanisms.mixer import Mixer
from jattn.recurrence import recur


class RunningMean(NamedTuple):
    """State of the weighted mean so far, in multiples of exp(largest).

    Attributes:
        sums: of exp(a_j) v_j and, in the last column, of exp(a_j); `[b, h, 1, e + 1]`.
        largest: score so far, `[b, h]`; -inf where there was none.
    """

    sums: Float[Array, "b h 1 n"]
    largest: Float[Array, "b h"]


def key_only_scores(
    query: Float[Array, "b s h d"], key: Float[Array, "b s h d"]
) -> Float[Array, "b s h"]:
    """a_j = silu(q_j) . k_j / sqrt(d), in float32 (float64)."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    query, key = jax.nn.silu(query.astype(wide)), key.astype(wide)
    return (query * key).sum(-1) * query.shape[-1] ** -0.5


def key_only_attention(
    scores: Float[Array, "b s h"],
    value: Float[Array, "b s h e"],
    *,
    causal: bool = False,
    mask: Bool[Array, "b s"] | None = None,
    starts: Bool[Array, "b s"] | None = None,
    initial_state: RunningMean | None = None,
    return_state: bool = False,
) -> Any:  # One array, or with `return_state` a pair: see Returns.
    """Values averaged with weights exp(scores).

    Args:
        scores: a, `[b, s, h]`.
        value: `[b, s, h, e]`.
        causal: output i averages tokens up to i; else there is one output, of all.
        mask: True for real tokens, `[b, s]`; default all are. Where there is none yet, 0.
        starts: causal only; True where a document begins, which sees nothing of those before.
        initial_state: causal only; of the tokens before.
        return_state: causal only; return the state behind the last token, too.

    Returns:
        `[b, s, h, e]` if causal, else `[b, 1, h, e]`, in value's dtype; with `return_state` the
        pair of it and a `RunningMean`.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2510.11602.

    Example:
        >>> value = jnp.arange(4.0)[None, :, None, None]
        >>> key_only_attention(jnp.zeros((1, 4, 1)), value, causal=True).ravel().tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    sizes: dict[str, int] = {}
    check_shape("scores", scores, "b s h", sizes)
    check_shape("value", value, "b s h e", sizes)
    wide = jnp.promote_types(jnp.promote_types(scores.dtype, value.dtype), jnp.float32)
    scores = scores.astype(wide)
    b, _, h = scores.shape
    if not causal:
        nothing = jnp.zeros((b, 1, h, 1), wide)
        same = jnp.zeros((*scores.shape, 1), wide)
        bias = jnp.swapaxes(scores, 1, 2)[:, :, None]
        hidden = None if mask is None else mask[:, None, None]
        out = attend(nothing, same, value, bias=bias, mask=hidden)
        return out.astype(value.dtype)

    # On the recurrence, with sums kept as multiples of exp(largest score so far). As it cancels
    # in the quotient, no gradient need go through it.
    hidden = scores if mask is None else jnp.where(mask[..., None], scores, -jnp.inf)
    if initial_state is None:
        initial_state = RunningMean(
            jnp.zeros((b, h, 1, value.shape[3] + 1), wide), jnp.full((b, h), -jnp.inf, wide)
        )
    before = initial_state.largest.astype(wide)[:, None]
    largest = _running_max(jnp.concatenate([before, lax.stop_gradient(hidden)], 1), starts)
    before, largest = largest[:, :-1], largest[:, 1:]
    if starts is not None:
        before = jnp.where(starts[..., None], -jnp.inf, before)
    # Where there was nothing there is nothing to decay; -inf less -inf would be NaN.
    started = before > -jnp.inf
    decay = jnp.where(started, before - jnp.where(started, largest, 0), 0)
    if starts is not None:
        decay = jnp.where(starts[..., None], -jnp.inf, decay)
    there = hidden > -jnp.inf
    weight = jnp.where(there, jnp.exp(jnp.where(there, hidden - largest, 0)), 0)
    counted = jnp.concatenate([value.astype(wide), jnp.ones((*scores.shape, 1), wide)], -1)
    ones = jnp.ones((*scores.shape, 1), wide)
    sums, state = recur(
        ones, weight[..., None], counted, decay=decay,
        initial_state=initial_state.sums, return_state=True,
    )  # fmt: skip
    total = sums[..., -1:]
    out = (sums[..., :-1] / jnp.where(total == 0, 1, total)).astype(value.dtype)
    return (out, RunningMean(state, largest[:, -1])) if return_state else out


def _running_max(
    scores: Float[Array, "b n h"], starts: Bool[Array, "b s"] | None
) -> Float[Array, "b n h"]:
    """The largest score so far, of s tokens behind a first number; since the last start."""
    if starts is None:
        return lax.cummax(scores, axis=1)

    def later(a, b):
        (begun_a, max_a), (begun_b, max_b) = a, b
        return begun_a | begun_b, jnp.where(begun_b, max_b, jnp.maximum(max_a, max_b))

    begun = jnp.broadcast_to(jnp.pad(starts, ((0, 0), (1, 0)))[..., None], scores.shape)
    return lax.associative_scan(later, (begun, scores), axis=1)[1]


def make(*, dim: int, heads: int, causal: bool = False, qk_norm: bool = False) -> Mixer:
    """Makes the mixer; its state is a `RunningMean`.

    Args:
        dim: model dimension m.
        heads: heads h, a divisor of m.
        causal: token t sees tokens <= t; then there is no `context`.
        qk_norm: divide queries and keys of each head by their root mean square, times a learned
            weight of each channel (`query_norm`, `key_norm`).

    Raises:
        ValueError: a size that does not fit.

    Example:
        >>> mixer = make(dim=8, heads=2, causal=True)
        >>> params = jax.eval_shape(mixer.init, jax.random.key(0))
        >>> jax.eval_shape(mixer.apply, params, jnp.ones((1, 5, 8))).shape
        (1, 5, 8)
    """
    check_heads(dim, heads)
    check_flag("qk_norm", qk_norm)

    def init(key):
        norms = {name: jnp.ones(dim // heads) for name in ("query_norm", "key_norm")}
        return qkvo_init(key, dim, heads) | (norms if qk_norm else {})

    def project(params, x, source):
        return project_qkv(params, source, source)

    def core(params, query, key, value, context, **carry):
        if qk_norm:
            query = rms_norm(query, params["query_norm"])
            key = rms_norm(key, params["key_norm"])
        return key_only_attention(
            key_only_scores(query, key), value,
            causal=causal, mask=context.real, starts=context.starts, **carry,
        )  # fmt: skip

    def empty_state(batch, dtype):
        sums = jnp.zeros((batch, heads, 1, dim // heads + 1), dtype)
        return RunningMean(sums, jnp.full((batch, heads), -jnp.inf, dtype))

    return linear_mixer(
        "key_only_attention",
        dim=dim,
        heads=heads,
        causal=causal,
        core=core,
        empty_state=empty_state,
        init=init,
        project=project,
    )


MECHANISM = Mechanism(
    name="key_only_attention",
    title="Deconstructing attention: scores of keys alone",
    arxiv="2510.11602",
    family="softmax",
    equation="o_i = sum_{j<=i} softmax_j(silu(q_j).k_j / sqrt(d)) v_j",
    core=key_only_attention,
    make=make,
    causal=True,
    bidirectional=True,
    cross=True,
    streaming=True,
    cost="linear",
    equivariant=True,
    documents="causal",
)
