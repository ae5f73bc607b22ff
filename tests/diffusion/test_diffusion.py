"""Schedules and samplers, against distributions whose best denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.diffusion import (
    classifier_free,
    clean_and_noise,
    cosine_schedule,
    ddpm_step,
    linear_schedule,
    noised,
    sample,
    velocity,
    velocity_loss,
)

SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}
MEAN, SPREAD = 0.7, 0.25


def best(schedule):
    """Velocities of the best denoiser of independent Gaussian pixels, N(0.7, 0.25^2)."""

    def predict(x, time, step=None):
        a, s = (f.reshape(-1, *(1,) * (x.ndim - 1)) for f in schedule(time))
        share = a * SPREAD**2 / (a**2 * SPREAD**2 + s**2)
        clean = MEAN + share * (x - a * MEAN)
        return (a * x - clean) / s

    return predict


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_keep_the_variance_and_lose_the_signal(schedule):
    level = schedule(jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(level.signal**2 + level.noise**2, 1, atol=1e-6)
    assert (np.diff(level.signal) < 0).all()
    assert level.signal[0] == 1
    assert 0 < level.signal[-1] < 0.02


def test_the_linear_schedule_is_the_limit_of_its_steps():
    share = np.linspace(1e-4, 0.02, 1000)
    product = np.cumprod(1 - share)
    for step in (100, 500, 900):
        found = 2 * jnp.log(linear_schedule(jnp.array(step / 1000)).signal)
        np.testing.assert_allclose(found, np.log(product[step - 1]), rtol=0.015)


def test_a_velocity_gives_back_image_and_noise():
    clean, noise = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    level = cosine_schedule(jnp.array([0.1, 0.5, 1.0]))
    x, v = noised(clean, noise, level), velocity(clean, noise, level)
    for found, expected in zip(clean_and_noise(x, v, level), (clean, noise), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("random", [False, True], ids=["ddim", "ddpm"])
def test_samples_of_the_best_denoiser_have_the_distribution(schedule, random):
    start = jax.random.normal(jax.random.key(0), (500, 40))
    key = jax.random.key(1) if random else None
    found = sample(best(schedule), start, steps=600, key=key, schedule=schedule, clip=None)
    np.testing.assert_allclose(found.mean(), MEAN, atol=0.02)
    np.testing.assert_allclose(found.std(), SPREAD, rtol=0.05)


def test_a_step_of_ddpm_keeps_the_level_of_noise():
    now, then = cosine_schedule(jnp.array(0.6)), cosine_schedule(jnp.array(0.5))
    clean, noise = 0.3 * jnp.ones(40_000), jax.random.normal(jax.random.key(0), (40_000,))
    x, v = noised(clean, noise, now), velocity(clean, noise, now)
    found = ddpm_step(x, v, now, then, jax.random.key(1), clip=None)
    np.testing.assert_allclose(found.mean(), then.signal * 0.3, atol=0.02)
    np.testing.assert_allclose(found.std(), then.noise, rtol=0.02)
    # Some of the noise is new: less of the old one is left than a step of DDIM keeps.
    kept = jnp.mean((found - found.mean()) * noise)
    assert kept < 0.99 * then.noise


def test_the_best_denoiser_has_the_least_loss():
    clean = MEAN + SPREAD * jax.random.normal(jax.random.key(0), (400, 8))
    predict = best(cosine_schedule)
    noise, time = jax.random.normal(jax.random.key(1), clean.shape), jnp.arange(1, 401) / 400

    def loss(shift):
        return velocity_loss(lambda x, t: predict(x, t) + shift, clean, noise, time)

    assert loss(0.0) < loss(0.1)
    assert loss(0.0) < loss(-0.1)


def test_guidance_begins_with_none_and_goes_on_behind_the_condition():
    with_it, without = jnp.array([1.0, 3.0]), jnp.array([0.5, 4.0])
    np.testing.assert_array_equal(classifier_free(with_it, without, 0.0), without)
    np.testing.assert_array_equal(classifier_free(with_it, without, 1.0), with_it)
    np.testing.assert_allclose(classifier_free(with_it, without, 2.0), [1.5, 2.0])


def test_noisy_images_are_adjusted_before_each_step():
    start, nothing = jnp.ones((2, 3)), lambda x, time, step: x * 0
    plain = sample(nothing, start, steps=3, clip=None)

    def adjust(x, time, step, seen):
        first = step == 0
        np.testing.assert_array_equal(time.shape, (2,))
        return jnp.where(first, 3 * x, x), seen + jnp.where(first, 0.0, 1.0)

    moved = sample(nothing, start, steps=3, clip=None, adjust=adjust, memory=jnp.zeros(()))
    np.testing.assert_allclose(moved, 3 * plain, rtol=1e-5)

    def later(x, time, step, seen):
        return x + (seen == 2), seen + 1  # the third step alone

    third = sample(nothing, start, steps=3, clip=None, adjust=later, memory=jnp.zeros(()))
    np.testing.assert_allclose(third - plain, cosine_schedule(jnp.array(1 / 3)).signal, rtol=1e-4)
