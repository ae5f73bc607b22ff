"""Circuits: which heads they are made of, shared, emergent, and repaired by hand.

Circuit component reuse (arXiv 2310.08744): two tasks' circuits overlap, and heads that a task
lacks can be made to look where they should. Emergent heads (arXiv 2509.25758): those of a circuit
after training that were not in it before. Scores come from `lens.patching`: path patching, and
attribution patching with integrated gradients, of nodes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count
from jattn.lens.edits import At
from jattn.lens.methods.method import Method


def circuit(scores: Float[Array, "L h"], count: int) -> Bool[Array, "L h"]:
    """The heads with the largest magnitudes."""
    check_count("count", count)
    order = jnp.argsort(jnp.argsort(-jnp.abs(scores), axis=None))
    return (order < count).reshape(scores.shape)


def overlap(one: Bool[Array, "L h"], other: Bool[Array, "L h"]) -> Float[Array, ""]:
    """Share of one circuit's heads that are in the other.

    Example:
        >>> float(overlap(jnp.array([[True, True]]), jnp.array([[True, False]])))
        0.5
    """
    return (one & other).sum() / jnp.maximum(one.sum(), 1)


def emergent(after: Bool[Array, "L h"], before: Bool[Array, "L h"]) -> Bool[Array, "L h"]:
    """Heads of the circuit after training that were not in it before."""
    return after & ~before


def force_attention(heads: Bool[Array, "L h"], keys: Bool[Array, " s"]) -> At:
    """The edit that has heads attend from the last token to some keys alone, alike.

    Args:
        heads: which.
        keys: wanted; none of them changes nothing.
    """
    wanted = keys / jnp.maximum(keys.sum(), 1)
    return At("probs", _forced, (jnp.asarray(heads), wanted[None].astype(jnp.float32)))


def _forced(probs: Any, data: Any, seen: Any) -> Array:
    heads, wanted = data
    on = heads[:, None] & (wanted.sum() > 0)
    return probs.at[:, :, -1].set(jnp.where(on, wanted, probs[:, :, -1]))


def pairs(heads: Bool[Array, "L h"]) -> Int[Array, "n 2"]:
    """The (layer, head) pairs of a mask."""
    return jnp.argwhere(heads)


def _example(key):
    after, before = (jax.random.bernoulli(k, 0.5, (2, 4)) for k in jax.random.split(key))
    return dict(after=after, before=before)


EMERGENT = Method(
    name="emergent",
    title="Thinking sparks: emergent attention heads in reasoning models during post training",
    arxiv="2509.25758",
    kind="readout",
    function=emergent,
    example=_example,
    bounds=(0.0, 1.0),
)
METHOD = Method(
    name="force_attention",
    title="Circuit component reuse across tasks in transformer language models",
    arxiv="2310.08744",
    kind="edit",
    function=force_attention,
    example=lambda key: {
        "heads": jax.random.bernoulli(key, 0.5, (2, 4)).at[0, 0].set(True),
        "keys": jnp.arange(8) == 2,
    },
    identity={"keys": jnp.zeros(8, bool)},
)
