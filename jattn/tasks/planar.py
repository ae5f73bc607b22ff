"""Points in a square: convex hulls, Delaunay triangles, shortest tours (arXiv 1506.03134).

A target is a sequence of points' numbers, counted from 1; 0 says stop, and stands behind the end.

    hull       vertices counter-clockwise, from the one with the lowest number
    delaunay   triangles by the place of their incentres, each by its numbers
    tour       of all points, from the first, in the direction whose second number is the smaller
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import Delaunay

from jattn.checks import check_count

Numbers = Sequence[int] | np.ndarray | jax.Array  # of points, counted from 1


def points_in_square(
    key: jax.Array, batch_size: int, *, fewest: int, most: int
) -> tuple[Float[Array, "b n 2"], Bool[Array, "b n"]]:
    """Independent uniform points, as many in each row as is drawn, zeros behind them.

    Args:
        key: a PRNG key.
        batch_size: rows.
        fewest, most: points of a row, uniform between them; n = most.

    Returns:
        The points, and which are real.

    Example:
        >>> points, real = points_in_square(jax.random.key(0), 4, fewest=5, most=8)
        >>> points.shape, bool((real.sum(1) >= 5).all())
        ((4, 8, 2), True)
    """
    check_count("fewest", fewest, 3)
    check_count("most", most, fewest)
    places, counts = jax.random.split(key)
    count = jax.random.randint(counts, (batch_size, 1), fewest, most + 1)
    real = jnp.arange(most) < count
    points = jax.random.uniform(places, (batch_size, most, 2))
    return jnp.where(real[..., None], points, 0), real


def hull_sequence(
    points: Float[Array, "n 2"], real: Bool[Array, " n"] | None = None
) -> Int[Array, " m"]:
    """The hull's vertices, numbered from 1, counter-clockwise from the lowest number; then zeros.

    Args:
        points: in general position.
        real: False where a row is padding; default none is. At least three are.

    Returns:
        `[n + 1]`, a stop at least at the end.

    Reference:
        arXiv 1506.03134.

    Example:
        >>> square = jnp.array([[0.5, 0.4], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> hull_sequence(square).tolist()
        [2, 3, 4, 5, 0, 0]
    """
    n = len(points)
    there = jnp.ones(n, bool) if real is None else real
    from_i = points - points[:, None]  # [i, j]: from i to j
    x, y = from_i[..., 0], from_i[..., 1]
    turn = x[:, :, None] * y[:, None] - y[:, :, None] * x[:, None]
    self_pair = jnp.eye(n, dtype=bool)
    # An edge from i to j has every other point on its left.
    left = (turn > 0) | self_pair[:, None] | self_pair[None] | ~there
    edge = left.all(-1) & ~self_pair & there[:, None] & there
    follows, on_hull = edge.argmax(1), edge.any(1)
    first = on_hull.argmax()

    def step(carry, _):
        at, done = carry
        after = follows[at]
        return (after, done | (after == first)), jnp.where(done, 0, at + 1)

    sequence = jax.lax.scan(step, (first, jnp.array(False)), length=n)[1]
    return jnp.append(sequence, 0)


def delaunay_triangles(points: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, "k 3"]:
    """Triangles, numbered from 1, by the place of their incentres, x before y.

    Reference:
        arXiv 1506.03134.

    Example:
        >>> delaunay_triangles(np.array([[0.0, 0.0], [1.0, 0.0], [0.2, 1.0], [1.3, 1.2]])).tolist()
        [[1, 2, 3], [2, 3, 4]]
    """
    found = np.sort(Delaunay(points).simplices, axis=1)
    corners = points[found]
    # The side opposite each corner weighs it.
    sides = np.linalg.norm(corners[:, [1, 2, 0]] - corners[:, [2, 0, 1]], axis=-1)
    incentre = (sides[..., None] * corners).sum(1) / sides.sum(1, keepdims=True)
    return found[np.lexsort((incentre[:, 1], incentre[:, 0]))] + 1


def shortest_tour(points: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    """The shortest closed tour, numbered from 1, by Held and Karp: 2^n n^2 steps.

    Args:
        points: 20 at most.

    Returns:
        From point 1, in the direction whose second number is the smaller.

    Raises:
        ValueError: more points.

    Example:
        >>> shortest_tour(np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])).tolist()
        [1, 3, 2, 4]
    """
    n = len(points)
    if not 3 <= n <= 20:
        raise ValueError(f"points: expected 3 to 20, got {n}")
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    inner = n - 1  # all but the first, as bits
    cost = np.full((1 << inner, inner), np.inf)
    came = np.zeros((1 << inner, inner), np.int8)
    for end in range(inner):
        cost[1 << end, end] = apart[0, end + 1]
    all_sets = np.arange(1 << inner)
    size = sum(all_sets >> bit & 1 for bit in range(inner))
    for count in range(2, inner + 1):
        for end in range(inner):
            sets = all_sets[(size == count) & (all_sets >> end & 1 == 1)]
            before = cost[sets ^ (1 << end)] + apart[1:, end + 1]
            came[sets, end] = before.argmin(1)
            cost[sets, end] = before.min(1)
    seen, tour = (1 << inner) - 1, []
    end = int((cost[seen] + apart[1:, 0]).argmin())
    while seen:
        tour.append(end + 2)
        seen, end = seen ^ (1 << end), int(came[seen, end])
    tour = tour if tour[0] < tour[-1] else tour[::-1]
    return np.array([1, *tour])


def tour_length(points: Float[np.ndarray, "n 2"], tour: Numbers) -> float:
    """Length of a closed tour of points, numbered from 1.

    Example:
        >>> tour_length(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]), [1, 2, 3])
        12.0
    """
    places = points[np.asarray(tour) - 1]
    return float(np.linalg.norm(places - np.roll(places, -1, axis=0), axis=-1).sum())


def before_stop(sequence: Numbers) -> list[int]:
    """What stands before the first 0.

    Example:
        >>> before_stop([3, 1, 2, 0, 4])
        [3, 1, 2]
    """
    return list(itertools.takewhile(lambda number: number != 0, map(int, sequence)))


def same_polygon(one: Numbers, other: Numbers) -> bool:
    """Whether two sequences of vertices are one polygon: rotation and direction do not matter.

    Example:
        >>> same_polygon([1, 2, 3, 4], [3, 2, 1, 4]), same_polygon([1, 2, 3, 4], [1, 3, 2, 4])
        (True, False)
    """
    one, other = [int(n) for n in one], [int(n) for n in other]
    if len(one) != len(other) or set(one) != set(other) or len(set(one)) != len(one):
        return False
    turned = other[other.index(one[0]) :] + other[: other.index(one[0])] if one else []
    return one in (turned, turned[:1] + turned[:0:-1])


def is_simple(points: Float[np.ndarray, "n 2"], polygon: Numbers) -> bool:
    """Whether a polygon has three vertices or more, none twice, and sides that do not cross.

    Example:
        >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> is_simple(square, [1, 2, 3, 4]), is_simple(square, [1, 3, 2, 4])
        (True, False)
    """
    if len(polygon) < 3 or len(set(map(int, polygon))) != len(polygon):
        return False
    corners = points[np.asarray(polygon) - 1]
    sides = list(zip(corners, np.roll(corners, -1, axis=0), strict=True))
    count = len(sides)
    return not any(
        _cross(*sides[i], *sides[j])
        for i, j in itertools.combinations(range(count), 2)
        if j - i not in (1, count - 1)
    )


def _cross(a, b, c, d) -> bool:
    """Whether the segments a-b and c-d share a point."""
    turn = lambda p, q, r: np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))
    return bool(turn(a, b, c) != turn(a, b, d) and turn(c, d, a) != turn(c, d, b))


def area(points: Float[np.ndarray, "n 2"], polygon: Numbers) -> float:
    """Area of a simple polygon, whichever its direction.

    Example:
        >>> area(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), [1, 2, 3, 4])
        1.0
    """
    x, y = points[np.asarray(polygon) - 1].T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


class HullScore(NamedTuple):
    """Of many predicted hulls.

    Attributes:
        accuracy: share that are the true polygon.
        coverage: mean area over the true one, of simple polygons; 0 where there is none.
        not_simple: share of other outputs.
    """

    accuracy: float
    coverage: float
    not_simple: float


def hull_scores(
    points: Sequence[np.ndarray],
    predicted: Sequence[Numbers] | np.ndarray,
    targets: Sequence[Numbers] | np.ndarray,
) -> HullScore:
    """Accuracy; mean area over the true one, of simple polygons; and the share of others.

    Args:
        points: of each set.
        predicted, targets: sequences of numbers, with or without a stop.

    Reference:
        arXiv 1506.03134.

    Example:
        >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> hull_scores([square], [[2, 3, 4, 1, 0]], [[1, 2, 3, 4, 0]])
        HullScore(accuracy=1.0, coverage=1.0, not_simple=0.0)
    """
    right, covered, wrong = [], [], 0
    for own, guess, target in zip(points, predicted, targets, strict=True):
        polygon, true = before_stop(guess), before_stop(target)
        right.append(same_polygon(polygon, true))
        if is_simple(own, polygon):
            covered.append(area(own, polygon) / area(own, true))
        else:
            wrong += 1
    coverage = float(np.mean(covered)) if covered else 0.0
    return HullScore(float(np.mean(right)), coverage, wrong / len(right))
