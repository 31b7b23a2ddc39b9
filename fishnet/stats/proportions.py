"""Intervals of proportions, and the noise floor of accuracies on a finite test set.

The noise floor is the uncertainty from the choice of test images alone, for fixed networks; `compare` covers the
variation over seeds. A difference below the floor may hold for these test images only, however many seeds agree on it.
"""

import numpy as np
from jaxtyping import Float, Int, Real
from scipy import stats

from fishnet.checks.arrays import ArrayLike, FloatOrArray
from fishnet.errors import UsageError
from fishnet.stats.intervals import Bounds, check_confidence


def wilson_interval(
    successes: Real[ArrayLike, "*sets"], total: Real[ArrayLike, "*sets"], confidence: float = 0.95
) -> Bounds[FloatOrArray]:
    """Wilson's score interval for a proportion: the p for which `|k / n - p| <= z sqrt(p (1 - p) / n)`.

        (k + z^2 / 2) / (n + z^2) -+ z / (n + z^2) sqrt(k (n - k) / n + z^2 / 4)

    As `scipy.stats.binomtest(k, n).proportion_ci(method="wilson")`, for many at once and for half counts (ties).

    Args:
        successes: k [...], 0 to n; need not be whole.
        total: n [...].
        confidence: between 0 and 1.

    Returns:
        Lower and upper ends in [0, 1], each [...]; NaN where n is 0 or k NaN.

    Raises:
        UsageError: k outside 0 to n, or a confidence that is not between 0 and 1.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(float(low), 3), round(float(high), 3)
        (0.49, 0.943)

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    check_confidence(confidence)
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(total, np.float64))
    outside = (k < 0) | (k > n)
    if outside.any():
        raise UsageError(f"{k[outside][0]:g} successes of {n[outside][0]:g} are no proportion")
    z = stats.norm.ppf((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (k + z**2 / 2) / (n + z**2)
        half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    # Rounding would leave k = 0 and k = n just outside their own intervals.
    low, high = np.where(k == 0, 0, middle - half), np.where(k == n, 1, middle + half)
    return Bounds[FloatOrArray](np.where(n > 0, low, np.nan)[()], np.where(n > 0, high, np.nan)[()])


def accuracy_noise(
    right: Real[ArrayLike, "*runs n"], labels: Int[ArrayLike, " n"] | None = None, confidence: float = 0.95
) -> Float[FloatOrArray, "*runs"]:
    """Noise floor of one accuracy: half the width of the interval that the number of test images allows.

        z sqrt(sum_c v_c / (n_c - 1 + a)) / k,   v_c the variance of `right` in class c with a pseudo-images added,
                                                 half of them right, a = 4 / k

    Agresti and Coull's two successes and two failures, spread over the classes, so that a network that is always right
    is not held for certain. Simulated coverage of the nominal 95 %: .93 to .95 at 50 to 1,000 images and for balanced
    accuracy over 10 classes of 100; .93 and more over 15 classes of 4 to 102 images; above .95 near accuracy 1.

    Args:
        right: [..., n] whether each test image is classified rightly: 0 or 1, or the share of seeds between.
        labels: [n] classes, for balanced accuracy; None: plain accuracy, all images being one class.
        confidence: between 0 and 1.

    Returns:
        Half-width [...], as a fraction.

    Raises:
        UsageError: no images, shapes that do not fit, a value outside [0, 1], or a confidence not between 0 and 1.

    Source: Agresti and Coull 1998, https://doi.org/10.1080/00031305.1998.10480550; for the mean over classes the
    variances of independent classes add up.
    """
    right = _validate(right, labels)
    return _half_width(right, labels, pseudo_images=4, pseudo_mean=0.5, confidence=confidence)


def difference_noise(
    right_a: Real[ArrayLike, "*runs n"],
    right_b: Real[ArrayLike, "*runs n"],
    labels: Int[ArrayLike, " n"] | None = None,
    confidence: float = 0.95,
) -> Float[FloatOrArray, "*runs"]:
    """Noise floor of a difference of two accuracies on the same test images, by McNemar's paired variance.

        z sqrt(sum_c v_c / (n_c - 1 + a)) / k,   v_c the variance of `right_a - right_b` in class c with a pseudo-images
                                                 added, differing by -1, 0, 0, 1 in equal parts, a = 2 / k

    For one class that is `z sqrt(b + c - (b - c)^2 / n) / n` of the b and c images that only one of the two gets right,
    with half an image added to each of the four cells (Agresti and Min), so that two networks of the same mistakes are
    not held for equal. Simulated coverage of the nominal 95 %: .94 and more at 50 to 1,000 images, .95 for balanced
    accuracy over 10 classes of 100; .93 and more over 15 classes of 4 to 102 images, nearly 1 where few images differ.

    Args:
        right_a: [..., n] whether the first classifies each image rightly: 0 or 1, or the share of its seeds between.
        right_b: [..., n] likewise the second, of the same images.
        labels: [n] classes, for balanced accuracy; None: plain accuracy, all images being one class.
        confidence: between 0 and 1.

    Returns:
        Half-width [...], as a fraction.

    Raises:
        UsageError: no images, shapes that do not fit, a value outside [0, 1], or a confidence not between 0 and 1.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996; Agresti and Min 2005, https://doi.org/10.1002/sim.1781
    """
    right_a, right_b = _validate(right_a, labels), _validate(right_b, labels)
    if right_a.shape[-1] != right_b.shape[-1]:
        raise UsageError(f"{right_a.shape[-1]} and {right_b.shape[-1]} test images are not the same images")
    return _half_width(right_a - right_b, labels, pseudo_images=2, pseudo_mean=0.0, confidence=confidence)


def _validate(right: ArrayLike, labels: ArrayLike | None) -> np.ndarray:
    right = np.asarray(right, np.float64)
    shape = None if labels is None else np.shape(labels)
    if right.ndim < 1 or right.shape[-1] == 0 or shape not in (None, right.shape[-1:]):
        raise UsageError(f"right {right.shape} and labels {shape} are not [..., n] and [n] above 0")
    if (bad := right[(right < 0) | (right > 1)]).size:
        raise UsageError(f"right must be 0 or 1, or a share between, got {bad[0]:g}")
    return right


def _half_width(
    values: np.ndarray, labels: ArrayLike | None, pseudo_images: int, pseudo_mean: float, confidence: float
) -> np.ndarray:
    """Computes z times the standard error of the mean over classes of the means of `values` [..., n].

    The pseudo-images have mean square 1/2 and are spread over the classes: put into each, they would add up to far more
    than what two or four images can say.
    """
    check_confidence(confidence)
    n = values.shape[-1]
    present, of_class = np.unique(np.zeros(n, int) if labels is None else np.asarray(labels), return_inverse=True)
    member = (of_class[:, None] == np.arange(len(present))).astype(np.float64)
    counts, added = member.sum(0), pseudo_images / len(present)
    mean = (values @ member + added * pseudo_mean) / (counts + added)
    variance = (values**2 @ member + added / 2) / (counts + added) - mean**2
    error = np.sqrt((variance / (counts - 1 + added)).sum(-1)) / len(present)
    return (stats.norm.ppf((1 + confidence) / 2) * error)[()]
