"""Agnosia rates, states of attention, roll-outs of latents, slots: what must hold exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.losses.contrastive_slots import contrastive_slots, slot_energy
from jattn.systems import agnosia, attention_states, latent_dynamics
from jattn.tasks import pong


def test_a_reader_of_the_truth_and_a_constant_answer():
    aspect = jnp.repeat(jnp.arange(2), 8)
    options = jnp.array([2, 4])
    truth = jnp.concatenate([jnp.arange(8) % 2, jnp.arange(8) % 4])
    perfect = agnosia.agnosia_rates(aspect, truth == truth, options)
    assert perfect.agnosia.tolist() == [0, 0]
    constant = agnosia.agnosia_rates(aspect, truth == 0, options)
    assert constant.agnosia.tolist() == [1, 1]
    assert constant.macro_agnosia == 1
    for found in (perfect, constant):
        assert (found.wilson_low >= 0).all()
        assert (found.wilson_low <= found.accuracy).all()
        assert (found.accuracy <= found.wilson_high).all()
        assert (found.wilson_high <= 1).all()
    assert perfect.p_value[1] == pytest.approx(0.25**8)


def test_options_may_be_permuted():
    scores = jax.random.normal(jax.random.key(0), (20, 4))
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_array_equal(
        order[agnosia.predictions(scores[:, order], 4)], agnosia.predictions(scores, 4)
    )
    assert (agnosia.predictions(scores, 2) < 2).all()
    # One who looks at what options say is right under all rotations.
    answer = agnosia.predictions(scores, 4)
    rotated = jnp.stack([jnp.roll(scores, r, axis=1) for r in range(4)], 1)
    assert agnosia.circular(rotated, answer).all()
    place = jnp.broadcast_to(jnp.eye(4)[1], (20, 4, 4))
    assert agnosia.circular(place, answer).mean() == 0.25


@pytest.fixture(scope="module")
def beliefs():
    raw = jax.random.normal(jax.random.key(0), (200, 4))
    smooth = jnp.convolve(jnp.ones(3), jnp.ones(1))
    return jax.nn.softmax(jax.vmap(lambda x: jnp.convolve(x, smooth, "same"), 1, 1)(raw), axis=1)


def test_hysteresis(beliefs):
    best = beliefs.argmax(1)
    loose = attention_states.hysteresis(beliefs, on=0.0, off=1.01, dwell=1, protect=None)
    np.testing.assert_array_equal(loose, best)
    never = attention_states.hysteresis(beliefs, on=1.01, protect=None)
    assert (never == best[0]).all()
    for dwell in (2, 5):
        held = np.asarray(
            attention_states.hysteresis(beliefs, on=0.3, off=0.5, dwell=dwell, protect=None)
        )
        ends = np.flatnonzero(np.diff(held)) + 1
        assert len(ends) > 3
        assert np.diff(np.append(0, ends)).min() >= dwell
    constant = jnp.tile(beliefs[:1], (9, 1))
    assert (attention_states.hysteresis(constant) == best[0]).all()
    # A protected state is left at a break, and at no other time.
    away = jnp.array([[0, 0, 1.0, 0]] + [[1.0, 0, 0, 0]] * 5)
    breaks = jnp.array([False, False, False, True, False, False])
    assert attention_states.hysteresis(away, breaks).tolist() == [2, 2, 2, 0, 0, 0]
    assert (attention_states.hysteresis(away) == 2).all()


def test_agreement():
    one = jax.random.randint(jax.random.key(0), (20_000,), 0, 4)
    two = jax.random.randint(jax.random.key(1), (20_000,), 0, 4)
    same = attention_states.agreement(one, one, 4)
    assert (same.kappa, same.macro_f1) == (1.0, 1.0)
    assert abs(attention_states.agreement(one, two, 4).kappa) < 0.02
    metrics = pytest.importorskip("sklearn.metrics")
    mixed = jnp.where(jnp.arange(20_000) % 3 > 0, one, two)
    found = attention_states.agreement(one, mixed, 4)
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(one, mixed))
    np.testing.assert_allclose(found.f1, metrics.f1_score(one, mixed, average=None))
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(one, mixed))


def test_rollouts():
    start = (jnp.array([0.0]), jnp.array([0.3]), jnp.array([0.04]), jnp.array([0.1]))
    truth = pong.path(*start, frames=20)
    path = jnp.stack([x[0] for x in truth[:4]], 1)

    def physics(window):  # the true map of (x, y, v_x, v_y)
        x, y, vx, vy = window[-1]
        after = pong.path(x[None], y[None], vx[None], vy[None], frames=2)
        return jnp.stack([each[0, 1] for each in after[:4]])

    found = latent_dynamics.latent_rollout(physics, path[:7], 7, 13)
    np.testing.assert_allclose(found, path[7:], atol=1e-5)
    still = latent_dynamics.latent_rollout(lambda window: window[-1], path[:7], 7, 5)
    np.testing.assert_array_equal(still, jnp.tile(path[6], (5, 1)))
    # Velocity takes two frames: positions alone go on straight from two, and not from one.
    line = jnp.stack([0.1 * jnp.arange(9.0), 1.0 - 0.05 * jnp.arange(9.0)], 1)
    straight = latent_dynamics.latent_rollout(lambda w: 2 * w[-1] - w[-2], line[:4], 2, 5)
    np.testing.assert_allclose(straight, line[4:], atol=1e-5)


def test_the_recurrent_network_forgets_what_is_older_than_its_window():
    params = latent_dynamics.init_continuous_rnn(jax.random.key(0), 3, 5)
    latents = jax.random.normal(jax.random.key(1), (9, 3))
    step = lambda window: latent_dynamics.next_latent(params, window)
    run = jax.jit(lambda x: latent_dynamics.latent_rollout(step, x, 4, 3))
    np.testing.assert_array_equal(run(latents), run(latents.at[:5].set(7.0)))
    assert (run(latents) != run(latents.at[5].add(1.0))).any()


def test_slots():
    state = jax.random.normal(jax.random.key(0), (4, 3, 2))
    turn = jnp.array([1, 2, 3, 0])
    right = contrastive_slots(state, jnp.ones((4, 3, 2)), state + 1, turn)
    np.testing.assert_allclose(right.positive, 0, atol=1e-9)
    np.testing.assert_allclose(right.negative, slot_energy(state - state[turn]), rtol=1e-6)
    alike = contrastive_slots(
        jnp.zeros((4, 3, 2)), jnp.zeros((4, 3, 2)), jnp.zeros((4, 3, 2)), turn
    )
    assert float(alike.loss) == 1.0  # collapsed: the hinge
    slots = jax.grad(lambda s: contrastive_slots(s, jnp.zeros_like(s), s, turn, hinge=99.0).loss)
    assert jnp.abs(slots(state)).max() > 0


@pytest.mark.usefixtures("plain_checks")
def test_bad_input():
    with pytest.raises(ValueError, match="aspect: expected items of each, got none of 1"):
        agnosia.agnosia_rates(jnp.zeros(3, int), jnp.ones(3, bool), jnp.array([2, 4]))
    with pytest.raises(ValueError, match="aspect: expected 0 to 0, got 2"):
        agnosia.agnosia_rates(jnp.array([0, 2]), jnp.ones(2, bool), jnp.array([2]))
    with pytest.raises(ValueError, match="dwell: expected at least 1, got 0"):
        attention_states.hysteresis(jnp.ones((3, 4)), dwell=0)
    with pytest.raises(ValueError, match="beliefs: expected at least one window, got none"):
        attention_states.hysteresis(jnp.ones((0, 4)))
    with pytest.raises(ValueError, match="latents: expected at least n_past=7, got 3"):
        latent_dynamics.latent_rollout(lambda w: w[-1], jnp.ones((3, 2)), 7, 1)
    with pytest.raises(ValueError, match="sigma: expected a positive number, got 0"):
        slot_energy(jnp.ones((1, 1, 1)), sigma=0.0)
