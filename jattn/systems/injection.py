"""Self-injected hallucinations: captions made worse by their own author, for pairs of preference.

A caption's sentences are replaced by sentences about objects that are likely to be there and are
not mentioned: those that often go with one that is. Late sentences are replaced more often, with
weights

    w_j = a sqrt(j) + b,   a = 1 / (sqrt(n - 1) - sqrt(skip)),   b = 1 - a sqrt(skip)

which go from 1, for the first sentence that may be, to 2 for the last.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jattn.checks import check_count, check_number, check_shape


def cooccurrence(presence: Bool[Array, "captions objects"]) -> Int[Array, "objects objects"]:
    """How many captions name both objects; 0 on the diagonal.

    Raises:
        ValueError: no captions.

    Example:
        >>> cooccurrence(jnp.array([[True, True], [True, False]])).tolist()
        [[0, 1], [1, 0]]
    """
    check_shape("presence", presence, "captions objects", {})
    if not presence.shape[0]:
        raise ValueError("presence: expected at least one caption, got none")
    there = presence.astype(jnp.int32)
    counts = there.T @ there
    return jnp.where(jnp.eye(len(counts), dtype=bool), 0, counts)


def guide_candidates(
    counts: Int[Array, "objects objects"], presence: Bool[Array, "captions objects"], top: int
) -> Int[Array, "captions objects top"]:
    """For each caption and each key object: those that go with it most and are not named.

    Args:
        counts: of `cooccurrence`.
        presence: which objects a caption names.
        top: how many; more of them than there are objects are -1.

    Returns:
        Most frequent first, ties to the lower index; -1 where there are no more.

    Example:
        >>> counts = jnp.array([[0, 2, 1], [2, 0, 0], [1, 0, 0]])
        >>> guide_candidates(counts, jnp.array([[True, False, False]]), 2)[0, 0].tolist()
        [1, 2]
    """
    check_count("top", top)
    wanted = jnp.where(presence[:, None, :], 0, counts)  # [caption, key, other]
    order = jnp.argsort(-wanted, axis=-1, stable=True)[..., :top]
    there = jnp.take_along_axis(wanted, order, axis=-1) > 0
    found = jnp.where(there, order, -1)
    return jnp.pad(found, ((0, 0), (0, 0), (0, top - order.shape[-1])), constant_values=-1)


class Plan(NamedTuple):
    """For a caption of n sentences.

    Attributes:
        weights: probability that each sentence is the first to be replaced, `[n]`, sums to 1.
        count: how many are replaced.
        usable: whether the caption is used: at least one is, and at most n - skip.
    """

    weights: Float[np.ndarray, " n"]
    count: int
    usable: bool


def injection_plan(sentences: int, rate: float, skip: int = 1, *, late: bool = True) -> Plan:
    """How many sentences of a caption are replaced, and with what weights.

    Args:
        sentences: n.
        rate: share of them, rounded half to even.
        skip: sentences at the start that stay.
        late: later ones more often; False: all alike.

    Raises:
        ValueError: options out of range.

    Reference:
        arXiv 2509.11287.

    Example:
        >>> plan = injection_plan(6, 0.2)
        >>> plan.count, plan.weights.round(3).tolist()
        (1, [0.0, 0.129, 0.173, 0.206, 0.234, 0.259])
    """
    check_count("sentences", sentences)
    check_count("skip", skip, least=0)
    check_number("rate", rate, least=0)
    place = np.arange(sentences)
    may = place >= skip
    raw = may.astype(float)
    if late and sentences > skip + 1:
        slope = 1 / (np.sqrt(sentences - 1) - np.sqrt(skip))
        raw = np.where(may, slope * np.sqrt(place) + 1 - slope * np.sqrt(skip), 0.0)
    weights = raw / raw.sum() if may.any() else raw
    count = round(rate * sentences)
    return Plan(weights, count, 1 <= count <= sentences - skip)


def choose_sentences(
    weights: Float[Array, " sentences"], gumbel: Float[Array, "*n sentences"], count: int
) -> Int[Array, "*n count"]:
    """So many sentences without replacement, in order: the largest of `log w` and Gumbel noise.

    Example:
        >>> choose_sentences(jnp.array([0.0, 0.2, 0.8]), jnp.zeros(3), 1).tolist()
        [2]
    """
    check_count("count", count)
    logs = jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1.0)), -jnp.inf)
    return jnp.sort(lax.top_k(logs + gumbel, count)[1], axis=-1)


class Chair(NamedTuple):
    """How much captions say that is not there.

    Attributes:
        instances: mentions of absent objects over mentions.
        sentences: share of captions with one at least.
        recall: objects that are there and mentioned, over those that are there.
    """

    instances: Float[Array, ""]
    sentences: Float[Array, ""]
    recall: Float[Array, ""]


def chair(
    truth: Bool[Array, "captions objects"], mentions: Int[Array, "captions objects"]
) -> Chair:
    """Caption hallucination by exact objects.

    Args:
        truth: which objects are there.
        mentions: how often a caption names each.

    Raises:
        ValueError: shapes that do not fit, or no captions.

    Reference:
        arXiv 1809.02156.

    Example:
        >>> found = chair(jnp.array([[True, False]]), jnp.array([[1, 1]]))
        >>> [float(x) for x in found]
        [0.5, 1.0, 1.0]
    """
    sizes: dict[str, int] = {}
    check_shape("truth", truth, "captions objects", sizes)
    check_shape("mentions", mentions, "captions objects", sizes)
    if not sizes["captions"]:
        raise ValueError("truth: expected at least one caption, got none")
    absent = jnp.where(truth, 0, mentions)
    named = truth & (mentions > 0)
    return Chair(
        absent.sum() / jnp.maximum(mentions.sum(), 1),
        (absent.sum(1) > 0).sum() / mentions.shape[0],
        named.sum() / jnp.maximum(truth.sum(), 1),
    )
