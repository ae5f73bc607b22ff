"""The definition of `attend`, dense: every score at once. All backends are tested against it.

It holds a few `[b, h, t, s]` arrays. Differentiation of any order works, forward mode too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.case import Case, apply_score_mod, hide_nonfinite


def reference(case: Case) -> tuple[Array, Array, Array]:
    """Output `[b, t, h, e]`, lse `[b, t, h]` and weights `[b, h, t, s]`.

    lse is the log of the row sum, sink included, -inf where the sum is zero; without division by
    the row sum it means nothing.
    """
    normalizer, sink = case.normalizer, case.sink
    heads = case.query.shape[2]
    query, key, value = (
        jnp.swapaxes(x, 1, 2).astype(case.dtype) for x in (case.query, case.key, case.value)
    )
    allowed, poison = None, None
    if case.mask is not None:
        allowed = case.mask.dense(query.shape[2], key.shape[2])
        key, value, poison = hide_nonfinite(key, value, heads)
    key, value = (jnp.repeat(x, heads // x.shape[1], axis=1) for x in (key, value))

    # score -> bias -> score_mod -> mask
    highest = jax.lax.Precision.HIGHEST
    score = jnp.einsum("bhtd,bhsd->bhts", query * case.scale, key, precision=highest)
    if case.bias is not None:
        score += case.bias
    if case.score_mod is not None:
        score = apply_score_mod(
            case.score_mod, score, jnp.arange(score.shape[2]), jnp.arange(score.shape[3])
        )
    if poison is not None:
        score += poison
    if normalizer.shift is not None:
        score -= normalizer.shift

    # weights, not yet divided
    if normalizer.running_max:
        hidden = score if allowed is None else jnp.where(allowed, score, -jnp.inf)
        largest = hidden.max(-1, initial=-jnp.inf)
        if sink is not None:
            largest = jnp.maximum(largest, sink)
        largest = jax.lax.stop_gradient(jnp.where(largest == -jnp.inf, 0, largest))
        weight = normalizer.function(hidden - largest[..., None])
    else:
        # Masked twice: in front, so that no gradient meets an overflow; behind, because f(0) > 0.
        largest = jnp.zeros(score.shape[:3], score.dtype)
        weight = normalizer.function(score if allowed is None else jnp.where(allowed, score, 0))
        weight = weight if allowed is None else jnp.where(allowed, weight, 0)

    total = weight.sum(-1)
    if sink is not None:
        total += normalizer.function(sink - largest)
    some = total != 0
    safe = jnp.where(some, total, 1)
    lse = jnp.where(some, largest + jnp.log(safe), -jnp.inf)
    out = jnp.einsum("bhts,bhse->bthe", weight, value, precision=highest)
    if normalizer.divide:
        out /= jnp.swapaxes(safe, 1, 2)[..., None]
    if case.return_weights and normalizer.divide:
        weight /= safe[..., None]
    return out.astype(case.query.dtype), jnp.swapaxes(lse, 1, 2), weight
