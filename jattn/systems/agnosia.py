"""Agnosia: what a model that sees gets wrong about an aspect of images, beyond guessing.

An item has some options, of which one is right, and a score for each: the log-probability of its
words. With accuracy a of an aspect and chance c = 1 / options,

    agnosia = 1 - (a - c) / (1 - c)

which is 0 for one who sees, 1 for one who guesses, and larger for one who is misled.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.stats import binomtest, false_discovery_control

from jattn.checks import check_shape


class Rates(NamedTuple):
    """Of each aspect, `[aspects]`, unless it says otherwise.

    Attributes:
        items: how many.
        accuracy: share of right answers.
        chance: one over the number of options.
        agnosia: see the module.
        wilson_low, wilson_high: 95 % interval of the accuracy.
        p_value: of an accuracy at least that high by guessing; exact, one-sided.
        q_value: the same, adjusted over aspects by Benjamini and Hochberg.
        macro_agnosia: mean over aspects, a number.
        micro_accuracy: over all items, a number.
    """

    items: Int[np.ndarray, " aspects"]
    accuracy: Float[np.ndarray, " aspects"]
    chance: Float[np.ndarray, " aspects"]
    agnosia: Float[np.ndarray, " aspects"]
    wilson_low: Float[np.ndarray, " aspects"]
    wilson_high: Float[np.ndarray, " aspects"]
    p_value: Float[np.ndarray, " aspects"]
    q_value: Float[np.ndarray, " aspects"]
    macro_agnosia: float
    micro_accuracy: float


def predictions(
    scores: Float[Array, "*items options"], options: Int[Array, "*items"] | int
) -> Int[Array, "*items"]:
    """The option with the highest score, the first of them where there are several.

    Args:
        scores: of each option.
        options: how many an item has; scores behind them are not looked at.

    Example:
        >>> predictions(jnp.array([[0.1, 0.9, 5.0]]), 2).tolist()
        [1]
    """
    there = jnp.arange(scores.shape[-1]) < jnp.asarray(options)[..., None]
    return jnp.where(there, scores, -jnp.inf).argmax(-1)


def agnosia(accuracy: Float[Array, "*n"], chance: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """`1 - (accuracy - chance) / (1 - chance)`.

    Example:
        >>> agnosia(jnp.array([0.5, 1.0, 0.0]), jnp.full(3, 0.5)).tolist()
        [1.0, 0.0, 2.0]
    """
    return 1 - (accuracy - chance) / (1 - chance)


def agnosia_rates(
    aspect: Int[Array, " items"],
    right: Bool[Array, " items"],
    options: Int[Array, " aspects"],
) -> Rates:
    """Rates of each aspect, from which items were answered rightly.

    Args:
        aspect: of each item, from 0.
        right: whether its answer was.
        options: how many options items of each aspect have.

    Raises:
        ValueError: shapes that do not fit, or an aspect without items.

    Reference:
        arXiv 2309.04041.

    Example:
        >>> aspect, right = jnp.array([0, 0, 1, 1]), jnp.array([True, True, True, False])
        >>> agnosia_rates(aspect, right, jnp.array([2, 4])).agnosia.round(3).tolist()
        [0.0, 0.667]
    """
    sizes: dict[str, int] = {}
    check_shape("aspect", aspect, "items", sizes)
    check_shape("right", right, "items", sizes)
    place, good, options_ = (np.asarray(x) for x in (aspect, right, options))
    items = np.bincount(place, minlength=len(options_))
    if len(items) > len(options_):
        raise ValueError(f"aspect: expected 0 to {len(options_) - 1}, got {place.max()}")
    if not items.all():
        raise ValueError(f"aspect: expected items of each, got none of {int(np.argmin(items))}")
    hits = np.bincount(place, weights=good, minlength=len(options_)).astype(int)
    accuracy, chance = hits / items, 1 / options_
    tests = [
        binomtest(int(k), int(n), float(c), alternative="greater")
        for k, n, c in zip(hits, items, chance, strict=True)
    ]
    # The interval has two sides, whatever the test has.
    two_sided = [binomtest(int(k), int(n)) for k, n in zip(hits, items, strict=True)]
    intervals = [test.proportion_ci(method="wilson") for test in two_sided]
    p_value = np.array([test.pvalue for test in tests])
    found = np.asarray(1 - (accuracy - chance) / (1 - chance))
    return Rates(
        items, accuracy, chance, found,
        np.array([interval.low for interval in intervals]),
        np.array([interval.high for interval in intervals]),
        p_value, false_discovery_control(p_value, method="bh"),
        float(found.mean()), float(good.mean()),
    )  # fmt: skip


def circular(
    scores: Float[Array, "items options options"], answer: Int[Array, " items"]
) -> Bool[Array, "items options"]:
    """Whether an item is answered rightly under each rotation of its options.

    Rotation r puts option o at place `(o + r) mod options`. An item counts as known where all
    of its rotations are right: then it is not the place that was chosen.

    Args:
        scores: `[item, rotation, place]`.
        answer: the right option before any rotation.

    Example:
        >>> always_first = jnp.tile(jnp.array([1.0, 0.0]), (1, 2, 1))
        >>> circular(always_first, jnp.array([0])).tolist()
        [[True, False]]
    """
    options = scores.shape[-1]
    place = (answer[:, None] + jnp.arange(options)) % options
    return scores.argmax(-1) == place
