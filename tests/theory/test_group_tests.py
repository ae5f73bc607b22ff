"""Permutation, false discoveries, bootstrap: against SciPy, and what follows by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import permutation_test

from jattn.theory import group_tests as gt
from jattn.theory import predictivity as pr
from jattn.theory import text_homogeneity as th


def test_all_permutations_give_scipys_p_value():
    values = np.random.default_rng(0).normal(size=(7, 1)).astype(np.float32)
    label = jnp.array([0, 0, 0, 1, 1, 1, 1])
    groups = (values[:3, 0], values[3:, 0])
    exact = permutation_test(
        groups, lambda a, b: abs(np.mean(a) - np.mean(b)), vectorized=False,
        alternative="greater", n_resamples=10_000,
    )  # fmt: skip
    draws = gt.draw_permutations(jax.random.key(0), 4000, 7)
    x = jnp.asarray(values)
    p = gt.permutation_p_values(
        jnp.abs(gt.group_difference(x, label)), gt.permuted_differences(x, label, draws)
    )
    assert abs(float(p[0]) - exact.pvalue) < 0.02  # 35 splits, 4000 draws: 2.5 errors


def test_p_values_and_their_floor():
    null = jnp.array([[1.0, 5.0], [2.0, 0.0], [3.0, 0.0]])
    top = jnp.array([9.0, 9.0])
    assert gt.permutation_p_values(top, null).tolist() == [0.25, 0.25]
    middle = jnp.array([4.0, 4.0])
    assert gt.permutation_p_values(middle, null).tolist() == [0.25, 0.5]
    assert gt.permutation_p_values(middle, null, family_wise=True).tolist() == [0.5, 0.5]
    # Of 12 tests at the floor of 99 permutations, two are no discovery and three are.
    p = np.full(12, 0.9)
    for count, rejected in ((2, False), (3, True)):
        p[:count] = 0.01
        discoveries = (gt.false_discovery_q(jnp.asarray(p)) <= 0.05).sum()
        assert discoveries == (count if rejected else 0)
    assert gt.least_at_floor(12, 99) == 3


def test_intervals_hold_what_they_should():
    label = jnp.array([0] * 20 + [1] * 20)
    values = jax.random.normal(jax.random.key(1), (40, 200)) + label[:, None]
    rows = gt.bootstrap_indices(jax.random.key(2), 300, label)
    low, high = gt.bootstrap_interval(values, label, rows)
    assert 0.85 < float(((low < 1) & (high > 1)).mean()) < 0.99


@pytest.mark.usefixtures("plain_checks")
def test_bad_groups():
    with pytest.raises(ValueError, match=r"label: expected both groups, 0 and 1, got \[0\]"):
        gt.group_difference(jnp.ones((2, 1)), jnp.zeros(2, int))
    with pytest.raises(ValueError, match="where: expected at least one test, got none"):
        gt.false_discovery_q(jnp.ones(2), np.zeros(2, bool))


def test_true_features_score_one_whatever_the_noise():
    """SB(S / (S + 2 v)) = S / (S + v), and the corrected score of the truth is 1."""
    signal, noise = 1.3, 0.7
    half = signal / (signal + 2 * noise)
    np.testing.assert_allclose(
        pr.spearman_brown(jnp.array(half)), signal / (signal + noise), rtol=1e-6
    )
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (400, 4))
    y = x @ jax.random.normal(keys[1], (4, 30))
    rows = jax.random.permutation(keys[2], 400)[None]
    trials = jnp.arange(20)[None]
    for size in (0.5, 4.0):
        noisy = y + size * jax.random.normal(keys[3], (20, 400, 30))
        found = pr.predictivity(
            x, noisy, rows[:, :200], rows[:, 200:], trials[:, :10], trials[:, 10:], alpha=1e-3
        )
        assert abs(float(found.median) - 1) < 0.03
        assert int(found.dropped) == 0
    assert float(found.raw.mean()) < 0.95  # not corrected, it is less


def test_maps_of_features_and_silent_units():
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (60, 3))
    y = (x[:, :2] + 0.3 * jax.random.normal(keys[1], (6, 60, 2))).at[:, :, 1].set(0.0)
    rows, trials = jnp.arange(60)[None], jnp.arange(6)[None]
    splits = (rows[:, :30], rows[:, 30:], trials[:, :3], trials[:, 3:])
    score = lambda x, alpha: pr.predictivity(x, y, *splits, alpha=alpha)
    mixed = x @ jnp.array([[2.0, 0, 1], [0, 1, 0], [0, 5, 1]])
    np.testing.assert_allclose(score(x, 0.0).raw, score(mixed, 0.0).raw, atol=1e-4)
    assert abs(float((score(x, 30.0).raw - score(mixed, 30.0).raw)[0, 0, 0])) > 1e-3
    assert int(score(x, 1.0).dropped) == 1
    assert bool(jnp.isfinite(score(x, 1.0).median))
    sklearn = pytest.importorskip("sklearn.linear_model")
    weights, intercept = pr.ridge(x, y[0], 2.0)
    theirs = sklearn.Ridge(2.0).fit(np.asarray(x), np.asarray(y[0]))
    np.testing.assert_allclose(weights.T, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(intercept, theirs.intercept_, atol=1e-5)


def test_identical_and_disjoint_documents():
    same, apart = ["abcab"] * 3, ["aaaa", "bbbb", "cccc"]
    assert (th.jaccard(same, 2) == 1).all()
    np.testing.assert_allclose(th.cosine_distance(same, 2), 0, atol=1e-12)
    np.testing.assert_allclose(th.jensen_shannon(same), 0, atol=1e-12)
    assert th.jaccard(apart, 1)[0, 1] == 0
    assert th.cosine_distance(apart, 1)[0, 1] == 1
    assert th.jensen_shannon(apart)[0, 1] == 1
    assert th.vendi(1 - th.cosine_distance(same, 1)) == pytest.approx(1)
    assert th.vendi(1 - th.cosine_distance(apart, 1)) == pytest.approx(3)
    for measure in (th.jaccard, th.cosine_distance, th.jensen_shannon):
        with pytest.raises(ValueError, match="documents: expected at least one, got none"):
            measure([], 1)


def test_groups_that_differ_are_told_apart():
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 6, 20).tolist() for _ in range(6)]
    documents += [rng.integers(4, 10, 20).tolist() for _ in range(6)]
    groups = np.repeat([0, 1], 6)
    distance = 1 - th.jaccard(documents, 1)
    orders = np.array([rng.permutation(12) for _ in range(199)])
    statistic, _, p = th.homogeneity_test(distance, groups, orders)
    assert statistic < -0.2
    assert p <= 0.02
    mixed = np.tile([0, 1], 6)
    assert th.homogeneity_test(distance, mixed, orders)[2] > 0.05
    assert th.within_group(1 - distance, groups).shape == (2,)
    with pytest.raises(ValueError, match="groups: expected pairs within groups and between them"):
        th.homogeneity_statistic(distance, np.zeros(12, int))
