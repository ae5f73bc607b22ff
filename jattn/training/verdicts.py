"""Verdicts: whether what was measured agrees with what was predicted, and how sure that is."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binom

_ORDERS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
RELATIONS = ("~=", *_ORDERS, "is")
HOLDS, FAILS, INCONCLUSIVE = "holds", "fails", "inconclusive"
VERDICTS = (HOLDS, FAILS, INCONCLUSIVE)
COVERAGE = 0.95

Interval = tuple[float, float]


def agrees(
    relation: str, predicted: Any, measured: Any, tolerance: float | int | None = None
) -> bool:
    """Whether one number agrees with a prediction, with t the tolerance (None counts as 0).

        "~="  |measured - predicted| <= t
        "<="  measured <= predicted + t       "<"  measured < predicted + t
        ">="  measured >= predicted - t       ">"  measured > predicted - t
        "is"  measured == predicted

    NaN agrees with nothing.

    Example:
        >>> agrees("<=", 1.0, 1.1, 0.2), agrees("~=", 1.0, 1.3, 0.2)
        (True, False)
    """
    if relation == "is":
        return bool(measured == predicted)
    slack = 0.0 if tolerance is None else tolerance
    if any(math.isnan(x) for x in (measured, predicted, slack)):
        return False
    if relation == "~=":
        return abs(measured - predicted) <= slack
    signed = slack if relation in ("<=", "<") else -slack
    return bool(_ORDERS[relation](measured, predicted + signed))


def median_interval(values: Sequence[float] | np.ndarray) -> Interval | None:
    """The interval of the median whose coverage is known whatever the distribution.

    Between order statistics k and n + 1 - k, with the largest k for which a sign test leaves at
    least 95 %: `1 - 2 P(Binomial(n, 1/2) < k)`. Fewer than six values cannot reach that: then it is
    their range, which covers the median with probability `1 - 2^(1 - n)`.

    Args:
        values: one of each seed, `[n]`.

    Returns:
        Its ends, or None of fewer than two values, which say nothing of each other.

    Example:
        >>> median_interval([3.0, 1.0, 2.0])
        (1.0, 3.0)
        >>> median_interval(np.arange(9.0)), median_interval([1.0])
        ((1.0, 7.0), None)
    """
    ordered = np.sort(np.asarray(values, float))
    count = len(ordered)
    if count < 2:
        return None
    ranks = np.arange(1, (count + 1) // 2 + 1)
    fitting = ranks[1 - 2 * binom.cdf(ranks - 1, count, 0.5) >= COVERAGE]
    rank = int(fitting.max(initial=1))
    return float(ordered[rank - 1]), float(ordered[count - rank])


def interval_of(relation: str, seeds: Sequence[float] | np.ndarray) -> Interval | None:
    """The interval of the median over seeds; a seed without a number counts as the worst.

    Example:
        >>> interval_of("<=", [0.1, float("nan"), 0.2])
        (0.1, inf)
    """
    worst = -math.inf if relation in (">=", ">") else math.inf
    values = np.asarray(seeds, float)
    return median_interval(np.where(np.isnan(values), worst, values))


def verdict(
    relation: str,
    predicted: Any,
    measured: Any,
    tolerance: float | int | None = None,
    interval: Interval | None = None,
) -> str:
    """`"holds"`, `"fails"`, or `"inconclusive"`.

    Without an interval the number decides. With one, the claim holds where number and interval
    agree with the prediction throughout, fails where neither does anywhere, and is inconclusive
    where the interval straddles the bound. What is NaN was not put to the test: inconclusive.

    Example:
        >>> [verdict("<=", 1.0, x, None, (x - 0.2, x + 0.2)) for x in (0.5, 1.0, 1.5)]
        ['holds', 'inconclusive', 'fails']
    """
    if any(isinstance(x, float) and math.isnan(x) for x in (measured, predicted)):
        return INCONCLUSIVE
    decided = agrees(relation, predicted, measured, tolerance)
    if interval is None:
        return HOLDS if decided else FAILS
    low, high = (agrees(relation, predicted, end, tolerance) for end in interval)
    if low and high:
        return HOLDS if decided else INCONCLUSIVE
    # An interval round the band of "~=" and "is" has both ends outside, and straddles it.
    around = relation in ("~=", "is") and interval[0] <= predicted <= interval[1]
    return INCONCLUSIVE if low or high or around or decided else FAILS
