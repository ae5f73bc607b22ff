"""Fits of grokking's laws, on data made by them."""

import numpy as np
import pytest

from jattn.theory.grokking import first_time, fit_delay, fit_transition


def test_transitions_are_found_again():
    draw = np.random.default_rng(0)
    decays = np.tile(np.geomspace(0.001, 2, 25), 40)
    likely = 1 / (1 + np.exp(-6 * (np.log10(decays) - np.log10(0.05))))
    found = fit_transition(decays, draw.random(decays.size) < likely)
    assert found.critical == pytest.approx(0.05, rel=0.15)
    assert found.steepness == pytest.approx(6, rel=0.2)


def test_separated_runs_have_a_finite_fit_between_them():
    decays = np.array([0.1, 0.2, 0.4, 0.8])
    found = fit_transition(decays, decays > 0.3)
    assert 0.2 < found.critical < 0.4
    assert 0 < found.steepness < np.inf
    falling = fit_transition(decays, decays < 0.3)
    assert falling.steepness == pytest.approx(-found.steepness, rel=1e-3)
    with pytest.raises(ValueError, match="grokked: expected runs that did and runs that did not"):
        fit_transition(decays, decays > 0)


def test_delays_leave_out_what_never_came():
    decays = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    times = 30 * np.abs(decays - 0.06) ** -0.5
    found = fit_delay(decays, np.where(decays == 0.4, np.inf, times), 0.06)
    assert found.exponent == pytest.approx(0.5)
    assert found.amplitude == pytest.approx(30)
    assert np.isnan(fit_delay(decays, np.full(5, np.inf), 0.06).exponent)


def test_first_times():
    accuracy = np.array([[[0.2, 0.995]], [[0.99, 0.2]], [[1.0, 0.3]]])
    np.testing.assert_array_equal(first_time(accuracy, np.array([0.0, 10.0, 20.0])), [[10.0, 0.0]])
