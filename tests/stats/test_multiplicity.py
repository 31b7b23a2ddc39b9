"""Holm's adjustment worked by hand and against closed testing; intervals that hold for all arms at once."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishnet.stats import holm, holm_intervals
from fishnet.stats.multiplicity import JUST_ABOVE_0

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and .06 again so that the order holds.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1, 1])
    assert holm([]).shape == (0,)


def test_a_test_that_could_not_be_made_counts():
    np.testing.assert_allclose(holm([0.01, np.nan]), [0.02, np.nan])


@given(p_values)
@settings(max_examples=60)
def test_holm_is_the_closed_bonferroni_test(p):
    """An arm's adjusted value is the largest Bonferroni value of any family that it belongs to."""
    m = len(p)
    families = [f for size in range(1, m + 1) for f in combinations(range(m), size)]
    closed = [max(min(1, len(f) * min(p[j] for j in f)) for f in families if i in f) for i in range(m)]
    np.testing.assert_allclose(holm(p), closed, rtol=1e-12)


@given(p_values, st.integers(0, 5), st.floats(0, 1))
@settings(max_examples=60)
def test_holm_is_monotone(p, place, factor):
    adjusted, p = holm(p), np.array(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    p[place % len(p)] *= factor
    assert (holm(p) <= adjusted + 1e-15).all()


def normal_bounds(estimate: np.ndarray, alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """One-sided bounds [..., m, m] of normal estimates with error 1."""
    z = stats.norm.isf(alpha / 2 / np.arange(1, estimate.shape[-1] + 1))
    return estimate[..., None] - z, estimate[..., None] + z


def test_intervals_by_hand():
    z = stats.norm.isf(0.025 / np.array([1, 2, 3]))  # 1.96, 2.24, 2.39
    found = holm_intervals(*normal_bounds(np.array([3.0, 2.3, -1.0])))
    # Below: 3 passes 2.39, then 2.3 passes 2.24, then -1 does not pass 1.96. Above: none passes.
    np.testing.assert_allclose(found.low, [JUST_ABOVE_0, JUST_ABOVE_0, -1 - z[0]])
    np.testing.assert_allclose(found.high, np.array([3.0, 2.3, -1.0]) + z[2])
    assert (found.left_below, found.left_above) == (1, 3)
    # All told from 0: their Bonferroni bounds, where those say more than that.
    found = holm_intervals(*normal_bounds(np.array([3.0, 2.1])))
    np.testing.assert_allclose(found.low, [3 - z[1], JUST_ABOVE_0])


def test_one_arm_has_its_own_interval():
    found = holm_intervals(*normal_bounds(np.array([0.7])))
    np.testing.assert_allclose((found.low[0], found.high[0]), stats.norm.interval(0.95, 0.7))


def test_a_missing_bound_stays_missing_and_counts():
    low, high = normal_bounds(np.array([np.nan, 2.1]))
    found = holm_intervals(low, high)
    assert np.isnan([found.low[0], found.high[0]]).all()
    assert found.low[1] == pytest.approx(2.1 - stats.norm.isf(0.0125))


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=6))
@settings(max_examples=100)
def test_intervals_fit_holms_test_on_either_side(estimates):
    estimates = np.array(estimates)
    found = holm_intervals(*normal_bounds(estimates))
    for above, p in ((found.low > 0, stats.norm.sf(estimates)), (found.high < 0, stats.norm.cdf(estimates))):
        adjusted = holm(p)
        clear = np.abs(adjusted - 0.025) > 1e-9
        assert (above == (adjusted <= 0.025))[clear].all()
    # What is told from 0 is so too by Holm's test of two-sided values over all arms.
    told = (found.low > 0) | (found.high < 0)
    assert (holm(2 * stats.norm.sf(np.abs(estimates)))[told] <= 0.05 + 1e-9).all()
    swapped = holm_intervals(*normal_bounds(-estimates))
    np.testing.assert_allclose(swapped.low, -found.high)


@pytest.mark.parametrize("means", [(0, 0, 0, 0), (0, 0, 3, -3), (2, 2.5, 3, 0), (4, 4, 4, 0), (5, 6, 7, 8)])
def test_all_hold_at_once_in_95_percent_or_more(means):
    means = np.array(means, float)
    rng = np.random.default_rng(0)
    # Correlated, as arms that share a control are.
    estimates = means + (rng.normal(size=(2000, 4)) - rng.normal(size=(2000, 1))) / np.sqrt(2)
    low, high = normal_bounds(estimates)
    held = 0
    for i in range(2000):
        found = holm_intervals(low[i], high[i])
        held += ((found.low <= means) & (means <= found.high)).all()
    assert held / 2000 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 2000)
