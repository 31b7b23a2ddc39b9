"""DeLong's variance and test against placement values pair by pair, the bootstrap, and null simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from sklearn.metrics import roc_auc_score

from fishnet.errors import UsageError
from fishnet.metrics.roc import delong_interval
from fishnet.stats import delong_covariance, delong_test
from fishnet.stats.delong import FEWEST


def sample(n=60, m=20, shift=1.0, seed=0):
    """Two scores that share half of their noise, of m positives among n."""
    rng = np.random.default_rng(seed)
    positive = np.arange(n) < m
    common, own = rng.normal(size=n), rng.normal(size=(2, n))
    return positive, (common + own) / np.sqrt(2) + shift * positive


def pair_by_pair(positive, scores):
    """Equations 4 to 6 of DeLong et al.: every placement value from all its pairs, O(m n)."""
    kernel = [[[1.0 if a > b else 0.5 if a == b else 0.0 for b in s[~positive]] for a in s[positive]] for s in scores]
    v10, v01 = np.mean(kernel, 2), np.mean(kernel, 1)
    covariance = np.empty((len(scores), len(scores)))
    for r, s in np.ndindex(covariance.shape):
        s10 = np.sum((v10[r] - v10[r].mean()) * (v10[s] - v10[s].mean())) / (positive.sum() - 1)
        s01 = np.sum((v01[r] - v01[r].mean()) * (v01[s] - v01[s].mean())) / ((~positive).sum() - 1)
        covariance[r, s] = s10 / positive.sum() + s01 / (~positive).sum()
    return v10.mean(1), covariance


@given(
    hnp.arrays(np.float64, (3, 14), elements=st.sampled_from([0.0, 0.1, 0.5, 0.7, 2.0])),
    hnp.arrays(bool, 14).filter(lambda p: 1 < p.sum() < 13),
)
@settings(max_examples=60)
def test_equals_the_paper_pair_by_pair_with_ties(scores, positive):
    auc, covariance = delong_covariance(positive, scores)
    expected_auc, expected = pair_by_pair(positive, scores)
    np.testing.assert_allclose(auc, expected_auc, atol=1e-14)
    np.testing.assert_allclose(covariance, expected, atol=1e-14)
    # Only the order counts.
    np.testing.assert_allclose(delong_covariance(positive, np.exp(scores))[1], covariance, atol=1e-14)


def test_by_hand():
    # Positives 3 and 1, negatives 2 and 0: V10 = 1, 1/2; V01 = 1/2, 1; each with variance 1/8.
    auc, covariance = delong_covariance([True, True, False, False], [[3.0, 1.0, 2.0, 0.0]])
    assert auc == [0.75]
    assert covariance == pytest.approx(np.array([[1 / 8 / 2 + 1 / 8 / 2]]))


def test_auc_and_interval_agree_with_scikit_learn_and_the_one_score_interval():
    positive, scores = sample()
    auc, covariance = delong_covariance(positive, scores)
    np.testing.assert_allclose(auc, [roc_auc_score(positive, s) for s in scores])
    half = stats.norm.ppf(0.975) * np.sqrt(covariance[0, 0]) / (auc[0] * (1 - auc[0]))
    low, high = delong_interval(positive.astype(int), np.stack([-scores[0], scores[0]], -1))
    ends = special.expit(special.logit(auc[0]) + np.array([-half, half]))
    np.testing.assert_allclose((low[1], high[1]), ends)


def test_standard_error_of_the_difference_is_that_of_the_bootstrap():
    positive, scores = sample(n=300, m=100)
    _, covariance = delong_covariance(positive, scores)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    rng = np.random.default_rng(1)
    drawn = np.concatenate([rng.integers(0, 100, (1500, 100)), rng.integers(100, 300, (1500, 200))], 1)
    ranks = stats.rankdata(scores[:, drawn], axis=-1)
    aucs = (ranks[..., :100].sum(-1) - 100 * 101 / 2) / (100 * 200)
    assert error == pytest.approx((aucs[0] - aucs[1]).std(), rel=0.08)
    np.testing.assert_allclose(covariance, np.cov(aucs), rtol=0.15)


def binary(scores):
    """Scores of class 1, [..., n], as those of two classes [..., n, 2]."""
    return np.stack([-scores, scores], -1)


@pytest.mark.parametrize(("positives", "shift"), [(50, 1.0), (100, 0.5)])
def test_p_values_are_uniform_where_the_aucs_are_equal(positives, shift):
    draws = [sample(400, positives, shift, seed) for seed in range(400)]
    labels, scores = draws[0][0].astype(int), np.stack([scores for _, scores in draws], 1)
    p = delong_test(labels, binary(scores[0]), binary(scores[1])).p[:, 1]
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("positives", [20, 80])
def test_intervals_hold_the_true_difference(positives):
    """From the fewest positives on; of 300 draws, by chance 1.3 % more or less."""
    shifts = np.array([1.2, 0.8])
    true = np.subtract(*stats.norm.cdf(shifts / np.sqrt(2)))
    held = 0
    for seed in range(300):
        positive, scores = sample(250, positives, 0.0, seed)
        scores = scores + shifts[:, None] * positive
        interval = delong_test(positive.astype(int), binary(scores[0]), binary(scores[1])).interval
        held += interval.low[1] <= true <= interval.high[1]
    assert 0.92 <= held / 300 <= 0.98


def test_each_class_against_the_rest_with_leading_axes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    a, b = rng.normal(size=(2, 4, 2, 120, 3)) + np.eye(3)[labels]
    found = delong_test(labels, a, b)
    assert found.p.shape == (4, 2, 3)
    auc, covariance = delong_covariance(labels == 2, [a[1, 0, :, 2], b[1, 0, :, 2]])
    assert (found.auc_a[1, 0, 2], found.auc_b[1, 0, 2]) == tuple(auc)
    z = (auc[0] - auc[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.p[1, 0, 2] == pytest.approx(2 * stats.norm.sf(abs(z)))
    other = delong_test(labels, b, a)
    np.testing.assert_allclose(other.p, found.p)
    np.testing.assert_allclose(other.difference, -found.difference)
    np.testing.assert_allclose(other.interval.low, -found.interval.high)


def test_scores_that_rank_alike_are_equal():
    positive, scores = sample()
    found = delong_test(positive.astype(int), binary(scores[0]), binary(scores[0] * 3 + 1))
    assert found.p.tolist() == [1, 1]
    np.testing.assert_allclose(found.interval, 0, atol=1e-12)


def test_what_is_undefined_is_nan():
    labels = np.repeat([0, 1, 2], [FEWEST, FEWEST - 1, 2 * FEWEST])
    a, b = np.random.default_rng(0).normal(size=(2, len(labels), 4))
    found = delong_test(labels, a, b)
    # Few positives have an AUC and no test; a class without images has neither.
    assert np.isnan(found.auc_a).tolist() == np.isnan(found.difference).tolist() == [False, False, False, True]
    assert np.isnan(found.p).tolist() == np.isnan(found.interval.low).tolist() == [False, True, False, True]
    a[FEWEST // 2, 0] = np.nan
    assert np.isnan(delong_test(labels, a, b).p[0])
    perfect = np.arange(2.0 * FEWEST)
    assert np.isnan(delong_test(np.repeat([0, 1], FEWEST), binary(perfect), binary(-perfect)).p).all()


@pytest.mark.parametrize(("labels", "a", "b"), [((3,), (3, 2), (3, 3)), ((4,), (3, 2), (3, 2)), ((3,), (3,), (3,))])
def test_shapes_that_do_not_fit_are_refused(labels, a, b):
    with pytest.raises(UsageError, match="are not"):
        delong_test(np.zeros(labels, int), np.zeros(a), np.zeros(b))
    with pytest.raises(UsageError, match="are not"):
        delong_covariance(np.zeros(4, bool), np.zeros((2, 3)))
