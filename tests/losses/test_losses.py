"""Losses of preference and of policies: identities that the papers rest on, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.losses import policy_gradient, preference, sequence_log_probability

rng = np.random.default_rng(0)
close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_losses_of_a_policy_that_is_the_reference():
    zero = jnp.zeros(3)
    close(preference.dpo(zero), np.log(2))
    close(preference.dpo(zero, label_smoothing=0.2), np.log(2))
    close(preference.ipo(zero, beta=0.2), 1 / (4 * 0.2**2))


def test_preference_identities():
    h = jnp.asarray(rng.normal(size=5), jnp.float32)
    close(preference.dpo(h) - preference.dpo(-h), -0.1 * h)
    close(jax.grad(lambda h: preference.dpo(h).sum())(h), -0.1 * jax.nn.sigmoid(-0.1 * h))
    lengths = jnp.full(5, 4)
    close(preference.dpo(preference.per_length(h, lengths)), preference.dpo(h, beta=0.1 / 4))
    logs = jnp.asarray(-rng.random((5, 6)), jnp.float32)
    real = jnp.asarray(rng.random((5, 6)) > 0.3)
    changed = jnp.asarray(rng.random((5, 6)) > 0.5)
    close(preference.weighted_score(logs, real, changed), jnp.where(real, logs, 0).sum(1))


def test_advantages_of_groups():
    rewards = jnp.asarray(rng.random((3, 4)), jnp.float32)
    found = policy_gradient.group_advantages(rewards)
    close(found.sum(1), 0)
    # Up to the 1e-6 in the denominator, over the standard deviation.
    again = policy_gradient.group_advantages(3 * rewards + 2)
    np.testing.assert_allclose(again, found, rtol=2e-5)
    assert (policy_gradient.group_advantages(jnp.full((1, 3), 0.7)) == 0).all()
    with pytest.raises(ValueError, match="rewards: expected groups of 2 answers or more, got 1"):
        policy_gradient.group_advantages(jnp.ones((2, 1)))


def test_at_the_old_policy_the_gradient_is_that_of_reinforce():
    logs = jnp.asarray(-rng.random((4, 5)), jnp.float32)
    advantage = policy_gradient.group_advantages(jnp.asarray(rng.random((1, 4)), jnp.float32))
    counts = jnp.asarray(rng.random((4, 5)) > 0.2)

    def loss(new):
        parts = policy_gradient.clipped_loss(new, logs, advantage.reshape(-1, 1))
        return policy_gradient.aggregate(parts.loss, counts)

    value, gradient = jax.value_and_grad(loss)(logs)
    close(value, 0)
    share = jnp.where(counts, 1 / counts.sum(1, keepdims=True), 0) / 4
    close(gradient, -advantage.reshape(-1, 1) * share)
    assert (gradient[~counts] == 0).all()
    reference = logs + 0.3
    divergence = policy_gradient.clipped_loss(logs, logs, jnp.zeros((4, 1)), reference=reference)
    assert (divergence.divergence > 0).all()
    same = policy_gradient.clipped_loss(logs, logs, jnp.zeros((4, 1)), reference=logs)
    assert (same.divergence == 0).all()


def test_tools_are_stepped_over():
    rewards, values = (jnp.asarray(rng.random((2, 6)), jnp.float32) for _ in range(2))
    agent = jnp.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]], bool)
    found = policy_gradient.generalized_advantages(rewards, values, agent, gamma=0.9, lam=0.8)
    for row in range(2):
        kept = np.flatnonzero(agent[row])
        alone = policy_gradient.generalized_advantages(
            rewards[row, kept][None], values[row, kept][None], jnp.ones((1, len(kept)), bool),
            gamma=0.9, lam=0.8,
        )  # fmt: skip
        close(found.advantage[row, kept], alone.advantage[0])
    whole = policy_gradient.generalized_advantages(rewards, values, agent)
    close(whole.returns, policy_gradient.reward_to_go(rewards, agent))
    assert (whole.advantage[~agent] == 0).all()


def test_log_probabilities_count_what_counts():
    logits = jnp.asarray(rng.normal(size=(2, 5, 7)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, 7, (2, 5)))
    mask = jnp.array([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]], bool)
    found = sequence_log_probability(logits, tokens, mask, temperature=0.7)
    expected = np.zeros(2)
    for row, place in zip(*np.nonzero(np.asarray(mask)), strict=True):
        scores = np.asarray(logits[row, place - 1], np.float64) / 0.7
        expected[row] += scores[tokens[row, place]] - np.log(np.exp(scores).sum())
    close(found.total, expected)
    close(found.mean, expected / np.array([3, 2]))
    forbidden = logits.at[:, :, 0].set(-jnp.inf)
    assert jnp.isfinite(sequence_log_probability(forbidden, tokens, mask).entropy).all()
