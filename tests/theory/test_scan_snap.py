"""Scan-and-snap: the model's two forms and its gradient, closed forms against steps and sums."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks.sequence_classes import Sequence, sequence_classes, sequence_sampler
from jattn.theory import scan_snap, scan_snap_model

CLASSES = sequence_classes(2, 1)
VOCABULARY = CLASSES.probabilities.shape[1]


@pytest.fixture(scope="module")
def uniform():
    return scan_snap_model.init(jax.random.key(0), VOCABULARY, "uniform")


@pytest.fixture(scope="module")
def batch():
    sample = sequence_sampler(CLASSES, 64)
    return jax.vmap(sample)(jax.random.split(jax.random.key(1), 8))


def test_counts_form_equals_the_sequence_form(uniform):
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, VOCABULARY, (5, 12)))
    labels = jnp.asarray(rng.integers(0, VOCABULARY, 5))

    def by_sequence(params):
        scores = jnp.take_along_axis(params.Z[tokens[:, -1]], tokens[:, :-1], 1)
        weights = jax.nn.softmax(scores)
        c = (weights[..., None] * jax.nn.one_hot(tokens[:, :-1], VOCABULARY)).sum(1)
        logits = c / jnp.linalg.norm(c, axis=-1, keepdims=True) @ params.Y
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    def by_counts(params):
        counts = scan_snap_model.counts_of(tokens, VOCABULARY)
        return scan_snap_model.loss(params, Sequence(counts, tokens[:, -1], labels))

    first, second = (jax.value_and_grad(f)(uniform) for f in (by_sequence, by_counts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, second)


def test_closed_gradient_equals_autodiff(uniform, batch):
    one = jax.tree.map(lambda leaf: leaf[0], batch)
    many = jax.tree.map(lambda leaf: leaf[:1], batch)
    grads = jax.grad(lambda p: -scan_snap_model.loss(p, many))(uniform)
    exact = scan_snap_model.ascent_direction(uniform, one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, exact)
    np.testing.assert_allclose(grads.Y.sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(grads.Z.sum(1), 0, atol=1e-6)
    moved = jnp.abs(grads.Z).sum(1) > 0
    assert np.flatnonzero(moved).tolist() == [int(one.query)]


def test_invariances(uniform, batch):
    shifted = uniform._replace(Z=uniform.Z + jnp.arange(VOCABULARY)[:, None])
    expected = scan_snap_model.logits(uniform, batch)
    np.testing.assert_allclose(scan_snap_model.logits(shifted, batch), expected, atol=1e-4)
    scaled = batch._replace(counts=7 * batch.counts)
    np.testing.assert_allclose(scan_snap_model.logits(uniform, scaled), expected, atol=1e-5)
    zero = scan_snap_model.init(jax.random.key(0), VOCABULARY)
    assert abs(float(scan_snap_model.loss(zero, batch)) - np.log(VOCABULARY)) < 1e-5
    uniform_attention = scan_snap_model.attention(zero.Z[batch.query], batch.counts)
    np.testing.assert_allclose(uniform_attention, batch.counts / 63, atol=1e-6)
    assert float(jnp.abs(jax.grad(scan_snap_model.loss)(zero, batch).Z).max()) == 0


def test_absent_tokens_with_huge_logits_do_not_matter():
    z = jnp.array([0.0, 1.0, 1e4])
    weights = scan_snap_model.attention(z, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(weights, [*jax.nn.softmax(jnp.array([0.0, 1.0])), 0], atol=1e-6)


def test_sampler_follows_the_classes():
    sample = jax.jit(jax.vmap(sequence_sampler(CLASSES, 200)))
    drawn = sample(jax.random.split(jax.random.key(2), 2_000))
    for n in range(2):
        chosen = np.asarray(drawn.label) == CLASSES.labels[n]
        assert abs(chosen.mean() - 0.5) < 0.05
        assert set(np.asarray(drawn.query)[chosen]) == {CLASSES.queries[n]}
        share = np.asarray(drawn.counts)[chosen].mean(0) / 199
        np.testing.assert_allclose(share, CLASSES.probabilities[n], atol=2e-3)
    assert CLASSES.probabilities[0, 9] == pytest.approx(0.0645, abs=1e-4)
    assert (np.diff(CLASSES.probabilities[1][CLASSES.distinct[1]]) > 0).all()


def test_bad_layouts_are_refused(plain_checks):
    with pytest.raises(ValueError, match="num_last: expected at least 1, got 0"):
        sequence_classes(0, 1)
    with pytest.raises(ValueError, match="weights: expected positive"):
        sequence_classes(1, 1, p_min=0.0)
    with pytest.raises(ValueError, match="length: expected at least 2"):
        sequence_sampler(CLASSES, 1)
    with pytest.raises(ValueError, match="scheme: expected one of"):
        scan_snap_model.init(jax.random.key(0), 4, "normal")


def test_decoder_growth_follows_steps():
    for vocabulary, rate in ((1000, 4.0), (50, 2.0)):
        discrete = scan_snap.decoder_growth_discrete(500, vocabulary=vocabulary, eta_y=rate)
        smooth = scan_snap.decoder_growth(np.arange(501.0), vocabulary=vocabulary, eta_y=rate)
        gap = discrete - smooth
        assert gap.min() > -1e-12
        assert gap.max() <= 2 * rate / vocabulary


def test_envelope_has_one_peak_where_derived():
    options: dict[str, Any] = dict(vocabulary=100, classes=3, eta_y=2.0)
    peak, when = scan_snap.envelope_peak(**options)
    time = np.linspace(0, 40 * when, 400_001)
    gamma = scan_snap.gradient_envelope(time, **options)
    assert abs(gamma.max() / peak - 1) < 1e-6
    assert abs(time[gamma.argmax()] / when - 1) < 1e-3
    assert (np.sign(np.diff(np.sign(np.diff(gamma)))) <= 0).all()
    assert abs(gamma[0]) < 1e-9
    assert gamma[-1] < 0.2 * peak
    early = 0.01 * 3 * np.log(10_000) / 2
    start = scan_snap.gradient_envelope(early, **(options | {"vocabulary": 10_000}))
    assert abs(start / (2 * early / 3) - 1) < 0.01
    sums = np.concatenate([[0], np.cumsum((gamma[1:] + gamma[:-1]) / 2 * time[1])])
    exact = scan_snap.envelope_integral(time, eta_z=1.0, **options)
    assert abs(sums[-1] / exact[-1] - 1) < 1e-5


def test_attention_growth_at_the_snap_depends_on_the_ratio_only():
    growth = [
        scan_snap.attention_growth(
            scan_snap.snap_time(vocabulary=100, classes=10, eta_y=10 * eta),
            vocabulary=100, classes=10, eta_y=10 * eta, eta_z=eta,
        )
        for eta in (0.5, 4.0)
    ]  # fmt: skip
    assert growth[0] == pytest.approx(growth[1], rel=1e-9)
    assert growth[0] == pytest.approx(1.0544, abs=1e-4)


def test_reduced_dynamics_keep_class_symmetry_and_fates(x64):
    classes = sequence_classes(1, 2, num_common=1)
    probabilities = jnp.asarray(classes.probabilities[:, :21])
    gamma = scan_snap.gradient_envelope(
        np.arange(0, 50, 0.05), vocabulary=1000, classes=2, eta_y=2.0
    )
    path = jax.jit(lambda p, g: scan_snap.reduced_dynamics(p, g, eta_z=0.5, step=0.05))(
        probabilities, jnp.asarray(gamma)
    )
    moved = np.asarray(path.z[-1])
    np.testing.assert_allclose(moved[classes.distinct[0]], moved[classes.distinct[1]], rtol=1e-9)
    assert (moved[classes.distinct] > 0).all()
    assert moved[0] < 0
