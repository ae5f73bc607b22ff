"""The content-only filter: maps without what holds no content (sinks in multilingual NMT, 2026).

    A'_qk = A_qk c_k / sum_j A_qj c_j

with c = 0 at end tokens, language tags, punctuation. It is a logit bias of -inf there. What maps
of two runs have in common is often hidden behind the share that goes to such tokens.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jattn.lens.methods.method import Method, example_maps


def noncontent_share(
    probs: Float[Array, "*heads t s"], content: Bool[Array, " s"]
) -> Float[Array, "*heads"]:
    """Mean weight of rows on keys without content, in [0, 1]."""
    return jnp.where(content, 0, probs).sum(-1).mean(-1)


def content_only(
    probs: Float[Array, "*heads t s"], content: Bool[Array, " s"]
) -> Float[Array, "*heads t s"]:
    """Filtered maps; a row without any content stays.

    Example:
        >>> p = jnp.array([[0.5, 0.25, 0.25]])
        >>> content_only(p, jnp.array([False, True, True])).tolist()
        [[0.0, 0.5, 0.5]]
    """
    kept = jnp.where(content, probs, 0)
    total = kept.sum(-1, keepdims=True)
    return jnp.where(total > 0, kept / jnp.where(total > 0, total, 1), probs)


def map_similarity(
    one: Float[Array, "*heads t s"], other: Float[Array, "*heads t s"]
) -> Float[Array, "*heads"]:
    """Cosine of two maps."""
    product = (one * other).sum((-2, -1))
    lengths = jnp.linalg.norm(one, axis=(-2, -1)) * jnp.linalg.norm(other, axis=(-2, -1))
    return product / jnp.where(lengths > 0, lengths, 1)


def _example(key):
    index = jnp.arange(8)
    probs: jax.Array = example_maps(key, 2, 3, 8, 8)
    return dict(probs=probs, content=(index > 0) & (index != 4))


METHOD = Method(
    name="content_only",
    title="Attention sinks in multilingual neural machine translation",
    arxiv=None,
    kind="maps",
    function=content_only,
    example=_example,
    identity={"content": jnp.ones(8, bool)},
)
