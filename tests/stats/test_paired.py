"""Paired tests against SciPy, hand-worked examples and simulation."""

from itertools import product
from math import gamma, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import (
    TESTS,
    effect_size,
    probability_of_improvement,
    sign_flip_p,
    smallest_sign_flip_p,
    t_test_p,
    wilson_interval,
)

few = st.lists(st.integers(-20, 20).map(lambda i: i / 10), min_size=1, max_size=8)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [3, 5, 8, 10])
def test_sign_flip_equals_scipys_permutation_test(n, alternative):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
    )
    assert sign_flip_p(d, alternative) == pytest.approx(expected.pvalue, rel=1e-12)


@given(few)
@settings(max_examples=60)
def test_sign_flip_equals_counting_sums_with_ties(d):
    tenths = np.round(np.array(d) * 10).astype(int)
    sums = [sum(s * x for s, x in zip(signs, tenths, strict=True)) for signs in product([-1, 1], repeat=len(d))]
    assert sign_flip_p(d, "greater") == pytest.approx(np.mean(np.array(sums) >= tenths.sum()))
    assert sign_flip_p(d) == pytest.approx(np.mean(np.abs(sums) >= abs(tenths.sum())))


def test_sign_flip_by_hand():
    # Sums of +-1 +-2 +-3 are 6, 4, 2, 0, 0, -2, -4, -6; the observed 4 is reached by two of them.
    assert sign_flip_p([-1.0, 2.0, 3.0], "greater") == 2 / 8
    assert sign_flip_p([-1.0, 2.0, 3.0], "less") == 7 / 8
    assert sign_flip_p([-1.0, 2.0, 3.0]) == 4 / 8
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (16, 2**-15)])
def test_the_smallest_p_is_attained_by_differences_of_one_sign(n, smallest):
    assert smallest_sign_flip_p(n) == smallest
    assert sign_flip_p(np.arange(1.0, n + 1)) == smallest


def test_drawn_flips_come_close_to_the_exact_test_and_to_their_smallest():
    d = np.random.default_rng(0).normal(0.4, 1, (20, 20))
    sums = np.zeros((20, 1))
    for column in d.T:
        sums = np.concatenate([sums + column[:, None], sums - column[:, None]], 1)
    exact = (np.abs(sums) >= np.abs(d.sum(1, keepdims=True)) - 1e-9).mean(1)
    np.testing.assert_allclose(sign_flip_p(d), exact, atol=4 * 0.5 / np.sqrt(2**17))
    assert sign_flip_p(np.arange(1.0, 31)) == smallest_sign_flip_p(30) == 2 / (2**17 + 1)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("n", [3, 6, 9, 18])
def test_under_the_null_hypothesis_p_is_not_below_its_level_too_often(test, n):
    d = np.random.default_rng(n).normal(size=(2000 if n < 18 else 400, n))
    p = TESTS[test](d)
    for level in (0.05, 0.1, 0.25):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p))


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_t_test_equals_scipys(alternative):
    a, b = np.random.default_rng(0).normal(size=(2, 6, 7))
    np.testing.assert_allclose(
        t_test_p(a - b, alternative), stats.ttest_rel(a, b, axis=1, alternative=alternative).pvalue, rtol=1e-10
    )


def test_t_test_without_spread():
    assert t_test_p([0.0, 0.0, 0.0]) == 1
    assert t_test_p([0.5, 0.5, 0.5]) == 0
    assert np.isnan(t_test_p([0.5]))


def test_effect_size_by_hand():
    # mean 2, s = 1, so d_z = 2; J(2) = Gamma(1) / (1 Gamma(1/2)).
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2 / sqrt(np.pi))
    # J(9) = Gamma(4.5) / (sqrt(4.5) Gamma(4)), near 1 - 3 / (4 f - 1).
    correction = gamma(4.5) / (sqrt(4.5) * gamma(4))
    d = np.arange(10.0)
    assert effect_size(d) == pytest.approx(correction * d.mean() / d.std(ddof=1))
    assert correction == pytest.approx(1 - 3 / 35, abs=1e-3)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_effect_size_is_unbiased(n):
    g = effect_size(np.random.default_rng(n).normal(0.8, 1, (40_000, n)))
    assert g.mean() == pytest.approx(0.8, abs=4 * g.std() / 200)


def test_effect_size_without_spread_or_seeds():
    assert effect_size([0.0, 0.0, 0.0]) == 0
    assert effect_size([-0.5, -0.5, -0.5]) == -np.inf
    assert np.isnan(effect_size([0.1, 0.2]))


def test_probability_of_improvement_counts_ties_half():
    share, bounds = probability_of_improvement([0.1, 0.0, -0.2, 0.3])
    assert share == 2.5 / 4
    assert bounds == wilson_interval(2.5, 4)
    many, _ = probability_of_improvement(np.random.default_rng(0).normal(0.5, 1, (3, 4, 10_000)))
    np.testing.assert_allclose(many, stats.norm.cdf(0.5), atol=0.02)
    assert np.isnan(probability_of_improvement([])[0])


@given(few, st.randoms())
@settings(max_examples=60)
def test_swapping_the_arms_and_shuffling_the_seeds(d, random):
    d = np.array(d)
    shuffled = random.sample(list(d), len(d))
    for test in TESTS.values():
        for alternative, other in (("two-sided", "two-sided"), ("greater", "less")):
            np.testing.assert_allclose(test(-d, alternative), test(d, other), atol=1e-12)
            np.testing.assert_allclose(test(shuffled, alternative), test(d, alternative), atol=1e-9)
    np.testing.assert_allclose(effect_size(-d), -effect_size(d))
    share, (low, high) = probability_of_improvement(d)
    swapped, (swapped_low, swapped_high) = probability_of_improvement(-d)
    np.testing.assert_allclose((swapped, swapped_low, swapped_high), (1 - share, 1 - high, 1 - low), atol=1e-12)


def test_nan_gives_nan_and_an_unknown_alternative_is_refused():
    d = np.array([[0.1, np.nan, 0.2], [0.1, 0.2, 0.3]])
    for found in (sign_flip_p(d), t_test_p(d), effect_size(d), probability_of_improvement(d)[0]):
        assert np.isnan(found).tolist() == [True, False]
    for test in TESTS.values():
        with pytest.raises(UsageError, match=r"unknown alternative 'grater'.*did you mean 'greater'"):
            test([0.1, 0.2], "grater")
