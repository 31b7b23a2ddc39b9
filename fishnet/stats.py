"""What can be said about a mean of a few seeds."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean over `n` values and the half-width of its confidence interval (NaN below two values)."""

    mean: float
    half: float
    n: int


def t_interval(
    values: np.ndarray, confidence: float = 0.95, axis: int = -1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and half-width of Student's t interval along an axis, leaving out NaN.

    `half = t_{(1 + confidence) / 2, n - 1} s / sqrt(n)` with the sample standard deviation `s`.

    Args:
        values: [..., n], any unit.
        confidence: probability that the interval holds the mean, in (0, 1).
        axis: the axis of the repetitions (seeds).

    Returns:
        mean, half-width and count, each [...]; the mean of no value and the half-width of fewer than two are NaN.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    there = ~np.isnan(values)
    n = there.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0.0).sum(-1) / n
        deviation = np.where(there, values - mean[..., None], 0.0)
        spread = np.sqrt((deviation**2).sum(-1) / (n - 1) / n)
        half = np.where(n > 1, stats.t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1)) * spread, np.nan)
    return mean, half, n


def interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """`t_interval` of one list of values [n] as plain numbers."""
    mean, half, n = t_interval(np.ravel(values), confidence)
    return Interval(float(mean), float(half), int(n))
