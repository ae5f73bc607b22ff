"""Self-contradiction: of two sentences that cannot both be true, one is false, whatever the truth.

A text is sentences of facts (subject, predicate, object). For each fact other sentences are drawn
that fill the same gap; it is flagged where more than a share of them name another object. Rounds of
revising remove flagged facts, and drop sentences with none left; what is still flagged at the end
is dropped whole. Nothing outside of the model is asked.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.stats import binom

from jattn.checks import check_count, check_number, check_shape

KEPT, REVISED, DROPPED, GONE = 0, 1, 2, 3


def contradiction_rate(
    probability: Float[Array, "*n values"], *, greedy: bool = False
) -> Float[Array, "*n"]:
    """The chance that a second sentence names another object than the first.

    Args:
        probability: of the objects of a fact.
        greedy: the second one takes the likeliest: `1 - max p`; else it is drawn, too:
            `1 - sum p^2`.

    Example:
        >>> p = jnp.array([0.5, 0.5])
        >>> float(contradiction_rate(p)), float(contradiction_rate(p, greedy=True))
        (0.5, 0.5)
    """
    return 1 - (probability.max(-1) if greedy else (probability**2).sum(-1))


def flag_rate(
    probability: Float[Array, " values"], votes: int, *, threshold: float = 0.5
) -> Float[np.ndarray, " values"]:
    """Of each object, how often a fact that names it is flagged by an exact judge.

    It is, where more than a share of the votes name another one, of which there are
    `Binomial(votes, 1 - p)`.

    Example:
        >>> flag_rate(jnp.array([0.5, 0.5]), 1).tolist()
        [0.5, 0.5]
    """
    check_count("votes", votes)
    at_most = np.floor(threshold * votes + 1e-9)
    return binom.sf(at_most, votes, 1 - np.asarray(probability, np.float64))


class Detection(NamedTuple):
    """Of each threshold.

    Attributes:
        precision: right flags over flags; 0 without any.
        recall: right flags over contradictions; 0 without any.
        f1: their harmonic mean; 0 where both are.
    """

    precision: Float[Array, " thresholds"]
    recall: Float[Array, " thresholds"]
    f1: Float[Array, " thresholds"]


def detection(
    score: Float[Array, " pairs"],
    label: Bool[Array, " pairs"],
    threshold: Float[Array, " thresholds"],
) -> Detection:
    """How well `score > threshold` finds the pairs that contradict each other.

    Example:
        >>> found = detection(jnp.array([0.9, 0.1]), jnp.array([True, True]), jnp.array([0.5]))
        >>> found.precision.tolist(), found.recall.tolist()
        ([1.0], [0.5])
    """
    flagged = score > threshold[:, None]
    right = (flagged & label).sum(1)
    over = lambda count: right / jnp.maximum(count, 1)
    precision, recall = over(flagged.sum(1)), over(label.sum())
    f1 = 2 * right / jnp.maximum(flagged.sum(1) + label.sum(), 1)
    return Detection(precision, recall, f1)


class Mitigation(NamedTuple):
    """What became of a text of n sentences of up to f facts, in K rounds and a last one.

    Attributes:
        score: share of votes against each fact, `[K + 1, n, f]`; 0 where it is not asked.
        flagged: how many facts were, `[K + 1]`.
        decision: for each sentence `KEPT`, `REVISED`, `DROPPED` or `GONE`, `[K + 1, n]`.
        keep: facts that are left before each round, and at the end, `[K + 2, n, f]`.
    """

    score: Float[np.ndarray, "rounds n f"]
    flagged: Int[np.ndarray, " rounds"]
    decision: Int[np.ndarray, "rounds n"]
    keep: Bool[np.ndarray, "states n f"]


def mitigate(
    text: Int[Array, "n f 3"],
    alternatives: Int[Array, "rounds n f votes"],
    functional: Bool[Array, " predicates"],
    *,
    threshold: float = 0.5,
) -> Mitigation:
    """Removes what contradicts itself; see the module.

    Args:
        text: subject, predicate and object of the facts of each sentence; -1 = no fact.
        alternatives: objects that other sentences name in each round. The last round is the one
            that drops; with no other round, everything that is flagged is dropped at once.
        functional: predicates that can have one object only; others never contradict.
        threshold: a fact is flagged above this share of votes.

    Raises:
        ValueError: shapes that do not fit.

    Reference:
        arXiv 2305.15852.

    Example:
        >>> text = jnp.array([[[0, 0, 1], [0, 1, 2]]])  # one sentence of two facts
        >>> others = jnp.array([[[[3, 3], [2, 2]]], [[[3, 3], [2, 2]]]])
        >>> found = mitigate(text, others, jnp.array([True, True]))
        >>> found.decision.tolist(), found.keep[-1].tolist()
        ([[1], [0]], [[False, True]])
    """
    sizes: dict[str, int] = {}
    check_shape("text", text, "n f 3", sizes)
    check_shape("alternatives", alternatives, "rounds n f votes", sizes)
    check_number("threshold", threshold, least=0)
    facts, others = np.asarray(text), np.asarray(alternatives)
    can = np.asarray(functional)
    rounds = len(others)
    live = (facts >= 0).all(-1)
    asked = can[np.where(live, facts[..., 1], 0)]
    gone = np.zeros(len(facts), bool)
    score = np.zeros(others.shape[:3])
    flagged, decision, keep = np.zeros(rounds, int), np.zeros(others.shape[:2], int), [live]
    done = False
    for number, named in enumerate(others):
        decision[number] = np.where(gone, GONE, KEPT)
        if not done:
            differ = (named != facts[..., 2:]).mean(-1)
            score[number] = np.where(live & asked, differ, 0.0)
            flags = score[number] > threshold
            flagged[number] = flags.sum()
            done = not flags.any()
            hit = flags.any(1)
            drop = hit if number == rounds - 1 else hit & (flags == live).all(1)
            decision[number][hit] = REVISED
            decision[number][drop] = DROPPED
            live = live & ~flags & ~drop[:, None]
            gone = gone | drop
        keep.append(live)
    return Mitigation(score, flagged, decision, np.stack(keep))
