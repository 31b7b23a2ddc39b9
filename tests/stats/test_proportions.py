"""Proportions against SciPy; noise floors against the papers' formulas and against drawing test sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import accuracy_noise, difference_noise, wilson_interval

Z = stats.norm.ppf(0.975)


@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(max_examples=80)
def test_wilson_equals_scipys(k, more, confidence):
    n = max(k, more)
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(wilson_interval(k, n, confidence), expected, atol=1e-12)


def test_wilson_of_many_of_half_counts_and_of_nothing():
    low, high = wilson_interval([[0, 2.5, 5]], [5, 5, 5])
    assert (low[0, 0], high[0, 2]) == (0, 1)
    # Between those of 2 and of 3, and symmetric.
    assert low[0, 1] + high[0, 1] == pytest.approx(1)
    assert wilson_interval(2, 5).low < low[0, 1] < wilson_interval(3, 5).low
    assert np.isnan(wilson_interval(0, 0)).all()
    assert np.isnan(wilson_interval(np.nan, 5)).all()


def test_wilson_covers_95_percent_on_average_over_proportions():
    """A discrete interval: its coverage swings with the proportion, around the nominal."""
    for n in (3, 5, 10, 30):
        k, p = np.arange(n + 1)[:, None], np.linspace(0, 1, 2001)
        low, high = wilson_interval(k, n)
        covered = (stats.binom.pmf(k, n, p) * ((low <= p) & (p <= high))).sum(0)
        assert 0.94 <= covered.mean() <= 0.965
        assert covered.min() > 0.8


@pytest.mark.parametrize(("k", "n"), [(6, 5), (-1, 5)])
def test_more_successes_than_there_are_is_refused(k, n):
    with pytest.raises(UsageError, match=f"{k} successes of {n}"):
        wilson_interval(k, n)


def test_difference_noise_of_one_class_is_mcnemars_variance_with_half_an_image_a_cell():
    a, b = np.array([1] * 30 + [0] * 5 + [1] * 12 + [0] * 3), np.array([1] * 30 + [1] * 5 + [0] * 12 + [0] * 3)
    only_b, only_a, n = 5.5, 12.5, 52
    variance = (only_a + only_b - (only_a - only_b) ** 2 / n) / n
    assert difference_noise(a, b) == pytest.approx(Z * np.sqrt(variance / (n - 1)))
    # Nearly McNemar's own, z sqrt(b + c - (b - c)^2 / n) / n.
    assert difference_noise(a, b) == pytest.approx(Z * np.sqrt(17 - 49 / 50) / 50, rel=0.03)


def test_accuracy_noise_of_one_class_is_agresti_and_coulls():
    right = np.arange(50) < 41
    p = 43 / 54
    assert accuracy_noise(right) == pytest.approx(Z * np.sqrt(p * (1 - p) / 53))
    # A little wider than Wilson's, whose middle it shares: so Agresti and Coull.
    low, high = wilson_interval(41, 50)
    assert 1 < accuracy_noise(right) / ((high - low) / 2) < 1.05


def test_balanced_is_plain_where_classes_are_alike_and_adds_variances_where_not():
    labels = np.repeat(np.arange(4), 250)
    right = np.tile(np.arange(250) < 200, 4)
    assert accuracy_noise(right, labels) == pytest.approx(accuracy_noise(right), rel=0.01)
    # A rare class dominates: the mean over classes hangs on its few images.
    labels = np.repeat([0, 1], [990, 10])
    right = np.tile([1, 1, 1, 1, 0], 200)
    expected = Z * np.sqrt(0.16 / 990 + 0.16 / 10) / 2
    assert accuracy_noise(right, labels) == pytest.approx(expected, rel=0.12)
    assert accuracy_noise(right, labels) > 4 * accuracy_noise(right)


def test_shares_of_seeds_are_less_noisy_than_single_networks():
    rng = np.random.default_rng(0)
    runs = (rng.random((8, 400)) < 0.8).astype(float)
    assert accuracy_noise(runs.mean(0)) < 0.6 * accuracy_noise(runs).mean()
    same = np.repeat(runs[:1], 8, 0).mean(0)
    assert accuracy_noise(same) == pytest.approx(accuracy_noise(runs[0]))


def test_leading_axes_are_runs():
    rng = np.random.default_rng(0)
    a, b, labels = rng.random((3, 2, 40)) < 0.8, rng.random((3, 2, 40)) < 0.7, rng.integers(0, 4, 40)
    found = difference_noise(a, b, labels)
    assert found.shape == (3, 2)
    assert found[2, 1] == pytest.approx(difference_noise(a[2, 1], b[2, 1], labels))
    np.testing.assert_allclose(difference_noise(b, a, labels), found)
    # Which names the classes have does not matter.
    np.testing.assert_allclose(difference_noise(a, b, 7 * labels + 3), found)


REEF = np.array([4, 4, 5, 6, 7, 8, 10, 12, 20, 30, 40, 60, 80, 90, 102])


@pytest.mark.parametrize(
    ("sizes", "recall", "flips"), [([478], 0.85, 0.05), ([200], 0.6, 0.02), ([100] * 10, 0.8, 0.05), (REEF, 0.7, 0.15)]
)
def test_floors_hold_in_93_percent_of_drawn_test_sets_or_more(sizes, recall, flips):
    """Test images drawn anew for fixed networks: how far are the accuracies from those over all images?"""
    rng = np.random.default_rng(0)
    labels, k = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    of_class = rng.uniform(recall - 0.1, recall + 0.1, k)
    a = rng.random((1500, len(labels))) < of_class[labels]
    loses, wins = rng.random((2, 1500, len(labels))) < np.array([flips, 2 * flips])[:, None, None]
    b = np.where(a, ~loses, wins)
    member = (labels[:, None] == np.arange(k)) / np.array(sizes)
    balanced_a, balanced_b = (a @ member).mean(1), (b @ member).mean(1)
    true_a, true_b = of_class.mean(), (of_class * (1 - flips) + (1 - of_class) * 2 * flips).mean()
    held = np.abs(balanced_a - true_a) <= accuracy_noise(a, labels)
    assert 0.92 <= held.mean() <= 0.985
    held = np.abs(balanced_a - balanced_b - (true_a - true_b)) <= difference_noise(a, b, labels)
    assert 0.92 <= held.mean() <= 0.985


def test_perfect_and_equal_networks_are_not_held_for_certain():
    ones = np.ones(100)
    assert 0.01 < accuracy_noise(ones) < 0.05
    assert 0.01 < difference_noise(ones, ones) < 0.05
    # Spread over the classes, the pseudo-images do not add up.
    labels = np.repeat(np.arange(20), 5)
    assert difference_noise(ones, ones, labels) < 2 * difference_noise(ones, ones)


@pytest.mark.parametrize(
    ("right", "labels", "message"),
    [([], None, "above 0"), ([1, 0], [0], "above 0"), ([1, 2], None, "got 2"), ([1, -0.5], None, "got -0.5")],
)
def test_what_is_no_list_of_right_and_wrong_is_refused(right, labels, message):
    with pytest.raises(UsageError, match=message):
        accuracy_noise(right, labels)
    with pytest.raises(UsageError, match=message):
        difference_noise(right, right, labels)


def test_other_images_are_refused():
    with pytest.raises(UsageError, match="3 and 2 test images"):
        difference_noise([1, 0, 1], [1, 0])
