"""AttentionInfluence: texts that need retrieval heads are worth training on (arXiv 2505.07293).

A head's retrieval score is the share of answer tokens that it copies: the row that predicts the
token has its largest weight in the needle, on that very token. The reference model is the model
with its best heads masked, and

    influence(text) = (loss_reference - loss) / loss

Masking makes a head's weights uniform over the keys it sees, or its reads zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.lens.edits import At
from jattn.lens.methods.method import Method, example_maps


def retrieval_scores(
    probs: Float[Array, "*heads t t"],
    tokens: Int[Array, " t"],
    answer: Bool[Array, " t"],
    needle: Bool[Array, " t"],
) -> Float[Array, "*heads"]:
    """Share of the answer's tokens that each head copies from the needle, in [0, 1].

    Args:
        probs: maps.
        tokens: of the text.
        answer: which positions are the answer; the row before each predicts it.
        needle: which positions may be copied from.
    """
    rows = probs[..., :-1, :]
    place = rows.argmax(-1)
    copied = needle[place] & (tokens[place] == tokens[1:])
    return jnp.where(answer[1:], copied, False).sum(-1) / jnp.maximum(answer[1:].sum(), 1)


def best_heads(scores: Float[Array, "L h"], share: float = 0.05) -> Bool[Array, "L h"]:
    """The share of heads with the highest scores, one at least."""
    count = max(int(share * scores.size), 1)
    return (jnp.argsort(jnp.argsort(-scores, axis=None)) < count).reshape(scores.shape)


def uniform_heads(heads: Bool[Array, "L h"]) -> At:
    """Makes some heads attend to all keys they see alike."""
    return At("probs", _uniform, jnp.asarray(heads))


def attention_influence(
    reference: Float[Array, " n"], base: Float[Array, " n"]
) -> Float[Array, " n"]:
    """How much worse texts are predicted without the heads, relative to their loss.

    Example:
        >>> attention_influence(jnp.array([3.0]), jnp.array([2.0])).tolist()
        [0.5]
    """
    return (reference - base) / base


def _uniform(probs: Any, heads: Any, seen: Any) -> Array:
    t, s = probs.shape[-2:]
    allowed = jnp.broadcast_to(seen["mask"].dense(t, s), probs.shape)
    count = jnp.maximum(allowed.sum(-1, keepdims=True), 1)
    return jnp.where(heads[:, None, None], allowed / count, probs)


def _example(key):
    maps, tokens = jax.random.split(key)
    index = jnp.arange(8)
    tokens = jax.random.randint(tokens, (8,), 0, 3)
    probs = example_maps(maps, 2, 3, 8, 8)
    return dict(probs=probs, tokens=tokens, answer=index > 5, needle=index < 4)


METHOD = Method(
    name="retrieval_scores",
    title="AttentionInfluence: weak-to-strong pretraining data selection",
    arxiv="2505.07293",
    kind="readout",
    function=retrieval_scores,
    example=_example,
    bounds=(0.0, 1.0),
)
