"""Number of seeds that a decision needs."""

import numpy as np
from scipy import stats

from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.stats.intervals import BOOTSTRAP_FROM, check_confidence
from fishnet.stats.paired import TESTS

MOST_SEEDS = 1000
WIDER = 1.06  # what the bootstrap-t adds to the half-width of normal differences, about
FEW_FLIPS = 4
TINY = 1e-300  # in place of no spread at all: any difference is then clear


def fewest_seeds(alpha: float = 0.05, arms: int = 1, test: str = "sign-flip") -> int:
    """Fewest seeds with which any difference can be decided, however clear it is: 3 or more.

    For the sign-flip test the smallest n with `2^(1 - n) <= alpha / arms`: 6 for one arm at 0.05, 9 for ten.

    Args:
        alpha: the family-wise error.
        arms: how many are compared with the control.
        test: a name in `TESTS`.

    Raises:
        UsageError: an unknown test, fewer than one arm, or an alpha not between 0 and 1.

    Example:
        >>> fewest_seeds(alpha=0.05), fewest_seeds(alpha=0.05, arms=10)
        (6, 9)
    """
    check_confidence(alpha, "alpha")
    if arms < 1:
        raise UsageError(f"a comparison needs at least 1 arm beside the control, got {arms}")
    if test not in TESTS:
        raise unknown_name("test", test, TESTS)
    return max(3, int(np.ceil(1 + np.log2(arms / alpha)))) if test == "sign-flip" else 3


def needed_seeds(
    mean: float,
    deviation: float,
    *,
    margin: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    test: str = "sign-flip",
    at_least: int = 3,
) -> int | None:
    """Number of seeds that decide a paired comparison, if mean and deviation of the differences stay the same.

    The smallest n at which, with f = n - 1 and t the quantile of Student's distribution for alpha / 2, either

        P(T_f(|mean| sqrt(n) / s) > t) >= power                                                     better or worse
        P(T_f((margin - mean) sqrt(n) / s) > t) + P(T_f((margin + mean) sqrt(n) / s) > t) - 1 >= power   equivalent

    T_f(.) being noncentral t, by its normal approximation; from 10 seeds on t is taken 6 % larger, about as much as the
    bootstrap-t adds. Where the sign-flip test allows fewer than 4 of its one-sided flips, all differences are asked to
    have one sign instead: `Phi(|mean| / s)^n >= power`. A plan, not a promise: the effect of a few seeds is rough, and
    so is the number. With the effect known, simulated decisions came to .74 to .87 where 0.8 was aimed at, and more at
    the fewest seeds.

    Args:
        mean: of the differences, in the unit of the metric.
        deviation: s, their sample standard deviation.
        margin: of equivalence, same unit; None: only a difference is looked for.
        alpha: two-sided error of this comparison, that is the family-wise one over the number of undecided arms.
        power: wanted probability of deciding.
        test: a name in `TESTS`; for the sign-flip test n is at least `fewest_seeds(alpha)`.
        at_least: the answer is not below this.

    Returns:
        The total number of seeds; None if more than 1000, or if `mean` or `deviation` is NaN.

    Raises:
        UsageError: an unknown test, a negative deviation, a margin that is not positive, or a probability not between
            0 and 1.

    Source: Cohen 1988, "Statistical power analysis", section 2.3; equivalence: Schuirmann 1987,
    https://doi.org/10.1007/BF01068419; noncentral t: Abramowitz and Stegun 1964, 26.7.10
    """
    check_confidence(power, "power")
    check_margin(margin)
    if deviation < 0:
        raise UsageError(f"a standard deviation of {deviation} is negative")
    if np.isnan(mean) or np.isnan(deviation):
        return None

    n = np.arange(max(at_least, fewest_seeds(alpha, test=test)), MOST_SEEDS + 1)
    t = stats.t.isf(alpha / 2, n - 1) * np.where(n >= BOOTSTRAP_FROM, WIDER, 1)
    few = (alpha / 2 * 2.0**n < FEW_FLIPS) & (test == "sign-flip")

    def power_at(distance: float) -> np.ndarray:
        """Probability of telling the mean from a point at a distance; where flips are few, of one sign for one seed."""
        distance = distance / max(deviation, TINY)
        above = (distance * np.sqrt(n) - t * (1 - 1 / (4 * (n - 1)))) / np.sqrt(1 + t**2 / (2 * (n - 1)))
        return stats.norm.cdf(np.where(few, distance, above))

    decided = power_at(abs(mean))
    if margin is not None:
        decided = np.maximum(decided, power_at(margin - mean) + power_at(margin + mean) - 1)
    enough = np.where(few, np.maximum(decided, 0) ** n, decided) >= power
    return int(n[enough.argmax()]) if enough.any() else None


def check_margin(margin: float | None) -> None:
    """Refuses a margin of equivalence that is neither None nor a positive number, with a UsageError."""
    if margin is not None and not 0 < margin < np.inf:
        raise UsageError(f"the margin of equivalence must be above 0, got {margin}")
