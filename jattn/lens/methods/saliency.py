"""LVLMs-Saliency: gradient times attention tells grounded tokens (arXiv 2601.20279).

    S = tril |A dL/dA|,  L = -log p(candidate);   summed over heads, each row over its length

The saliency of a candidate is that of the row that predicts it, on earlier output tokens (the row
of the candidate itself would be 0: it cannot reach the logits that predict it). SGRS accepts a
sampled candidate only if it is salient enough; LocoRE raises the weights of recent output tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_number
from jattn.lens.edits import KeyReweight
from jattn.lens.methods.method import Method, example_maps


class Choice(NamedTuple):
    """What a step of SGRS takes.

    Attributes:
        token: that is taken.
        accepted: whether it was salient enough; else it is the most salient of the candidates.
        saliency: of it.
    """

    token: Int[Array, ""]
    accepted: Bool[Array, ""]
    saliency: Float[Array, ""]


def saliency_maps(
    probs: Float[Array, "*layers h t s"], grads: Float[Array, "*layers h t s"]
) -> Float[Array, "*layers t s"]:
    """|A dL/dA| summed over heads, every row divided by its length; zeros stay.

    Args:
        probs: maps.
        grads: of the loss by them; `readouts.grad_times_attention` gives both.
    """
    raw = jnp.tril(jnp.abs(probs * grads)).sum(-3)
    length = jnp.linalg.norm(raw, axis=-1, keepdims=True)
    return raw / jnp.where(length > 0, length, 1)


def candidate_saliency(
    maps: Float[Array, "L t s"], row: int, outputs: Bool[Array, " s"]
) -> Float[Array, ""]:
    """Mean saliency of a row on the output tokens, over the layers given; 0 without any."""
    return jnp.where(outputs, maps[:, row], 0).sum() / jnp.maximum(outputs.sum() * len(maps), 1)


def sgrs_step(
    key: jax.Array,
    logits: Float[Array, " vocab"],
    saliency: Float[Array, " k"],
    candidates: Int[Array, " k"],
    history: Float[Array, " w"],
    *,
    alpha: float = 0.6,
    tries: int = 3,
) -> Choice:
    """One step of saliency-guided rejection sampling.

    Args:
        key: draws candidates without replacement.
        logits: of the next token.
        saliency: of each of the candidates.
        candidates: the K likeliest tokens.
        history: saliencies of the last accepted tokens; without any, zeros.
        alpha: the threshold is alpha times their mean; 0 accepts the first one.
        tries: R, how many are drawn.
    """
    check_count("tries", tries)
    noise = jax.random.gumbel(key, candidates.shape)
    order = jnp.argsort(-(logits[candidates] + noise))[:tries]
    enough = saliency[order] >= alpha * history.mean()
    first = order[jnp.argmax(enough)]
    chosen = jnp.where(enough.any(), first, saliency.argmax())
    return Choice(candidates[chosen], enough.any(), saliency[chosen])


def locore(length: int, *, start: int, beta: float = 0.15, window: int = 8) -> KeyReweight:
    """The edit that raises recent output tokens by 1 + beta, in every row.

    Rows are normalised, which the paper leaves open.

    Args:
        length: t.
        start: where the output begins.
        beta: 0 changes nothing.
        window: of tokens before a row that are raised.
    """
    check_number("beta", beta, least=0)
    back = jnp.arange(length)[:, None] - jnp.arange(length)
    near = (back > 0) & (back <= window) & (jnp.arange(length) >= start)
    return KeyReweight(jnp.where(near, 1 + beta, 1.0)[None, None, None])


def _example(key):
    maps, grads = jax.random.split(key)
    return dict(probs=example_maps(maps, 2, 3, 8, 8), grads=jax.random.normal(grads, (2, 3, 8, 8)))


METHOD = Method(
    name="saliency_maps",
    title="Hallucination begins where saliency drops",
    arxiv="2601.20279",
    kind="readout",
    function=saliency_maps,
    example=_example,
    bounds=(0.0, 1.0),
)
