"""What a few seeds and a finite test set can say."""

from fishnet.stats.intervals import Bounds, Interval, interval, mean_interval, t_interval
from fishnet.stats.proportions import accuracy_noise, difference_noise, wilson_interval

__all__ = [
    "Bounds",
    "Interval",
    "accuracy_noise",
    "difference_noise",
    "interval",
    "mean_interval",
    "t_interval",
    "wilson_interval",
]
