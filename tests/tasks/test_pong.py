"""The ball's physics, and that clips show it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks import pong


@pytest.fixture(scope="module")
def clips():
    return pong.pong(jax.random.key(0), 64, side=8)


def test_speed_is_kept_and_walls_are_met(clips):
    state = np.asarray(clips.state)
    speed = np.hypot(state[..., 2], state[..., 3])
    np.testing.assert_allclose(speed, speed[:, :1].repeat(24, 1), rtol=1e-5)
    assert (np.abs(np.diff(state[..., 1])) <= np.abs(state[:, 1:, 3]) + 1e-6).all()
    assert ((state[..., 1] >= 0) & (state[..., 1] <= 1)).all()
    u = jnp.linspace(-3.0, 3.0, 50)
    np.testing.assert_allclose(pong.fold(u + 2), pong.fold(u), atol=1e-6)


def test_a_path_does_not_depend_on_how_time_is_cut():
    one = lambda *values: jnp.array(values)
    start = (one(0.0, 0.1), one(0.3, 0.9), one(0.04, 0.05), one(0.06, -0.08))
    whole = pong.path(*start, frames=20)
    again = pong.path(*(x[:, 9] for x in whole[:4]), frames=11)
    for a, b in zip(whole[:4], again[:4], strict=True):
        np.testing.assert_allclose(a[:, 9:], b, atol=1e-5)
    np.testing.assert_allclose(again.intercept, whole.intercept, atol=1e-5)
    np.testing.assert_allclose(again.arrival_time + 9, whole.arrival_time, atol=1e-4)


def test_clips_show_the_ball_until_it_is_hidden(clips):
    brightest = clips.frames.reshape(64, 24, 64).max(-1)
    assert ((brightest > 0.4) == clips.visible).all()
    assert (brightest[~np.asarray(clips.visible)] == 0).all()
    frames, state = np.asarray(clips.frames), np.asarray(clips.state)
    row, column = np.unravel_index(frames[:, 0].reshape(64, -1).argmax(1), (8, 8))
    np.testing.assert_allclose((row + 0.5) / 8, state[:, 0, 1], atol=0.0626)
    np.testing.assert_allclose((column + 0.5) / 8, state[:, 0, 0], atol=0.0626)
    assert 0.4 < float(clips.contact.mean()) < 0.8
    busy = pong.pong(jax.random.key(0), 4, side=8, clutter=0.3)
    assert float(busy.frames[:, -1].std()) > 0.1
    np.testing.assert_array_equal(busy.frames[:, -1], busy.frames[:, -2])  # hidden: only clutter


@pytest.mark.usefixtures("plain_checks")
def test_bad_sizes():
    with pytest.raises(ValueError, match="frames: expected at least 1, got 0"):
        pong.pong(jax.random.key(0), 3, frames=0)
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        pong.pong(jax.random.key(0), 0)
