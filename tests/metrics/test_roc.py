"""Areas and intervals against scikit-learn, counting pairs, the papers' formulas sample by sample, and simulation."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats
from sklearn import metrics as sk

from fishnet.errors import UsageError
from fishnet.metrics.roc import (
    auc_interval,
    delong_interval,
    macro_auc,
    newcombe_interval,
    one_vs_rest_auc,
    roc_curve,
)

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Z = stats.norm.ppf(0.975)


def sample(n: int = 60, k: int = 4, runs: int = 3, ties: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, k, n - k), np.arange(k))
    scores = rng.normal(size=(runs, n, k)) + 1.5 * np.eye(k)[labels]
    return labels, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_scikit_learn(ties: bool) -> None:
    labels, scores = sample(ties=ties)
    got = one_vs_rest_auc(labels, scores)
    for run in range(3):
        expected = [sk.roc_auc_score(labels == c, scores[run, :, c]) for c in range(4)]
        np.testing.assert_allclose(got[run], expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(macro_auc(labels, scores), got.mean(-1), rtol=1e-15)


def test_macro_auc_of_probabilities_equals_scikit_learns_multiclass() -> None:
    labels, scores = sample()
    p = np.exp(scores[0]) / np.exp(scores[0]).sum(-1, keepdims=True)
    assert macro_auc(labels, p) == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"), abs=1e-14)


small = hnp.arrays(np.float64, 12, elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0]))


@given(score=small, positive=hnp.arrays(bool, 12).filter(lambda p: p.any() and not p.all()))
@settings(REPEATABLE, max_examples=80)
def test_auc_is_the_share_of_pairs_in_order(score: np.ndarray, positive: np.ndarray) -> None:
    pairs = score[positive][:, None] - score[~positive]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    got = one_vs_rest_auc(positive.astype(int), np.stack([-score, score], -1))
    np.testing.assert_allclose(got, [expected, expected], atol=1e-15)
    # A rising function of the scores changes nothing; turning them round gives the rest.
    np.testing.assert_array_equal(
        one_vs_rest_auc(positive.astype(int), np.stack([score, np.exp(score)], -1))[1], got[1]
    )
    assert one_vs_rest_auc(positive.astype(int), np.stack([score, -score], -1))[1] == pytest.approx(1 - expected)
    fpr, tpr = roc_curve(positive, score)
    assert np.trapezoid(tpr, fpr) == pytest.approx(expected)


def test_a_class_without_positives_or_negatives_is_nan_and_left_out_of_the_mean() -> None:
    labels, scores = np.array([0, 0, 2, 2]), np.random.default_rng(0).normal(size=(4, 3))
    auc = one_vs_rest_auc(labels, scores)
    assert np.isnan(auc[1])
    assert macro_auc(labels, scores) == pytest.approx(auc[[0, 2]].mean())
    assert np.isnan(macro_auc(np.zeros(4, int), scores))
    assert np.isnan(auc_interval(labels, scores)[0]).tolist() == [False, True, False]


def delong_by_hand(positive: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Area and standard error from the structural components of DeLong et al., eq. 4 to 6, a pair at a time."""
    x, y = score[positive], score[~positive]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    v10, v01 = psi.mean(1), psi.mean(0)
    return psi.mean(), np.sqrt(v10.var(ddof=1) / len(x) + v01.var(ddof=1) / len(y))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_delong_equals_the_paper_pair_by_pair(ties: bool, confidence: float) -> None:
    labels, scores = sample(ties=ties)
    low, high = delong_interval(labels, scores, confidence)
    for run, c in np.ndindex(3, 4):
        auc, se = delong_by_hand(labels == c, scores[run, :, c])
        half = stats.norm.ppf((1 + confidence) / 2) * se / (auc * (1 - auc))
        logit = np.log(auc / (1 - auc))
        expected = 1 / (1 + np.exp(-(logit - half))), 1 / (1 + np.exp(-(logit + half)))
        np.testing.assert_allclose((low[run, c], high[run, c]), expected, rtol=1e-12)


def test_delong_is_undefined_where_its_variance_is() -> None:
    one_positive = np.array([1, 0, 0, 0])
    separated = np.array([1, 1, 0, 0])
    score = np.array([0.9, 0.7, 0.5, 0.1])
    for labels in (one_positive, separated):
        assert np.isnan(delong_interval(labels, np.stack([-score, score], -1))).all()


def variance(t: float, m: int, n: int) -> float:
    q1, q2, star = t / (2 - t), 2 * t**2 / (1 + t), (m + n) / 2 - 1
    return (t * (1 - t) + star * (q1 - t**2) + star * (q2 - t**2)) / (m * n)


@pytest.mark.parametrize("auc", [0.0, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 470), (4, 474), (50, 50), (1000, 9000)])
def test_newcombes_ends_solve_his_equation(auc: float, m: int, n: int) -> None:
    low, high = (float(end[0]) for end in newcombe_interval(np.array([auc]), np.array([m]), np.array([n])))

    def gap(t: float) -> float:
        return (auc - t) ** 2 - Z**2 * variance(t, m, n)

    expected_low = 0.0 if auc == 0 else optimize.brentq(gap, 1e-300, min(auc, 1 - 1e-9))
    expected_high = 1.0 if auc == 1 else optimize.brentq(gap, max(auc, 1e-9), 1 - 1e-16)
    np.testing.assert_allclose((low, high), (expected_low, expected_high), atol=1e-9)
    assert 0 <= low <= auc <= high <= 1
    assert low < high


def test_newcombe_is_symmetric_and_narrows_with_the_counts() -> None:
    auc = np.array([0.8, 0.2])
    low, high = newcombe_interval(auc, np.array([9, 9]), np.array([9, 9]))
    np.testing.assert_allclose(low, 1 - high[::-1], atol=1e-12)
    counts = np.array([1, 4, 16, 64, 256])
    widths = np.subtract(*newcombe_interval(np.full(5, 0.9), counts, 4 * counts)[::-1])
    assert (np.diff(widths) < 0).all()


def test_the_interval_is_the_wider_of_the_two_at_each_end() -> None:
    labels, scores = sample(n=300)
    low, high = auc_interval(labels, scores)
    delong = delong_interval(labels, scores)
    m = np.bincount(labels)
    newcombe = newcombe_interval(one_vs_rest_auc(labels, scores), m, 300 - m)
    np.testing.assert_array_equal(low, np.minimum(delong[0], newcombe[0]))
    np.testing.assert_array_equal(high, np.maximum(delong[1], newcombe[1]))


def test_a_perfect_class_has_an_interval_that_its_count_explains() -> None:
    widths = []
    for m in (1, 4, 12, 100):
        labels = np.arange(478) < m
        score = labels + np.linspace(0, 0.5, 478)
        low, high = auc_interval(labels.astype(int), np.stack([-score, score], -1))
        assert high[1] == 1
        widths.append(1 - low[1])
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.4
    assert widths[-1] < 0.03


def test_one_inversion_is_not_held_for_more_certain_than_none() -> None:
    labels = (np.arange(200) < 20).astype(int)
    perfect = np.where(labels, 1.0, 0.0) + np.linspace(0, 0.5, 200)
    inverted = perfect.copy()
    inverted[19], inverted[20] = 0.85, 0.9
    inverted[21:] *= 0.9
    low = [auc_interval(labels, np.stack([-s, s], -1))[0][1] for s in (perfect, inverted)]
    assert low[1] < low[0]


@pytest.mark.parametrize(("m", "auc", "spread"), [(4, 0.9, 1.0), (8, 0.97, 2.0), (12, 0.99, 1.0), (40, 0.97, 2.0)])
def test_simulated_coverage_is_what_the_docstring_says(m: int, auc: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    runs, n = 600, 478 - m
    mean = stats.norm.ppf(auc) * np.hypot(1, spread)
    scores = np.concatenate([rng.normal(mean, spread, (runs, m)), rng.normal(0, 1, (runs, n))], -1)
    labels = np.append(np.ones(m, int), np.zeros(n, int))
    low, high = (end[:, 1] for end in auc_interval(labels, np.stack([-scores, scores], -1)))
    covered = ((low <= auc) & (auc <= high)).mean()
    assert covered >= 0.93
    if (m, auc) == (8, 0.97):
        delong = delong_interval(labels, np.stack([-scores, scores], -1))
        assert ((delong[0][:, 1] <= auc) & (auc <= delong[1][:, 1])).mean() < 0.75


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_equals_scikit_learns(ties: bool) -> None:
    labels, scores = sample(ties=ties)
    fpr, tpr = roc_curve(labels == 1, scores[0, :, 1])
    expected_fpr, expected_tpr, _ = sk.roc_curve(labels == 1, scores[0, :, 1], drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr)
    np.testing.assert_allclose(tpr, expected_tpr)


@pytest.mark.parametrize("positive", [np.zeros(3, bool), np.ones(3, bool)])
def test_a_curve_needs_both_kinds(positive: np.ndarray) -> None:
    with pytest.raises(UsageError, match="of 3 are positive"):
        roc_curve(positive, np.arange(3.0))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_a_confidence_outside_its_range_is_refused(confidence: float) -> None:
    labels, scores = sample()
    with pytest.raises(UsageError, match=r"confidence .* is not between 0 and 1"):
        auc_interval(labels, scores, confidence)


def test_a_curve_takes_truths_and_ranks_only() -> None:
    positive, score = np.array([True, False, True]), np.array([0.1, 0.4, 0.8])
    for wrong in (positive.astype(int), positive.astype(float), positive[:, None], positive[:2]):
        with pytest.raises(UsageError, match=r"are not \[n\] bool and \[n\]"):
            roc_curve(wrong, score)
    with pytest.raises(UsageError, match="a score is NaN"):
        roc_curve(positive, [0.1, np.nan, 0.8])
    with pytest.raises(UsageError, match="a score is NaN"):
        one_vs_rest_auc([0, 1], [[0.1, np.nan], [0.3, 0.7]])
