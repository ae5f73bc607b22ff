"""Selective token emphasis: logits of chosen tokens of a span are raised (arXiv 2501.12206).

The tokens are those of the span with the most attention from its last (summary) token; heads take
part by their sensitivity s_h, their weight on the span over that of the most sensitive one:

    logit'_k = logit_k + alpha s_h |logit_k|     for chosen k, beta for the summary token itself

The formula is read from public summaries; sensitivities are of the same row.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.checks import check_number
from jattn.lens.edits import At
from jattn.lens.methods.method import Method


def emphasised_tokens(
    summary_row: Float[Array, " s"], span: Bool[Array, " s"], share: float = 0.25
) -> Bool[Array, " s"]:
    """The share of the span that the summary token attends to most, one at least."""
    inside = jnp.where(span, summary_row, -jnp.inf)
    order = jnp.argsort(jnp.argsort(-inside))
    return span & (order < jnp.maximum(jnp.ceil(share * span.sum()), 1))


def head_sensitivity(
    row: Float[Array, "*batch h s"], span: Bool[Array, " s"]
) -> Float[Array, "*batch h"]:
    """Each head's weight on the span, over the largest one's."""
    mass = jnp.where(span, row, 0).sum(-1)
    return mass / jnp.maximum(mass.max(-1, keepdims=True), 1e-30)


def token_emphasis(
    tokens: Bool[Array, " s"],
    sensitivity: Float[Array, "L h"],
    *,
    alpha: float = 0.7,
    summary: Bool[Array, " s"] | None = None,
    beta: float = 0.4,
) -> At:
    """The edit.

    Args:
        tokens: keys that are raised.
        sensitivity: s_h in [0, 1]; zeros in layers that are left alone.
        alpha: strength.
        summary: the key of the summary token; default none.
        beta: strength of that.
    """
    check_number("alpha", alpha, least=0)
    check_number("beta", beta, least=0)
    strength = jnp.where(tokens, alpha, 0.0)
    if summary is not None:
        strength = jnp.where(summary, beta, strength)
    return At("logits", _raised, (jnp.asarray(sensitivity), strength[None]))


def _raised(logits: Any, data: Any, seen: Any) -> Array:
    sensitivity, strength = data
    return logits + sensitivity[:, None, None] * strength * jnp.abs(logits)


METHOD = Method(
    name="token_emphasis",
    title="Fixing imbalanced attention to mitigate in-context hallucination of LVLMs",
    arxiv="2501.12206",
    kind="edit",
    function=token_emphasis,
    example=lambda key: {
        "tokens": jnp.arange(8) == 2,
        "sensitivity": jax.random.uniform(key, (2, 4)),
        "alpha": 4.0,
    },
    identity={"alpha": 0.0},
)
