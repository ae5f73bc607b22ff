"""Distilled transitions: counts against a loop, labels, and what the loss teaches a table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.training import distillation as ted


def tokens(shape=(5, 8), items=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, items, shape), rng.random(shape) < 0.8


@pytest.mark.parametrize("span", [1, 3, 20])
def test_counts_against_a_loop(span):
    found, there = tokens()
    expected = np.zeros((6, 6))
    for row, t in np.ndindex(found.shape):
        for later in range(t + 1, min(t + span, found.shape[1] - 1) + 1):
            expected[found[row, t], found[row, later]] += there[row, t] & there[row, later]
    counts = ted.transition_counts(jnp.asarray(found), 6, mask=jnp.asarray(there), span=span)
    np.testing.assert_array_equal(counts, expected)


def test_labels():
    found, _ = tokens()
    counts = ted.transition_counts(jnp.asarray(found), 7)  # nothing follows item 6
    labels = ted.transition_targets(counts)
    # The paper's temperature, 0.1: of counts 4, 2, 0 the labels are as 1 : e^-5 : e^-10.
    by_hand = np.exp([0.0, -5.0, -10.0])
    said = ted.transition_targets(jnp.array([4.0, 2.0, 0.0]))
    np.testing.assert_allclose(said, by_hand / by_hand.sum(), rtol=1e-5)
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(labels[6], 1 / 7, atol=1e-6)
    cold = np.asarray(ted.transition_targets(counts, temperature=1e-3))[:6]
    largest = np.asarray(counts[:6] == counts[:6].max(-1, keepdims=True))
    np.testing.assert_allclose(cold, largest / largest.sum(-1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(labels[:6], ted.transition_targets(3 * counts)[:6], atol=1e-6)


def test_the_loss_against_its_definition():
    found, there = tokens()
    table = np.random.default_rng(1).normal(size=(6, 4))
    labels = np.asarray(ted.transition_targets(ted.transition_counts(jnp.asarray(found), 6)))
    terms = []
    for item in found[there]:
        logits = 2.0 * table @ table[item] / 0.5
        terms.append(-(labels[item] * (logits - np.log(np.exp(logits).sum()))).sum())
    loss = ted.transition_loss(
        jnp.asarray(table, jnp.float32),
        jnp.asarray(labels),
        jnp.asarray(found),
        mask=jnp.asarray(there),
        temperature=0.5,
    )
    assert float(loss) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_loss_has_the_temperature_of_the_paper():
    table = np.array([[1.0, 0.0], [0.5, 0.5]])
    logits = 2**0.5 * table @ table[0] / 0.1
    expected = np.log(np.exp(logits).sum()) - logits[1]
    loss = ted.transition_loss(jnp.asarray(table), jnp.eye(2)[::-1], jnp.array([0]))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_table_learns_the_labels():
    """Two pairs of items that follow themselves and each other, which E E^T can say."""
    pair = jnp.arange(4) // 2
    labels = ted.transition_targets(3.0 * (pair[:, None] == pair), temperature=0.5)
    items = jnp.arange(4)
    loss = lambda table: ted.transition_loss(table, labels, items, temperature=0.5)

    @jax.jit
    def descend(table):
        return jax.lax.fori_loop(0, 300, lambda _, e: e - 0.1 * jax.grad(loss)(e), table)

    table = descend(0.3 * jax.random.normal(jax.random.key(0), (4, 8)))
    entropy = float(-(labels * jnp.log(labels)).sum(-1).mean())
    assert float(loss(table)) == pytest.approx(entropy, abs=1e-4)
    said = jax.nn.softmax(8**0.5 * table @ table.T / 0.5, axis=-1)
    np.testing.assert_allclose(said, labels, atol=0.01)
    # What says all it should has nothing left to learn.
    slope = jax.grad(lambda e: ted.transition_loss(e, jnp.full((4, 4), 0.25), items))
    np.testing.assert_allclose(slope(jnp.zeros((4, 8))), 0, atol=1e-7)


def test_bad_input_is_named(plain_checks):
    found = jnp.asarray(tokens()[0])
    for call, message in (
        (lambda: ted.transition_counts(found, 6, span=0), "span: expected at least 1, got 0"),
        (lambda: ted.transition_counts(found[0], 6), "tokens: expected 2 axes [n, t]"),
        (
            lambda: ted.transition_targets(jnp.ones((2, 2)), temperature=0),
            "temperature: expected a positive number, got 0",
        ),
        (
            lambda: ted.transition_loss(jnp.ones((3, 2)), jnp.ones((4, 4)), found),
            "targets: expected shape [n=3, n=3], got [4, 4]",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
