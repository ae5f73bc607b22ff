"""The definition of `attend`, dense: every score at once. All backends are tested against it.

It holds a few `[b, h, t, s]` arrays. Differentiation of any order works, forward mode too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jattn.attention.attention_args import AttentionArgs, modify
from jattn.attention.dropout import kept
from jattn.attention.nonfinite import hide_nonfinite, hide_nonfinite_query


@jax.jit
def reference(args: AttentionArgs) -> tuple[Array, Array | None, Array | None]:
    """Output `[b, t, h, e]`, and lse `[b, t, h]` and weights `[b, h, t, s]` where asked for.

    lse is the log of the row sum, sink included, -inf where the sum is zero.
    """
    normalizer, sink = args.normalizer, args.sink
    heads = args.query.shape[2]
    query, key, value = (
        jnp.swapaxes(x, 1, 2).astype(args.dtype) for x in (args.query, args.key, args.value)
    )
    t, s = query.shape[2], key.shape[2]
    allowed, bad = jnp.ones((1, 1, 1, 1), bool), None
    if args.mask is not None:
        allowed = args.mask.dense(t, s)
        query, bad_query = hide_nonfinite_query(query)
        key, value, bad_key = hide_nonfinite(key, value, heads)
        bad = bad_query + bad_key
    key, value = (jnp.repeat(x, heads // x.shape[1], axis=1) for x in (key, value))

    # score -> bias -> score_mod -> mask; a score of -inf is hidden like one that is masked
    highest = jax.lax.Precision.HIGHEST
    score = jnp.einsum("bhtd,bhsd->bhts", query * args.scale, key, precision=highest)
    if args.bias is not None:
        allowed &= args.bias != -jnp.inf
        score += jnp.where(args.bias != -jnp.inf, args.bias, 0).astype(score.dtype)
    if args.score_function is not None:
        score = modify(args, jnp.where(allowed, score, 0), jnp.arange(t), jnp.arange(s))
        allowed &= score != -jnp.inf
    if bad is not None:
        score += bad
    if normalizer.shift is not None:
        score -= normalizer.shift

    # weights, not yet divided
    largest = jnp.zeros(score.shape[:3], score.dtype)
    if normalizer.running_max:
        hidden = jnp.where(allowed, score, -jnp.inf)
        largest = hidden.max(-1, initial=-jnp.inf)
        if sink is not None:
            largest = jnp.maximum(largest, sink)
        largest = jax.lax.stop_gradient(jnp.where(largest == -jnp.inf, 0, largest))
        weight = normalizer.function(hidden - largest[..., None])
    else:
        # Masked twice: in front, so that no gradient meets an overflow; behind, because f(0) > 0.
        weight = jnp.where(allowed, normalizer.function(jnp.where(allowed, score, 0)), 0)

    total = weight.sum(-1)
    if sink is not None:
        total += normalizer.function(sink - largest)
    some = total != 0
    safe = jnp.where(some, total, 1)
    if normalizer.divide:
        weight /= safe[..., None]
    if args.dropout is not None:
        words = args.dropout.words[..., None, None]
        index = jnp.arange(t)[:, None], jnp.arange(s)
        weight *= kept(args.dropout.rate, (words[0], words[1]), *index)
    out = jnp.einsum("bhts,bhse->bthe", weight, value, precision=highest)
    out = jnp.where(jnp.swapaxes(some, 1, 2)[..., None], out, 0)  # no gradient without a key
    lse = jnp.where(some, largest + jnp.log(safe), -jnp.inf) if args.return_lse else None
    return (
        out.astype(args.out_dtype),
        None if lse is None else jnp.swapaxes(lse, 1, 2),
        weight if args.return_weights else None,
    )
