"""Learning-rate range test: the rate with the lowest loss, and the neighboring rates that are as good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fishnet.errors import UsageError


@dataclass(frozen=True)
class Suggestion:
    """Suggested learning rate, from `suggest`."""

    rate: float  # the best one
    loss: float  # its mean loss over the seeds
    error: float  # standard error of that mean; NaN for a single seed
    low: float  # the best and its neighbors from `low` to `high` differ by less than the standard error
    high: float
    end: Literal["", "lowest", "highest"]  # of the rates, when the best is there: a better one may lie beyond


def suggest(rates: Sequence[float] | np.ndarray, losses: np.ndarray) -> Suggestion | None:
    """Suggests the rate with the lowest mean loss, and the range of rates within one standard error of it.

        best = argmin_r m_r, m_r = mean_s L[r, s], over the rates whose losses are all finite; ties to the lower rate
        range: the rates next to best, without a gap, with m_r <= m_best + std_s L[best, s] / sqrt(n)

    For losses of whole short runs, one a rate and seed. Smith reads his rates off a single run in which the rate
    climbs, whose loss lags behind it: hence his advice to stay below the best point, which does not apply here.

    Args:
        rates: [r] above 0, ascending.
        losses: L [r, s], of n = s seeds; NaN or infinite where a run diverged.

    Returns:
        The suggestion; None when there is no rate at which every seed stayed finite. With a single seed there is no
        standard error and the range is the best rate alone.

    Raises:
        UsageError: the rates are not positive and ascending, or the shapes do not fit.

    Example:
        >>> found = suggest([0.01, 0.1, 1.0], np.array([[0.9, 1.0], [0.5, 0.6], [2.0, np.nan]]))
        >>> found.rate, found.low, found.high
        (0.1, 0.1, 0.1)

    Source: the test: Smith 2017, section 3.3, https://arxiv.org/abs/1506.01186; the rule of one standard error: Breiman
    et al., "Classification and Regression Trees", 1984, section 3.4.3
    """
    rates, losses = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    if losses.ndim != 2 or rates.shape != losses.shape[:1] or 0 in losses.shape:
        raise UsageError(f"losses of shape {losses.shape} are not [rates, seeds] for {rates.size} rates")
    if not (np.diff(rates) > 0).all() or not (rates > 0).all():
        raise UsageError(f"rates {rates.tolist()} are not positive and ascending")
    finite = np.all(np.isfinite(losses), axis=1)
    if not finite.any():
        return None
    means = np.where(finite, np.where(finite[:, None], losses, 0.0).mean(1), np.inf)
    best = int(means.argmin())
    seeds = losses.shape[1]
    error = float(losses[best].std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else np.nan
    alike = means <= means[best] + (error if seeds > 1 else 0.0)
    low = high = best
    while seeds > 1 and low > 0 and alike[low - 1]:
        low -= 1
    while seeds > 1 and high < len(rates) - 1 and alike[high + 1]:
        high += 1
    return Suggestion(
        rate=float(rates[best]),
        loss=float(means[best]),
        error=error,
        low=float(rates[low]),
        high=float(rates[high]),
        end="lowest" if best == 0 else "highest" if best == len(rates) - 1 else "",
    )


def rate_grid(lowest: float, highest: float, number: int) -> list[float]:
    """Grid of rates at equal distances on a logarithmic scale, rounded to few digits.

    Args:
        lowest: the first, above 0.
        highest: the last, above `lowest`.
        number: how many, 2 or more.

    Returns:
        `number` rates, ascending, the ends as given, the others rounded to three significant digits or more.

    Raises:
        UsageError: the ends are not in order or too close to fit so many rates between them, or fewer than 2 rates.
    """
    if not 0 < lowest < highest < np.inf:
        raise UsageError(f"rates from {lowest:g} to {highest:g}: the lowest must be above 0 and below the highest")
    if number < 2:
        raise UsageError(f"a grid of rates needs 2 or more, got {number}")
    exact = np.geomspace(lowest, highest, number)[1:-1].tolist()
    for digits in range(3, 18):
        grid = [lowest, *(float(f"{rate:.{digits}g}") for rate in exact), highest]
        # Rounding may change a step by at most a tenth of it.
        if (np.abs(np.diff(np.log(grid)) * (number - 1) / np.log(highest / lowest) - 1) < 0.1).all():
            return grid
    raise UsageError(f"{number} rates do not fit between {lowest!r} and {highest!r}")
