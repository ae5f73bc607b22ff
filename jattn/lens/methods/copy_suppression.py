"""Copy suppression: heads that lower the token they attend to (arXiv 2310.04625).

By weights: with EE = E + MLP_0(E) of a token S, a head writes lo_S = W_U W_O W_V norm(EE_S). If S
itself is among the k most lowered tokens the head suppresses it; among the most raised, it copies.

By cause: in CSPA a head keeps, of each source token s, only what it writes along the unembeddings
of the tokens that s suppresses most, and of those only the K pairs that the stream at the
destination predicts most. Terms are centred: what is not kept is ablated to its mean.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count
from jattn.lens.methods.method import Method, example_model
from jattn.mechanisms.layers.norms import rms_norm
from jattn.nn import Llama


class SelfRank(NamedTuple):
    """Shares of tokens that a head writes most strongly against, or for.

    Attributes:
        suppression: the token is among the k most lowered.
        copying: it is among the k most raised.
    """

    suppression: Float[Array, ""]
    copying: Float[Array, ""]


def effective_embedding(model: Llama, tokens: Int[Array, " n"]) -> Float[Array, "n m"]:
    """Embeddings of tokens behind the first layer's MLP, without its attention."""
    weights = model.arrays()
    first = {name: array[0] for name, array in weights["layers"].items()}
    x = weights["embed"][tokens]
    normed = rms_norm(x, first["mlp_norm"], eps=model.config.eps)
    inner = jax.nn.silu(normed @ first["gate"]) * (normed @ first["up"])
    return x + inner @ first["down"]


def written_logits(
    model: Llama, layer: Int[Array, ""] | int, head: int, tokens: Int[Array, " n"]
) -> Float[Array, "n vocab"]:
    """What a head adds to all logits where it attends to each of the tokens, the norm aside."""
    config, weights = model.config, model.arrays()
    own = {name: array[layer] for name, array in weights["layers"].items()}
    source = effective_embedding(model, tokens)
    normed = rms_norm(source, own["attention_norm"], eps=config.eps)
    group, width = head * config.kv_heads // config.heads, config.width
    value = normed @ own["value"][:, group * width : (group + 1) * width]
    out = value @ own["output"][head * width : (head + 1) * width]
    table = weights["embed"].T if config.tie_embeddings else weights["head"]
    return (out * weights["norm"]) @ table


def ov_self_rank(
    model: Llama, layer: Int[Array, ""] | int, head: int, tokens: Int[Array, " n"], *, k: int = 10
) -> SelfRank:
    """The weights' test of one head.

    Args:
        model: a `Llama`.
        layer, head: which; the layer may be traced.
        tokens: that are tried.
        k: how far from either end counts.
    """
    check_count("k", k)
    logits = written_logits(model, layer, head, tokens)
    own = jnp.take_along_axis(logits, tokens[:, None], 1)
    below, above = (logits < own).sum(1), (logits > own).sum(1)
    return SelfRank((below < k).mean(), (above < k).mean())


def cspa(
    probs: Float[Array, "t t"],
    written: Float[Array, "t m"],
    unembed: Float[Array, "m vocab"],
    resid: Float[Array, "t m"],
    *,
    k_source: int = 5,
    k_total: int = 10,
    mean: Float[Array, " m"] | None = None,
) -> Float[Array, "t m"]:
    """What is left of a head's output under copy-suppression-preserving ablation.

    Args:
        probs: its map.
        written: what it would write of each source, `v_s W_O`.
        unembed: directions of tokens, the final norm's weight in them.
        resid: the stream at each destination.
        k_source: how many tokens each source suppresses.
        k_total: how many pairs (source, token) are kept at a destination; 0 is mean ablation.
        mean: of what is written, over a data set; default over this text.

    Returns:
        The output that takes the place of the head's.
    """
    check_count("k_source", k_source)
    mean = written.mean(0) if mean is None else mean
    lowered = jax.lax.top_k(-(written @ unembed), k_source)[1]  # [s, k]
    directions = unembed.T[lowered]  # [s, k, m]
    seen = (probs > 0)[..., None]
    predicted = jnp.where(seen, jnp.einsum("tm,skm->tsk", resid, directions), -jnp.inf)
    flat = predicted.reshape(len(probs), -1)
    order = jnp.argsort(jnp.argsort(-flat, axis=-1), axis=-1).reshape(predicted.shape)
    kept: Bool[Array, "t s k"] = (order < k_total) & seen
    centred = written - mean

    def row(weights, kept):
        spans = jnp.where(kept[..., None], directions, 0)
        return (weights[:, None] * jax.vmap(projected)(spans, centred)).sum(
            0
        ) + weights.sum() * mean

    return jax.lax.map(lambda given: row(*given), (probs, kept))


def projected(span: Float[Array, "k m"], x: Float[Array, " m"]) -> Float[Array, " m"]:
    """x on the span of some vectors, of which zeros do not count."""
    inverse = jnp.linalg.pinv(span @ span.T, rtol=1e-5, hermitian=True)
    return span.T @ (inverse @ (span @ x))


def explained(kl_kept: Float[Array, " n"], kl_mean: Float[Array, " n"]) -> Float[Array, ""]:
    """Share of a head's effect that is copy suppression: 1 - KL(CSPA) / KL(mean ablation)."""
    return 1 - kl_kept.mean() / kl_mean.mean()


METHOD = Method(
    name="ov_self_rank",
    title="Copy suppression: comprehensively understanding an attention head",
    arxiv="2310.04625",
    kind="readout",
    function=ov_self_rank,
    example=lambda key: dict(model=example_model(key), layer=1, head=2, tokens=jnp.arange(11), k=2),
    bounds=(0.0, 1.0),
)
