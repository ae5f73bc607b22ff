"""Made series: what decides is there, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.tasks.dispersed_channels import blind_accuracy, dispersed_channels
from jattn.tasks.motor_imagery import LIMBS, PLACES, motor_imagery


def draws(sample, count=512):
    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), count))


def test_the_noisy_channel_decides():
    found = draws(dispersed_channels)
    noisiest = found.series.std(1).argmax(1)
    np.testing.assert_array_equal(noisiest, found.noisy)
    means = np.take_along_axis(found.series.mean(1), np.asarray(noisiest)[:, None], 1)[:, 0]
    np.testing.assert_allclose(((means > 0) == found.label).mean(), 1, atol=0.01)


def test_means_alone_are_as_good_as_counted():
    signs = np.sign(draws(dispersed_channels, 4096).series.mean(1))
    label = 2 * np.asarray(draws(dispersed_channels, 4096).label) - 1
    agreement = np.sign(signs.sum(1)) * label
    accuracy = (agreement > 0).mean() + 0.5 * (agreement == 0).mean()
    assert accuracy == pytest.approx(blind_accuracy(8), abs=3 * (0.23 / 4096) ** 0.5)
    assert blind_accuracy(2) == 0.75  # right where both signs agree, else a guess


def test_the_rhythm_of_the_imagined_limb_is_weak():
    """Power at 8 to 12 Hz by the electrode over each place, without noise."""
    series, limb = draws(lambda key: motor_imagery(key, electrodes=21, noise=0.0))
    spectrum = jnp.abs(jnp.fft.rfft(series, axis=1)) ** 2
    near = [round(20 * place) for place in PLACES]
    power = np.asarray(spectrum[:, 15:26].sum(1))[:, near]
    for index in range(len(LIMBS)):
        own = power[np.asarray(limb) == index].mean(0)
        other = power[np.asarray(limb) != index].mean(0)
        assert (own / other).argmin() == index


def test_noise_is_as_strong_as_asked():
    quiet, loud = (
        draws(lambda key, n=n: motor_imagery(key, faded=1.0, noise=n), 256)[0] for n in (0.0, 2.0)
    )
    assert (loud - quiet).std() == pytest.approx(2.0, rel=0.02)
