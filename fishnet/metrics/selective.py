"""Selective prediction: accuracy of the predictions that remain when uncertain ones are rejected."""

import numpy as np
from jaxtyping import Bool, Float, Real

from fishnet.checks.arrays import ArrayLike
from fishnet.errors import UsageError


def rejection_curve(right: Bool[ArrayLike, " n"], uncertainty: Real[ArrayLike, " n"]) -> Float[np.ndarray, " n"]:
    """Accuracy of the m least uncertain predictions, for m = 1 ... n.

        curve_m = 1/m sum of right over the m least uncertain

    Predictions of equal uncertainty are rejected in random order: the curve is the mean over these orders.

    Args:
        right: [n] whether a prediction is right.
        uncertainty: [n] higher for less certain, such as the entropy of its probabilities.

    Returns:
        [n] float64; its last value is the accuracy of all predictions.

    Raises:
        UsageError: no prediction, shapes that do not fit, a value of right that is neither true nor false, or an
            uncertainty that is NaN.

    Example:
        >>> print(rejection_curve(np.array([True, True, False]), np.array([0.1, 0.2, 0.9])).round(2))
        [1.   1.   0.67]

    Source: El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010
    """
    right, uncertainty = np.asarray(right, np.float64), np.asarray(uncertainty, np.float64)
    if not np.isin(right, (0, 1)).all():
        raise UsageError("right must be true or false for each prediction")
    if right.ndim != 1 or uncertainty.shape != right.shape or not len(right):
        raise UsageError(f"right {right.shape} and uncertainty {uncertainty.shape} are not both [n]")
    if np.isnan(uncertainty).any():
        raise UsageError("an uncertainty is NaN: such a prediction has no place in the order")
    _, alike = np.unique(uncertainty, return_inverse=True)
    of_group = np.bincount(alike, right) / np.bincount(alike)
    return np.cumsum(of_group[np.sort(alike)]) / np.arange(1, len(right) + 1)


def rejection_area(right: Bool[ArrayLike, " n"], uncertainty: Real[ArrayLike, " n"]) -> float:
    """Area under `rejection_curve`: accuracy averaged over all fractions that remain; 1 minus the paper's AURC.

    Args:
        right: [n] whether a prediction is right.
        uncertainty: [n] higher for less certain.

    Returns:
        From 0 to 1; the plain accuracy, in the mean over orders, where uncertainty is uninformative.

    Raises:
        UsageError: as `rejection_curve`.

    Source: Geifman, Uziel and El-Yaniv (area under the risk-coverage curve), arXiv:1805.08206
    """
    return float(rejection_curve(right, uncertainty).mean())
