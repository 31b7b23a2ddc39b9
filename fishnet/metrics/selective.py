"""What is gained by leaving the doubtful answers out: accuracy of the rest, by how many are left."""

import numpy as np
from jaxtyping import Bool, Float, Real

from fishnet.checks.arrays import ArrayLike
from fishnet.errors import UsageError


def rejection_curve(right: Bool[ArrayLike, " n"], doubt: Real[ArrayLike, " n"]) -> Float[np.ndarray, " n"]:
    """Accuracy of the m answers with the least doubt, for m = 1 ... n.

        curve_m = 1/m sum of right over the m least doubtful

    Answers of equal doubt are left out in random order: the curve is the mean over these orders.

    Args:
        right: [n] whether an answer is right.
        doubt: [n] higher for less certain, such as the entropy of its probabilities.

    Returns:
        [n] float64; its last value is the accuracy of all answers.

    Raises:
        UsageError: no answer, shapes that do not fit, something neither true nor false, or a doubt that is NaN.

    Source: El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010
    """
    right, doubt = np.asarray(right, np.float64), np.asarray(doubt, np.float64)
    if not np.isin(right, (0, 1)).all():
        raise UsageError("right must be true or false for each answer")
    if right.ndim != 1 or doubt.shape != right.shape or not len(right):
        raise UsageError(f"right {right.shape} and doubt {doubt.shape} are not both [n]")
    if np.isnan(doubt).any():
        raise UsageError("a doubt is NaN: such an answer has no place in the order")
    _, alike = np.unique(doubt, return_inverse=True)
    of_group = np.bincount(alike, right) / np.bincount(alike)
    return np.cumsum(of_group[np.sort(alike)]) / np.arange(1, len(right) + 1)


def rejection_area(right: Bool[ArrayLike, " n"], doubt: Real[ArrayLike, " n"]) -> float:
    """The mean of `rejection_curve`: accuracy on average over all shares that may be left; 1 less the paper's AURC.

    Args:
        right: [n] whether an answer is right.
        doubt: [n] higher for less certain.

    Returns:
        From 0 to 1; the plain accuracy, in the mean over orders, where doubt says nothing.

    Raises:
        UsageError: as `rejection_curve`.

    Source: Geifman, Uziel and El-Yaniv (area under the risk-coverage curve), arXiv:1805.08206
    """
    return float(rejection_curve(right, doubt).mean())
