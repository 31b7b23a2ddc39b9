"""What a few seeds and a finite test set can say."""

from fishnet.stats.intervals import Bounds, Interval, interval, mean_interval, t_interval
from fishnet.stats.multiplicity import HolmIntervals, holm, holm_intervals
from fishnet.stats.paired import (
    TESTS,
    effect_size,
    probability_of_improvement,
    sign_flip_p,
    smallest_sign_flip_p,
    t_test_p,
)
from fishnet.stats.proportions import accuracy_noise, difference_noise, wilson_interval

__all__ = [
    "TESTS",
    "Bounds",
    "HolmIntervals",
    "Interval",
    "accuracy_noise",
    "difference_noise",
    "effect_size",
    "holm",
    "holm_intervals",
    "interval",
    "mean_interval",
    "probability_of_improvement",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "t_interval",
    "t_test_p",
    "wilson_interval",
]
