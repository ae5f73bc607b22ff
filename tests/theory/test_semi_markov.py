"""Hidden semi-Markov filtering: by enumeration, and as an ordinary hidden Markov model."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.theory import semi_markov as sm

TRANSITION = np.array([[0.0, 0.7, 0.3], [0.5, 0.0, 0.5], [0.9, 0.1, 0.0]])


def segmentations(windows, longest):
    """All ways to cut so many windows into segments, the last of which may go on."""
    for first in range(1, longest + 1):
        if first >= windows:
            yield ((windows, first),)
            continue
        for rest in segmentations(windows - first, longest):
            yield ((first, first), *rest)


@pytest.mark.usefixtures("x64")
def test_the_filter_is_the_sum_over_all_segmentations():
    rng = np.random.default_rng(0)
    longest, windows, states = 3, 5, 3
    duration = rng.dirichlet(np.ones(longest), states)
    initial = rng.dirichlet(np.ones(states))
    likelihood = rng.normal(size=(windows, states))
    total, at_end = 0.0, np.zeros(states)
    for cut in segmentations(windows, longest):
        for path in itertools.product(range(states), repeat=len(cut)):
            weight = initial[path[0]]
            for a, b in itertools.pairwise(path):
                weight *= TRANSITION[a, b]
            at = 0
            for (seen, length), state in zip(cut, path, strict=True):
                weight *= duration[state, length - 1]
                weight *= np.exp(likelihood[at : at + seen, state].sum())
                at += seen
            total += weight
            at_end[path[-1]] += weight
    found = sm.semi_markov_filter(
        jnp.asarray(initial),
        jnp.asarray(TRANSITION),
        jnp.asarray(duration),
        jnp.asarray(likelihood),
    )
    np.testing.assert_allclose(found.log_likelihood, np.log(total), atol=1e-12)
    np.testing.assert_allclose(found.posterior[-1], at_end / total, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_geometric_durations_are_a_markov_chain():
    means = jnp.array([2.0, 4.0, 1.5])
    duration = sm.negative_binomial_durations(means, 1.0, 400)
    np.testing.assert_allclose(sm.mean_durations(duration), means, rtol=1e-6)
    stay = 1 - 1 / np.asarray(means)
    chain = TRANSITION * (1 - stay[:, None]) + np.diag(stay)
    likelihood = np.random.default_rng(1).normal(size=(12, 3))
    initial = np.array([0.2, 0.3, 0.5])
    found = sm.semi_markov_filter(
        jnp.asarray(initial), jnp.asarray(TRANSITION), duration, jnp.asarray(likelihood)
    )
    belief = initial
    for now, row in zip(likelihood, np.asarray(found.posterior), strict=True):
        belief = belief * np.exp(now)
        belief /= belief.sum()
        np.testing.assert_allclose(row, belief, atol=1e-10)
        belief = belief @ chain


def test_occupancy_is_what_long_runs_have():
    duration = sm.negative_binomial_durations(jnp.array([8.0, 3.0, 14.0, 6.0]), 3.0, 32)
    transition = jnp.array(
        [[0, 0.55, 0.25, 0.2], [0.6, 0, 0.1, 0.3], [0.4, 0.2, 0, 0.4], [0.45, 0.5, 0.05, 0]]
    )
    np.testing.assert_allclose(
        sm.occupancy(transition, duration), [0.408, 0.145, 0.253, 0.194], atol=1e-3
    )
    flat = sm.memoryless_posterior(jnp.full(4, 0.25), jnp.zeros((1, 4)))
    np.testing.assert_allclose(flat, 0.25)


def test_the_filter_maps_and_refuses_what_does_not_fit():
    likelihood = jax.random.normal(jax.random.key(0), (2, 6, 3))
    duration, transition = jnp.full((3, 2), 0.5), jnp.asarray(TRANSITION, jnp.float32)
    run = lambda one: sm.semi_markov_filter(jnp.ones(3) / 3, transition, duration, one).posterior
    found = jax.jit(jax.vmap(run))(likelihood)
    np.testing.assert_allclose(found[1], run(likelihood[1]), atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


@pytest.mark.usefixtures("plain_checks")
def test_bad_shapes():
    with pytest.raises(ValueError, match="duration: expected shape"):
        sm.semi_markov_filter(
            jnp.ones(3) / 3, jnp.asarray(TRANSITION), jnp.ones((2, 2)), jnp.zeros((4, 3))
        )
