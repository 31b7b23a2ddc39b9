"""Paired comparison of two arms over the same seeds: tests, effect size and probability of improvement.

Everywhere `differences` are [..., n], one for each seed, any leading axes being comparisons.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Real
from scipy import special, stats

from fishnet.checks.arrays import ArrayLike, FloatOrArray
from fishnet.lookup import unknown_name
from fishnet.stats.intervals import Bounds
from fishnet.stats.proportions import wilson_interval

EXACT_SEEDS = 16  # up to which all 2^n sign flips are counted
SAMPLED_FLIPS = 1 << 17  # drawn above that
ROUNDING = 1e-12  # relative: sums of flipped differences that are equal but for rounding count as equal
ALTERNATIVES = ("two-sided", "greater", "less")


def sign_flip_p(
    differences: Real[ArrayLike, "*sets n"], alternative: str = "two-sided"
) -> Float[FloatOrArray, "*sets"]:
    """P-value of the sign-flip permutation test: could the differences as well have had the other signs?

        p = fraction of the sign vectors e in {-1, 1}^n with  sum_i e_i |d_i| >= sum_i d_i  (greater)

    Exact if the differences are symmetric about 0 under the null hypothesis, which they are when the two arms are
    alike; it supposes no normal distribution. The two-sided value is twice the smaller one-sided one. It cannot fall
    below `smallest_sign_flip_p(n)`: 0.25 with 3 seeds, 0.0625 with 5.

    Args:
        differences: [..., n]. Up to 16 seeds all 2^n flips are counted, above that 2^17 drawn ones, the same in every
            call, `p = (1 + count) / (1 + 2^17)`.
        alternative: "two-sided", "greater" (the mean is above 0) or "less".

    Returns:
        [...]; NaN where a difference is, or there is none.

    Raises:
        UsageError: an unknown alternative.

    Example:
        >>> float(sign_flip_p([0.02, 0.01, 0.03, 0.02, 0.04]))
        0.0625

    Source: Fisher 1935, "The design of experiments", section 21; drawn flips: Phipson and Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585
    """
    differences = np.asarray(differences, np.float64)
    n = differences.shape[-1]
    if n == 0:
        return np.full(differences.shape[:-1], np.nan)[()]
    # Sorted, so that drawn flips do not see the order of the seeds either.
    sizes = np.sort(np.abs(differences), -1)
    flipped = sizes @ _flips(n).T
    total = differences.sum(-1, keepdims=True)
    slack = ROUNDING * sizes.sum(-1, keepdims=True)
    drawn = int(n > EXACT_SEEDS)

    def at_least(total: np.ndarray) -> np.ndarray:
        # The other half of the flips are the negatives of these.
        count = (flipped >= total - slack).sum(-1) + (-flipped >= total - slack).sum(-1)
        return (count + drawn) / (2 * flipped.shape[-1] + drawn)

    p = _by_alternative(alternative, at_least(total), at_least(-total))
    return np.where(np.isnan(total[..., 0]), np.nan, p)[()]


def smallest_sign_flip_p(n: int) -> float:
    """Smallest two-sided `sign_flip_p` that n seeds can attain: `2^(1 - n)`, 1 without seeds.

    Above 16 seeds, where flips are drawn, it is `2 / (1 + 2^17)`.
    """
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_SEEDS else 2 / (1 + SAMPLED_FLIPS)


def t_test_p(differences: Real[ArrayLike, "*sets n"], alternative: str = "two-sided") -> Float[FloatOrArray, "*sets"]:
    """P-value of the paired t test: `t = mean / (s / sqrt(n))` with n - 1 degrees of freedom.

    Exact for normal differences. Differences without spread have p = 0, or 1 where they are all 0.

    Args:
        differences: [..., n].
        alternative: "two-sided", "greater" (the mean is above 0) or "less".

    Returns:
        [...]; NaN below two seeds and where a difference is.

    Raises:
        UsageError: an unknown alternative.

    Source: Student 1908, https://doi.org/10.2307/2331554
    """
    differences = np.asarray(differences, np.float64)
    n = differences.shape[-1]
    if n < 2:
        return np.full(differences.shape[:-1], np.nan)[()]
    mean, error = differences.mean(-1), differences.std(-1, ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((mean == 0) & (error == 0), 0, mean / error)
    return _by_alternative(alternative, stats.t.sf(t, n - 1), stats.t.cdf(t, n - 1))[()]


def effect_size(differences: Real[ArrayLike, "*sets n"]) -> Float[FloatOrArray, "*sets"]:
    """Standardized effect of a paired comparison: Cohen's d_z with Hedges' correction of its bias, in deviations.

        g_z = J(n - 1) mean / s,   J(f) = Gamma(f / 2) / (sqrt(f / 2) Gamma((f - 1) / 2))

    Args:
        differences: [..., n].

    Returns:
        [...]; NaN below 3 seeds, where the correction is 0; 0 where all differences are 0, infinite where they are
        all alike otherwise.

    Source: Cohen 1988, "Statistical power analysis", section 2.3; Hedges 1981,
    https://doi.org/10.3102/10769986006002107
    """
    differences = np.asarray(differences, np.float64)
    n = differences.shape[-1]
    if n < 3:
        return np.full(differences.shape[:-1], np.nan)[()]
    f = n - 1
    correction = np.exp(special.gammaln(f / 2) - special.gammaln((f - 1) / 2)) / np.sqrt(f / 2)
    mean, spread = differences.mean(-1), differences.std(-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (correction * np.where((mean == 0) & (spread == 0), 0, mean / spread))[()]


def probability_of_improvement(
    differences: Real[ArrayLike, "*sets n"], confidence: float = 0.95
) -> tuple[Float[FloatOrArray, "*sets"], Bounds[FloatOrArray]]:
    """Probability of improvement P(A > B) on the same seed, ties counted half, and its interval.

    Paired, unlike the probability of improvement of Agarwal et al. 2021, which compares every run of A with every run
    of B: that one is about a rerun with another seed, this one about changing the arm and keeping the seed.

    Args:
        differences: A - B, [..., n].
        confidence: of Wilson's interval, between 0 and 1.

    Returns:
        The probability and its interval, each [...]; NaN without seeds and where a difference is NaN.

    Raises:
        UsageError: `confidence` is not between 0 and 1.

    Source: Grissom 1994, https://doi.org/10.1037/0021-9010.79.2.314 (probability of superiority); the interval:
    `proportions.wilson_interval`
    """
    differences = np.asarray(differences, np.float64)
    n = differences.shape[-1]
    wins = np.where(np.isnan(differences), np.nan, (np.sign(differences) + 1) / 2).sum(-1)
    bounds = wilson_interval(wins, n, confidence)
    return (wins / n if n else np.full(wins.shape, np.nan))[()], bounds


def _by_alternative(alternative: str, greater: np.ndarray, less: np.ndarray) -> np.ndarray:
    """Selects the p-value of an alternative from the two one-sided ones."""
    if alternative not in ALTERNATIVES:
        raise unknown_name("alternative", alternative, ALTERNATIVES)
    both = np.minimum(1, 2 * np.minimum(greater, less))
    return dict(zip(ALTERNATIVES, (both, greater, less), strict=True))[alternative]


@lru_cache(maxsize=4)
def _flips(n: int) -> np.ndarray:
    """Sign vectors [f, n], half of all: the other half are their negatives."""
    if n > EXACT_SEEDS:
        return np.random.default_rng(n).choice([-1.0, 1.0], (SAMPLED_FLIPS // 2, n))
    bits = np.arange(1 << (n - 1))[:, None] >> np.arange(n) & 1
    return 2.0 * bits - 1


# p-value of differences, by name
TESTS: dict[str, Callable] = {"sign-flip": sign_flip_p, "t": t_test_p}
# the smallest two-sided value that n seeds can attain
SMALLEST_P: dict[str, Callable[[int], float]] = {"sign-flip": smallest_sign_flip_p, "t": lambda n: 0.0}
