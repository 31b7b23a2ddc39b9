"""Intervals against SciPy's, the bootstrap-t against resampling one by one, and how often they hold the mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import interval, mean_interval, t_interval
from fishnet.stats.intervals import BOOTSTRAP_FROM, STABLE, bootstrap_t, mean_bounds


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


@pytest.mark.parametrize("n", [2, 3, 9])
def test_below_ten_values_it_is_students(n):
    values = np.random.default_rng(1).normal(size=(5, n))
    expected = stats.ttest_1samp(values, 0, axis=1).confidence_interval(0.9)
    np.testing.assert_allclose(mean_interval(values, 0.9), expected, rtol=1e-12)


def test_from_ten_on_each_end_is_the_further_of_two():
    values = np.random.default_rng(2).exponential(size=(20, BOOTSTRAP_FROM))
    mean, error = values.mean(1), stats.sem(values, axis=1)
    q_low, q_high = (q[:, 0] for q in bootstrap_t(values, np.array([0.025])))
    t = stats.t.ppf(0.975, BOOTSTRAP_FROM - 1)
    low, high = mean_interval(values)
    np.testing.assert_allclose(low, mean - np.maximum(q_high, t) * error)
    np.testing.assert_allclose(high, mean - np.minimum(q_low, -t) * error)
    # Skewed to the right: it is the upper end that moves.
    assert (q_low < -t).mean() > 0.8 > 0.2 > (q_high > t).mean()


def test_the_bootstrap_t_equals_resampling_one_by_one():
    values = np.random.default_rng(3).gamma(2.0, size=12)
    rng = np.random.default_rng(4)
    t = []
    for _ in range(10_000):
        drawn = rng.choice(values, 12)
        error = ((drawn.var(ddof=1) + STABLE * values.var(ddof=1)) / (1 + STABLE) / 12) ** 0.5
        t.append((drawn.mean() - values.mean()) / error)
    tails = np.array([0.1, 0.025])
    low, high = bootstrap_t(values, tails, 50_000)
    # Two samples of resamples: their quantiles differ by chance, most in the long tail.
    np.testing.assert_allclose(low, np.quantile(t, tails), rtol=0.07)
    np.testing.assert_allclose(high, np.quantile(t, 1 - tails), rtol=0.07)


def normal(rng, shape):
    return rng.normal(size=shape), 0.0


def heavy_tailed(rng, shape):
    return rng.standard_t(3, size=shape), 0.0


def skewed(rng, shape):
    return rng.gamma(4.0, size=shape), 4.0


def exponential(rng, shape):
    return rng.exponential(size=shape), 1.0


def collapsed(rng, shape):
    """Accuracies of which three in ten are those of runs that hardly learn."""
    gone = rng.random(shape) < 0.3
    return np.where(gone, rng.normal(0.3, 0.1, shape), rng.normal(0.9, 0.03, shape)), 0.3 * 0.3 + 0.7 * 0.9


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 9, 10, 12, 16, 24, 40])
@pytest.mark.slow
def test_95_percent_intervals_of_normal_values_hold_the_mean_in_93_to_97(n):
    values, mean = normal(np.random.default_rng(n), (4000, n))
    low, high = mean_interval(values, resamples=2000)
    assert 0.93 <= ((low <= mean) & (mean <= high)).mean() <= 0.97


@pytest.mark.parametrize(
    ("draw", "n", "least"),
    [
        (heavy_tailed, 5, 0.95),
        (heavy_tailed, 12, 0.95),
        (skewed, 12, 0.94),
        (exponential, 5, 0.87),
        (exponential, 15, 0.93),
        (collapsed, 10, 0.94),
    ],
)
@pytest.mark.slow
def test_coverage_of_other_distributions_is_what_the_docstring_says(draw, n, least):
    values, mean = draw(np.random.default_rng(n), (4000, n))
    low, high = mean_interval(values, resamples=2000)
    assert least <= ((low <= mean) & (mean <= high)).mean() <= 0.985


def test_far_tails_of_normal_values_are_not_underestimated():
    """Those that a correction over many arms needs: the bootstrap-t alone misses twice as often as it should."""
    values, _ = normal(np.random.default_rng(0), (8000, 10))
    tail = np.array([0.0025])
    low, high = (end[:, 0] for end in mean_bounds(values, tail, 2000))
    assert ((low > 0) | (high < 0)).mean() <= 0.005


numbers = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=14)


@given(numbers, st.floats(-3, 3), st.randoms())
@settings(max_examples=60)
def test_mirrors_shifts_and_the_order_of_the_seeds(values, shift, random):
    values = np.array(values)
    low, high = mean_interval(values, resamples=500)
    assert low <= values.mean() + 1e-12
    assert values.mean() <= high + 1e-12
    np.testing.assert_allclose(mean_interval(-values, resamples=500), (-high, -low), atol=1e-9)
    np.testing.assert_allclose(mean_interval(values + shift, resamples=500), (low + shift, high + shift), atol=1e-6)
    shuffled = random.sample(list(values), len(values))
    np.testing.assert_allclose(mean_interval(shuffled, resamples=500), (low, high), atol=1e-9)


def test_collapsed_seeds_do_not_make_an_end_meaningless():
    """Three of ten runs of the control collapsed; every one was better than the arm's by a fifth or more."""
    differences = -np.array([0.50, 0.75, 0.83, 0.76, 0.78, 0.82, 0.23, 0.74, 0.75, 0.19])
    low, high = mean_interval(differences)
    assert -1 < low < -0.7 and -0.5 < high < -0.2


def test_values_that_hardly_vary_keep_finite_ends():
    """Resamples without spread have no infinite statistic."""
    values = np.append(np.zeros(11), 1.0)
    low, high = mean_interval(values)
    assert -0.15 < low < 0 and 0.2 < high < 0.7
    assert mean_interval(np.full(12, 0.3)) == pytest.approx((0.3, 0.3))


def test_too_few_values_and_nan_have_no_interval():
    assert np.isnan(mean_interval([1.0])).all()
    assert np.isnan(mean_interval([])).all()
    for n in (3, 12):
        low, high = mean_interval(np.array([np.full(n, 1.0), np.append(np.ones(n - 1), np.nan)]))
        assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True]


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, float("nan")])
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(UsageError, match=r"confidence .* is not between 0 and 1"):
        mean_interval([1.0, 2.0], confidence)
