"""DeLong's variance of an AUC and test of two AUCs of the same images, in float64 on the host.

Class by class, one against the rest. There is no such test of the macro AUC here: compare that by seed, with `compare`.
Intervals for one AUC are in `fishnet.metrics.roc`: `delong_interval`, and where classes are rare `auc_interval`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy import stats

from fishnet.checks.arrays import ArrayLike
from fishnet.errors import UsageError
from fishnet.stats.intervals import Bounds, check_confidence

FEWEST = 20  # positives and negatives, from which on the normal approximation holds


class AucTest(NamedTuple):
    """Two AUCs of each class compared on the same images, each [..., k]."""

    auc_a: np.ndarray
    auc_b: np.ndarray
    difference: np.ndarray  # a - b
    interval: Bounds[np.ndarray]  # of the difference
    p: np.ndarray  # two-sided


def delong_covariance(
    positive: Bool[ArrayLike, " n"], scores: Real[ArrayLike, "r n"]
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r r"]]:
    """AUCs of several scores of the same images, and their covariance over the choice of images.

        A = mean_i V10_i,   S = cov(V10) / m + cov(V01) / (n - m)
        V10_i = fraction of negatives below positive i,   V01_j = fraction of positives above negative j   (equal: half)

    by mid-ranks: O(n log n) for each score, where counting pairs is O(n^2).

    Args:
        positive: [n] whether an image is of the class; m of them are.
        scores: [r, n], higher for more likely.

    Returns:
        AUCs [r] and their covariance [r, r] float64; NaN for a score with a NaN. The covariance is NaN with fewer than
        2 positives or negatives, the AUC without any.

    Raises:
        UsageError: shapes that do not fit.

    Source: DeLong et al. 1988, https://doi.org/10.2307/2531595; Sun and Xu 2014,
    https://doi.org/10.1109/LSP.2014.2337313
    """
    positive, scores = np.asarray(positive, bool), np.asarray(scores, np.float64)
    if positive.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(positive):
        raise UsageError(f"positive {positive.shape} and scores {scores.shape} are not [n] and [r, n]")
    m, negatives = int(positive.sum()), int((~positive).sum())
    if m == 0 or negatives == 0:
        return np.full(len(scores), np.nan), np.full((len(scores),) * 2, np.nan)
    ranks = stats.rankdata(scores, axis=1)
    v10 = (ranks[:, positive] - stats.rankdata(scores[:, positive], axis=1)) / negatives
    v01 = 1 - (ranks[:, ~positive] - stats.rankdata(scores[:, ~positive], axis=1)) / m
    auc = v10.mean(1)
    if m == 1 or negatives == 1:
        return auc, np.full((len(scores),) * 2, np.nan)
    return auc, np.atleast_2d(np.cov(v10) / m + np.cov(v01) / negatives)


def delong_test(
    labels: Int[ArrayLike, " n"],
    scores_a: Real[ArrayLike, "*runs n k"],
    scores_b: Real[ArrayLike, "*runs n k"],
    confidence: float = 0.95,
) -> AucTest:
    """DeLong's paired test of two one-versus-rest AUCs of every class: `z = (A - B) / sqrt(S_aa + S_bb - 2 S_ab)`.

    The interval is `A - B -+ z_{(1 + confidence) / 2} sqrt(S_aa + S_bb - 2 S_ab)`. It says what the choice of test
    images leaves open for these two networks, not what other seeds would give. Normal in the limit, and so asked of
    `FEWEST` positives and negatives: simulated with two scores of correlation 1/2, AUC 0.7 to 0.95 and 200 negatives,
    p <= 0.05 for .04 to .07 of equal AUCs from 20 positives on; it would be .03 to .08 with 8 and .02 to .11 with 4.

    Args:
        labels: [n] integers in [0, k).
        scores_a: [..., n, k], such as probabilities.
        scores_b: of the same images, same shape.
        confidence: of the interval, between 0 and 1.

    Returns:
        AUCs, difference, interval and p-value, each [..., k]. AUCs and difference are NaN without positives or
        negatives and with a score that is NaN; interval and p also below 20 of either, and p where two different AUCs
        have no variance. Otherwise, where both rank alike: difference 0, p = 1.

    Raises:
        UsageError: shapes that do not fit, or a confidence that is not between 0 and 1.

    Source: DeLong et al. 1988, https://doi.org/10.2307/2531595
    """
    check_confidence(confidence)
    labels, a, b = np.asarray(labels), np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)
    if labels.ndim != 1 or a.ndim < 2 or a.shape != b.shape or a.shape[-2] != len(labels):
        raise UsageError(f"labels {labels.shape} and scores {a.shape}, {b.shape} are not [n] and twice [..., n, k]")
    runs, (n, k) = a.shape[:-2], a.shape[-2:]
    pairs = np.stack([a, b], -3).reshape(-1, 2, n, k)
    auc, variance = np.empty((2, len(pairs), k)), np.empty((len(pairs), k))
    for run, c in np.ndindex(len(pairs), k):
        auc[:, run, c], covariance = delong_covariance(labels == c, pairs[run, :, :, c])
        variance[run, c] = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    positives = (labels[:, None] == np.arange(k)).sum(0)
    variance[:, np.minimum(positives, n - positives) < FEWEST] = np.nan
    auc, variance = auc.reshape(2, *runs, k), variance.reshape(*runs, k)
    difference = auc[0] - auc[1]
    # Two scores that rank alike differ by rounding only.
    variance = np.where(variance < 1e-15, 0, variance)
    error = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.norm.sf(np.abs(difference) / error)
    alike = (np.abs(difference) < 1e-12) & (variance == 0)
    p = np.where(alike, 1, np.where(variance == 0, np.nan, p))
    half = stats.norm.ppf((1 + confidence) / 2) * error
    return AucTest(auc[0], auc[1], difference, Bounds(difference - half, difference + half), p)
