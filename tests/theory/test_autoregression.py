"""Vector autoregressions: what is drawn is found again, and tests are the textbook's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import f as f_distribution

from jattn.theory import autoregression as ar
from tests.theory.test_directed_connectivity import network


@pytest.fixture(scope="module")
def series():
    a, sigma = network()
    return ar.sample_autoregression(jax.random.key(0), a, sigma, 4000)


def test_what_is_drawn_is_found(series):
    a, sigma = network()
    fit = ar.fit_autoregression(series, 2)
    np.testing.assert_allclose(fit.coefficients, a, atol=0.06)
    np.testing.assert_allclose(fit.covariance, sigma, atol=0.07)
    np.testing.assert_allclose(np.cov(series.T), ar.stationary_covariance(a, sigma), atol=0.25)
    assert ar.order_criteria(series, 4)[:, 1].argmin() == 1


@pytest.mark.usefixtures("x64")
def test_granger_is_the_comparison_of_two_fits():
    a, sigma = network()
    x = np.array(ar.sample_autoregression(jax.random.key(1), a, sigma, 120), np.float64)
    found = ar.granger(jnp.asarray(x), 2)
    x = x - x.mean(0)
    past = np.concatenate([x[1:-1], x[:-2]], 1)

    def rest(target, columns):
        solution = np.linalg.lstsq(past[:, columns], target, rcond=None)[0]
        return ((target - past[:, columns] @ solution) ** 2).sum()

    freedom = len(past) - 8
    for sink, source in ((1, 0), (2, 0), (3, 2)):
        without = [c for c in range(8) if c % 4 != source]
        full, less = rest(x[2:, sink], list(range(8))), rest(x[2:, sink], without)
        f = (less - full) / 2 / (full / freedom)
        np.testing.assert_allclose(found.statistic[sink, source], f, rtol=1e-9)
        np.testing.assert_allclose(
            found.p_value[sink, source], f_distribution.sf(f, 2, freedom), rtol=1e-8
        )


def test_tests_find_the_links(series):
    p = np.asarray(ar.granger(series[:600], 2).p_value)
    links = np.asarray(network()[0] != 0).any(0) & ~np.eye(4, dtype=bool)
    assert (p[links] < 1e-6).all()
    assert (p[~links] > 0.004).all()  # 0.05 / 12


@pytest.mark.usefixtures("plain_checks")
def test_bad_series():
    x = jax.random.normal(jax.random.key(0), (50, 2))
    with pytest.raises(ValueError, match="series: expected columns that vary, got a constant one"):
        ar.fit_autoregression(x.at[:, 1].set(3.0), 1)
    with pytest.raises(ValueError, match="series: expected more than 6 samples for order 2 of 2"):
        ar.fit_autoregression(x[:6], 2)
    with pytest.raises(ValueError, match="order: expected at least 1, got 0"):
        ar.fit_autoregression(x, 0)
    with pytest.raises(ValueError, match="coefficients: expected a stable process, got one whose"):
        ar.stationary_covariance(jnp.array([[[1.1]]]), jnp.eye(1))
