"""Introspective awareness: concepts are injected, and one asks whether that shows (2603.21396).

v_w is the residual stream at the end of a prompt about a word, less its mean over other words.
Injected from some token on, it is found by a read-out or a probe further up; TPR and FPR count
how often the model says so with and without.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_number
from jattn.lens.edits import ResidAdd
from jattn.lens.methods.method import Method


def concept_vectors(
    words: Float[Array, " n *site"], baseline: Float[Array, " k *site"]
) -> Float[Array, " n *site"]:
    """Streams of prompts about words, less the mean of those about baseline words."""
    return words - baseline.mean(0)


def inject(
    vector: Float[Array, " m"],
    layer: int,
    layers: int,
    length: int,
    *,
    strength: float = 8.0,
    start: int = 0,
) -> ResidAdd:
    """The edit that adds a concept behind one layer, from a token on.

    Args:
        vector: v_w.
        layer: counted from 0.
        layers: how many there are.
        length: of the text.
        strength: 0 changes nothing.
        start: first token that gets it.

    Raises:
        ValueError: a layer that there is not.
    """
    check_number("strength", strength)
    if not 0 <= layer < layers:
        raise ValueError(f"layer: expected 0 to {layers - 1}, got {layer}")
    there = jnp.zeros((layers, 1), vector.dtype).at[layer].set(1.0)
    where = (jnp.arange(length) >= start)[None, None]
    return ResidAdd(there * vector, strength, where)


def rates(
    said: Bool[Array, " n"], injected: Bool[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """True and false positive rate of what was said."""
    share = lambda chosen: (said & chosen).sum() / jnp.maximum(chosen.sum(), 1)
    return share(injected), share(~injected)


def rank_of(logits: Float[Array, "*batch vocab"], token: Int[Array, "*batch"]) -> Array:
    """How many tokens are likelier than one, 0 for the likeliest."""
    own = jnp.take_along_axis(logits, token[..., None], -1)
    return (logits > own).sum(-1)


METHOD = Method(
    name="inject",
    title="Mechanisms of introspective awareness",
    arxiv="2603.21396",
    kind="edit",
    function=inject,
    example=lambda key: dict(
        vector=jax.random.normal(key, (16,)), layer=0, layers=2, length=8, start=3
    ),
    identity={"strength": 0.0},
)
