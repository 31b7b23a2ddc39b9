"""Intervals against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from fishnet.stats import interval, t_interval


def test_half_width_equals_scipys_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(4, 7))
    mean, half, n = t_interval(values)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(-1), scale=stats.sem(values, axis=-1))
    np.testing.assert_allclose(mean - half, low, rtol=1e-12)
    np.testing.assert_allclose(mean + half, high, rtol=1e-12)
    assert (n == 7).all()


def test_nan_is_left_out():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, 5.0], [np.nan] * 3])
    mean, half, n = t_interval(values)
    assert n.tolist() == [2, 1, 0]
    np.testing.assert_allclose(mean, [2.0, 5.0, np.nan])
    np.testing.assert_allclose(half, [t_interval(np.array([1.0, 3.0]))[1], np.nan, np.nan])


def test_axis_of_the_repetitions():
    values = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(t_interval(values, axis=0)[1], t_interval(values.T)[1])


def test_one_list_as_plain_numbers():
    found = interval(np.array([0.1, 0.2, 0.3]), confidence=0.9)
    assert (found.mean, found.n) == (pytest.approx(0.2), 3)
    assert found.half == pytest.approx(stats.t.ppf(0.95, 2) * 0.1 / np.sqrt(3))
