"""Many families of arms at once: their simultaneous intervals, as `compare` makes them one by one."""

import numpy as np

from fishnet.stats import holm_intervals
from fishnet.stats.compare import decision_bounds


def simultaneous(differences, alpha=0.05, margin=None, test="sign-flip"):
    """Lower and upper ends [families, m] of differences [families, m, n]."""
    tails = alpha / 2 / np.arange(1, differences.shape[1] + 1)
    low, high = decision_bounds(differences, tails, margin, test)
    found = [holm_intervals(*pair) for pair in zip(low, high, strict=True)]
    return np.array([each.low for each in found]), np.array([each.high for each in found])


def told_from_0(differences, alpha=0.05, test="sign-flip"):
    """[families] whether any arm is."""
    low, high = simultaneous(differences, alpha, test=test)
    return ((low > 0) | (high < 0)).any(1)


def at_most(level, trials):
    """A level and what chance may add to it in so many trials."""
    return level + 3 * np.sqrt(level * (1 - level) / trials)
