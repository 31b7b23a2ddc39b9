"""Multiple comparisons with one control: p-values and intervals that hold for all arms at once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fishnet.checks.arrays import ArrayLike

# The interval (0, high] without its end 0 is, in float64, [the smallest number above 0, high].
JUST_ABOVE_0 = float(np.nextafter(0.0, 1.0))


class HolmIntervals(NamedTuple):
    """Simultaneous intervals, and the number of arms that divided the error in the last step on each side."""

    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    left_below: int  # arms not shown to lie above 0
    left_above: int  # arms not shown to lie below 0


def holm(p: Float[ArrayLike, " m"]) -> Float[np.ndarray, " m"]:
    """Holm's adjusted p-values: the smallest family-wise error at which each null hypothesis is rejected.

    `p_holm(i) = max_{j <= i} min(1, (m - j + 1) p(j))` with p(1) <= p(2) <= ... <= p(m). Holds for any dependence.

    Args:
        p: [m]; NaN, a test that could not be made, counts among the m and stays NaN.

    Returns:
        [m].

    Example:
        >>> print(holm([0.01, 0.04, 0.03]))
        [0.03 0.06 0.06]

    Source: Holm 1979, https://www.jstor.org/stable/4615733
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")  # NaN last
    scaled = np.minimum(1, np.arange(len(p), 0, -1) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted


def holm_intervals(low: Float[np.ndarray, "m m"], high: Float[np.ndarray, "m m"]) -> HolmIntervals:
    """Simultaneous intervals that exclude 0 just where Holm's step-down test does, made from one-sided bounds.

    Lower and upper bounds are two families of m one-sided hypotheses each, at half of the error alpha, so that the sign
    is covered too. Within the family of the hypotheses `theta_i <= 0`:

        r = m; as long as a bound low[i, r - 1] of a hypothesis that still stands is above 0: reject it, r = r - 1
        the bound of arm i is  low[i, r - 1]            where its hypothesis stands
                               0, itself excluded       where it is rejected
                               max(0, low[i, m - 1])    where all m are rejected

    With probability 1 - alpha all of them hold at once, whatever the dependence. The price of Holm's power is that a
    rejected arm is only told from 0; how far from it is what its own interval says.

    Args:
        low: [m, m]; low[i, r - 1] is a lower bound of theta_i that fails with probability alpha / 2 / r at most, lower
            for larger r; NaN where there is none.
        high: [m, m], upper bounds likewise.

    Returns:
        Simultaneous intervals [m] and the r of either side. NaN where the bounds are.

    Source: Strassburger and Bretz 2008, https://doi.org/10.1002/sim.3338; Guilbaud 2008, Biometrical Journal 50, 678
    """
    bottom, below = _step_down(low)
    top, above = _step_down(-high)
    return HolmIntervals(bottom, -top, below, above)


def _step_down(low: Float[np.ndarray, "m m"]) -> tuple[Float[np.ndarray, " m"], int]:
    m = len(low)
    rejected = np.zeros(m, bool)
    while (r := m - int(rejected.sum())) and (newly := ~rejected & (low[:, r - 1] > 0)).any():
        rejected |= newly
    if r == 0:
        return np.maximum(JUST_ABOVE_0, low[:, m - 1]), 1
    return np.where(rejected, JUST_ABOVE_0, low[:, r - 1]), r
