"""What a few seeds and a finite test set can say."""

from fishnet.stats.intervals import Bounds, Interval, interval, mean_interval, t_interval

__all__ = ["Bounds", "Interval", "interval", "mean_interval", "t_interval"]
