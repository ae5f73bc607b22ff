"""Streams of behaviour: as long and as frequent as they should be; and what leaves the browser."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import behaviour_stream as bs
from jattn.theory import semi_markov as sm


@pytest.fixture(scope="module")
def streams():
    duration = sm.negative_binomial_durations(jnp.asarray(bs.MEANS), bs.SHAPE, bs.LONGEST)
    transition = jnp.asarray(bs.TRANSITION)
    start = jnp.asarray(sm.occupancy(transition, duration))
    draw = lambda key: bs.behaviour_stream(key, 300, start, transition, duration)
    return jax.vmap(draw)(jax.random.split(jax.random.key(0), 100)), start, duration


def test_states_have_their_share_and_their_time(streams):
    stream, share, duration = streams
    states = np.asarray(stream.states)
    shares = (states[..., None] == np.arange(4)).mean(1)
    error = shares.std(0) / len(shares) ** 0.5
    assert (np.abs(shares.mean(0) - share) < 3 * error).all()
    lengths = {k: [] for k in range(4)}
    for row in states:
        ends = np.flatnonzero(np.diff(row)) + 1
        for a, b in itertools.pairwise(ends):
            lengths[row[a]].append(b - a)
    means = [np.mean(lengths[k]) for k in range(4)]
    np.testing.assert_allclose(means, sm.mean_durations(duration), rtol=0.1)
    assert max(map(max, lengths.values())) <= bs.LONGEST


def test_what_is_emitted_depends_on_the_state(streams):
    stream = streams[0]
    states = np.asarray(stream.states)
    for k in range(4):
        counts = np.asarray(stream.counts)[states == k]
        np.testing.assert_allclose(counts.mean(0), bs.RATES[k], rtol=0.15, atol=0.02)
        a, b = bs.IDLE[k]
        assert np.asarray(stream.idle)[states == k].mean() == pytest.approx(a / (a + b), abs=0.02)


def test_only_counts_leave_the_browser():
    keys = jax.random.split(jax.random.key(1), 3)
    time = jax.random.uniform(keys[0], (500,), maxval=300.0)
    kind = jax.random.randint(keys[1], (500,), 0, 4)
    counts, idle = bs.window_counts(time, kind, 10)
    order = jax.random.permutation(keys[2], 500)
    for one, other in zip(
        (counts, idle), bs.window_counts(time[order], kind[order], 10), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    later = jnp.floor(time) + 0.5  # elsewhere within the same second
    for one, other in zip((counts, idle), bs.window_counts(later, kind, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(counts.sum()) == 500
    expected = np.histogram2d(time, kind, (np.arange(11) * 30, np.arange(5)))[0]
    np.testing.assert_array_equal(counts, expected)
    none, quiet = bs.window_counts(jnp.array([400.0, -1.0]), jnp.array([0, 1]), 10)
    assert not none.any()
    assert (quiet == 1).all()
