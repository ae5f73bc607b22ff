"""Hulls, triangles and tours: against SciPy, by counting, and against all permutations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from jattn.tasks import planar

POINTS, REAL = planar.points_in_square(jax.random.key(0), 16, fewest=5, most=9)
HULLS = np.asarray(jax.jit(jax.vmap(planar.hull_sequence))(POINTS, REAL))
ROWS = [np.asarray(p[r], np.float64) for p, r in zip(POINTS, REAL, strict=True)]


def test_hulls_are_those_of_another_library():
    for points, sequence in zip(ROWS, HULLS, strict=True):
        vertices = planar.before_stop(sequence)
        expected = (ConvexHull(points).vertices + 1).tolist()  # counter-clockwise, too
        start = expected.index(min(expected))
        assert vertices == expected[start:] + expected[:start]
        np.testing.assert_allclose(planar.area(points, vertices), ConvexHull(points).volume)


def test_hulls_of_hulls_are_themselves():
    points = ROWS[0][np.array(planar.before_stop(HULLS[0])) - 1]
    again = planar.hull_sequence(jnp.asarray(points, jnp.float32))
    assert planar.before_stop(again) == list(range(1, len(points) + 1))


def test_a_perfect_answer_has_full_marks_and_no_polygon_covers_more():
    assert planar.hull_scores(ROWS, HULLS, HULLS) == (1, 1, 0)
    backward = [planar.before_stop(h)[::-1] for h in HULLS]
    assert planar.hull_scores(ROWS, backward, HULLS).accuracy == 1
    rng = np.random.default_rng(0)
    guesses = [rng.permutation(len(p))[: rng.integers(3, len(p) + 1)] + 1 for p in ROWS]
    found = planar.hull_scores(ROWS, guesses, HULLS)
    assert found.accuracy < 1
    assert found.coverage <= 1 + 1e-9
    assert not planar.is_simple(ROWS[0], [1, 2])
    assert not planar.is_simple(ROWS[0], [1, 2, 1])


def test_triangles_are_as_many_as_euler_says():
    for points in ROWS:
        triangles = planar.delaunay_triangles(points)
        hull = len(ConvexHull(points).vertices)
        assert len(triangles) == 2 * len(points) - 2 - hull
        assert (np.diff(triangles, axis=1) > 0).all()


def test_tours_are_the_shortest_of_all():
    points = np.random.default_rng(1).random((7, 2))
    tour = planar.shortest_tour(points)
    every = (planar.tour_length(points, [1, *rest]) for rest in itertools.permutations(range(2, 8)))
    np.testing.assert_allclose(planar.tour_length(points, tour), min(every))
    assert tour[0] == 1
    assert tour[1] < tour[-1]
    with pytest.raises(ValueError, match="points: expected 3 to 20, got 2"):
        planar.shortest_tour(points[:2])
