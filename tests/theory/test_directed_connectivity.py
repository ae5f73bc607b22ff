"""Directed connectivity: exact identities, what is a link and what only looks like one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jattn.theory import autoregression
from jattn.theory import directed_connectivity as dc

CHAIN = np.zeros((1, 3, 3))
CHAIN[0] = [[0.5, 0, 0], [0.6, 0.4, 0], [0, 0.5, 0.3]]


def network():
    """Four channels: 0 -> 1, 1 -> 2, 0 -> 3, 2 -> 3."""
    a = np.zeros((2, 4, 4))
    a[0][np.diag_indices(4)] = (0.5, 0.4, 0.3, 0.35)
    a[1][np.diag_indices(4)] = (-0.7, -0.3, -0.2, -0.25)
    a[0, 1, 0], a[1, 2, 1], a[0, 3, 0], a[1, 3, 2] = 0.6, -0.5, 0.4, 0.45
    return jnp.asarray(a), jnp.diag(jnp.array([1.0, 0.7, 1.3, 0.9]))


def close(a, b, atol=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


@pytest.mark.usefixtures("x64")
def test_sums_and_inverses():
    a, sigma = network()
    s = dc.spectral(a, sigma, jnp.linspace(0, 0.5, 17))
    for covariance in (None, sigma):
        close(dc.dtf(s.transfer, covariance).sum(-1), 1)
        close(dc.pdc(s.coefficients, covariance).sum(-2), 1)
    close(dc.full_frequency_dtf(s.transfer).sum((0, 2)), 1)
    close(s.inverse_spectrum @ s.cross_spectrum, np.broadcast_to(np.eye(4), (17, 4, 4)))


@pytest.mark.usefixtures("x64")
def test_the_spectrum_integrates_to_the_covariance():
    a, sigma = network()
    s = dc.spectral(a, sigma, jnp.arange(512) / 512)
    expected = autoregression.stationary_covariance(a, sigma)
    close(s.cross_spectrum.mean(0), expected, 1e-10)
    close(np.diag(expected), [2.146465, 2.328657, 2.331639, 2.118213], 1e-6)


@pytest.mark.usefixtures("x64")
def test_what_is_zero():
    a, sigma = network()
    s = dc.spectral(a, sigma, jnp.linspace(0, 0.5, 33))
    direct = np.asarray(dc.direct_links(a))
    reached = np.asarray(dc.paths(dc.direct_links(a)))
    off = ~np.eye(4, dtype=bool)
    biggest = np.asarray(dc.pdc(s.coefficients).max(0))
    assert (biggest[direct] > 1e-3).all()
    assert (biggest[off & ~direct] == 0).all()
    for measure in (dc.dtf(s.transfer), dc.direct_dtf(s)):
        close(measure.max(0)[off & ~reached], 0)
    # Direct DTF is no test of directness: 0 -> 2 is no link, and is larger than two that are.
    ddtf = np.asarray(dc.direct_dtf(s).max(0))
    close([ddtf[2, 0], ddtf[2, 1], ddtf[3, 2]], [0.0675, 0.0487, 0.0588], 5e-5)
    at = dc.spectral(a, sigma, jnp.array([0.125]))
    close(dc.dtf(at.transfer)[0, 2, 0], 0.179534, 1e-6)
    close(dc.coherence(at.inverse_spectrum)[0, 2, 0], 0.046286, 1e-6)
    # In a chain it is.
    chain = dc.spectral(jnp.asarray(CHAIN), jnp.eye(3), jnp.linspace(0, 0.5, 9))
    close(dc.direct_dtf(chain)[:, 2, 0], 0)
    assert (dc.dtf(chain.transfer)[:, 2, 0] > 0.01).all()


@pytest.mark.usefixtures("x64")
def test_units_of_channels():
    a, sigma = network()
    gain = jnp.array([1.0, 3.0, 0.5, 2.0])
    f = jnp.linspace(0, 0.5, 9)
    one = dc.spectral(a, sigma, f)
    two = dc.spectral(a * gain[:, None] / gain, sigma * gain[:, None] * gain, f)
    sigma2 = sigma * gain[:, None] * gain
    close(dc.dtf(one.transfer, sigma), dc.dtf(two.transfer, sigma2))
    close(dc.pdc(one.coefficients, sigma), dc.pdc(two.coefficients, sigma2))
    close(dc.coherence(one.cross_spectrum), dc.coherence(two.cross_spectrum))
    close(dc.coherence(one.inverse_spectrum), dc.coherence(two.inverse_spectrum))
    for measure in (
        lambda s: dc.dtf(s.transfer),
        lambda s: dc.pdc(s.coefficients),
        lambda s: dc.full_frequency_dtf(s.transfer),
        dc.direct_dtf,
    ):
        assert np.abs(np.asarray(measure(one) - measure(two))).max() > 0.05


def test_measures_map_over_subjects_and_depend_on_the_grid():
    a, sigma = network()
    ddtf = lambda a, f: dc.direct_dtf(dc.spectral(a, sigma, f))
    coarse, fine = jnp.linspace(0, 0.5, 33), jnp.linspace(0, 0.5, 65)
    both = jax.jit(jax.vmap(ddtf, (0, None)))(jnp.stack([a, 0.5 * a]), coarse)
    np.testing.assert_allclose(both[0], ddtf(a, coarse), atol=1e-5)
    ratio = both[0].max(0)[1, 0] / ddtf(a, fine).max(0)[1, 0]
    assert abs(float(ratio) - 2**0.5) < 0.03


@pytest.mark.usefixtures("plain_checks")
def test_bad_covariances_and_shapes():
    a, sigma = network()
    with pytest.raises(ValueError, match="covariance: expected a positive definite matrix, got"):
        dc.spectral(a, jnp.ones((4, 4)), jnp.zeros(1))
    with pytest.raises(ValueError, match="covariance: expected shape"):
        dc.spectral(a, sigma[:3, :3], jnp.zeros(1))
