"""Comparison of every arm with one control over the same seeds, with a verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from fishnet.checks.arrays import FloatOrArray
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.stats.intervals import Bounds, check_confidence, mean_bounds, mean_interval
from fishnet.stats.multiplicity import holm, holm_intervals
from fishnet.stats.paired import SMALLEST_P, TESTS, effect_size, probability_of_improvement
from fishnet.stats.planning import MOST_SEEDS, check_margin, fewest_seeds, needed_seeds

FEWEST = 3  # seeds that a verdict needs
DECISIONS = ("better", "worse", "equivalent")
VERDICTS = (*DECISIONS, "undecided", "control")
NOTHING = Bounds(np.nan, np.nan)


@dataclass(frozen=True)
class Comparison:
    """Comparison of one arm with the control; in units of the metric unless noted, NaN where undefined."""

    arm: str
    n: int  # seeds that both have
    diverged: int  # of the arm's runs among them
    control_diverged: int
    mean: float  # of the arm, a diverged run counting as the value given for it
    interval: Bounds[float]  # of that mean, for this arm alone
    difference: float  # mean of arm - control
    difference_interval: Bounds[float]  # for this arm alone
    simultaneous_interval: Bounds[float]  # for all arms at once: what the verdict is read from
    p: float  # two-sided
    p_holm: float  # after Holm over the arms
    smallest_p: float  # that n seeds can attain, before Holm
    probability_of_improvement: float  # P(the arm does better than the control on the same seed)
    improvement_interval: Bounds[float]
    effect_size: float  # of the difference, in standard deviations (Hedges' g_z)
    further_seeds: int | None  # that would probably decide; 0 once decided, None where unknown or above 1000
    verdict: str  # one of VERDICTS
    reason: str  # why, in words
    counted: str  # `2 runs without a value counted as 0.1`; empty where there are none

    @property
    def decided(self) -> bool:
        """Whether the verdict is better, worse or equivalent."""
        return self.verdict in DECISIONS


def compare(
    values: Mapping[str, Sequence[float]],
    control: str,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    alpha: float | None = None,
    larger_is_better: bool = True,
    diverged: float | None = None,
    test: str = "sign-flip",
    power: float = 0.8,
) -> dict[str, Comparison]:
    """Compares every arm with the control, seed by seed, and says in words what can be concluded.

    For one arm alone, with the differences d_i of arm and control on seed i: their mean and interval (`mean_interval`:
    Student's t below 10 seeds, from 10 on the wider of it and the bootstrap-t), P(better) with Wilson's interval,
    Hedges' g_z, and the p-value of the sign-flip test.

    For all m arms together: Holm's adjusted p-values, and simultaneous intervals that fit Holm's step-down test
    (`holm_intervals`), made from one-sided bounds at alpha / 2 / r with r = m, m - 1, ... as arms are shown to differ.
    Each bound is that of `mean_bounds`, reaching on to 0 (and to the margin) wherever the sign-flip test at the same
    level does not exclude it: with 3 seeds it cannot, so the interval always holds 0. The verdict is read from this
    interval:

        equivalent  it lies within (-margin, margin)
        better      it lies above 0, or below 0 if less is better; p_holm <= alpha follows
        worse       it lies on the other side
        undecided   it holds 0; `reason` says why: needs at least 3 seeds, not attainable with n seeds, or else

    The probability of any wrong `better`, `worse` or `equivalent` is alpha at most if differences are normal, and that
    of any `better` or `worse` of an arm like the control also if they are merely symmetric. Simulated with 1, 4 and 12
    arms like the control, normal, t_3 and log-normal runs: .01 to .05 of such families have one from the seeds on with
    which one is attainable, none below.

    Args:
        values: arm -> metric by seed [n], the control included, all on one axis of seeds in the same order. A run that
            diverged is NaN or infinite. A list that ends early has not been run on the later seeds: that arm is
            compared over the seeds that it has.
        control: the arm with which the others are compared; it must have every seed.
        margin: differences smaller than this do not matter; None: no arm is called equivalent.
        confidence: of the intervals for one arm alone.
        alpha: family-wise error of the verdicts; None: 1 - confidence. For repeated looks, `alpha_at_look`.
        larger_is_better: False for losses and errors. Differences stay arm - control.
        diverged: what a diverged run counts as, such as the accuracy of chance. It is never left out: leaving it out
            would flatter the arms that diverge, on just the seeds where they do.
        test: a name in `TESTS`. "t" trusts that differences are normal and so can decide from 3 seeds on; where
            accuracies of few test images repeat it goes wrong: 3 differences that happen to be equal have no spread
            (12 arms, .13 of families with one).
        power: probability of deciding that `further_seeds` aims at.

    Returns:
        A row an arm, in the order of `values`; the control's has only its own metrics and the verdict "control".

    Raises:
        UsageError: an unknown control or test, no arm besides the control, an arm with more seeds than the control,
            runs that diverged while `diverged` is not given, a margin that is not positive, or a probability not in (0,
            1).

    Example:
        >>> relu, elu = [0.80, 0.81, 0.79, 0.80, 0.82, 0.81], [0.85, 0.86, 0.83, 0.85, 0.88, 0.86]
        >>> row = compare({"relu": relu, "elu": elu}, control="relu")["elu"]
        >>> row.verdict, round(row.difference, 3), round(row.p, 3)
        ('better', 0.05, 0.031)

    Source: Colas et al. 2018, https://arxiv.org/abs/1806.08295, and Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264 (seeds as the sample); those of the functions named; equivalence: Schuirmann 1987,
    https://doi.org/10.1007/BF01068419
    """
    check_confidence(confidence)
    check_margin(margin)
    alpha = 1 - confidence if alpha is None else alpha
    check_confidence(alpha, "alpha")
    if test not in TESTS:
        raise unknown_name("test", test, TESTS)
    if control not in values:
        raise unknown_name("control", control, values)
    arms = [arm for arm in values if arm != control]
    if not arms:
        raise UsageError(f"nothing to compare: there is no arm beside the control {control!r}")
    runs = {arm: _replace_diverged(arm, runs, diverged) for arm, runs in values.items()}
    for arm in arms:
        if (n := len(runs[arm][0])) > (most := len(runs[control][0])):
            raise UsageError(f"arm {arm!r} has {n} seeds, more than the {most} of the control {control!r}")

    differences = [runs[arm][0] - runs[control][0][: len(runs[arm][0])] for arm in arms]
    p = np.array([TESTS[test](d) for d in differences])
    tails = alpha / 2 / np.arange(1, len(arms) + 1)
    bounds = np.stack([decision_bounds(d, tails, margin, test) for d in differences], 1)
    together = holm_intervals(*bounds)

    rows = {control: _summarize_arm(control, *runs[control], confidence)}
    for i, (arm, d, p_holm) in enumerate(zip(arms, differences, holm(p), strict=True)):
        better = d if larger_is_better else -d
        improvement, improvement_interval = probability_of_improvement(better, confidence)
        row = replace(
            _summarize_arm(arm, *runs[arm], confidence),
            control_diverged=int(runs[control][1][: len(d)].sum()),
            difference=_mean(d),
            difference_interval=_to_floats(mean_interval(d, confidence)),
            simultaneous_interval=_to_floats(Bounds(together.low[i], together.high[i])),
            p=float(p[i]),
            p_holm=float(p_holm),
            smallest_p=SMALLEST_P[test](len(d)),
            probability_of_improvement=float(improvement),
            improvement_interval=_to_floats(improvement_interval),
            effect_size=float(effect_size(d)),
        )
        verdict = _verdict(row.simultaneous_interval, margin, larger_is_better)
        level = alpha / (together.left_below if row.difference > 0 else together.left_above)
        further = None if verdict == "undecided" else 0
        if verdict == "undecided" and len(d) >= FEWEST:
            needed = needed_seeds(
                row.difference, d.std(ddof=1), margin=margin, alpha=level, power=power, test=test, at_least=len(d) + 1
            )
            further = needed and needed - len(d)
        reason = _reason(row, verdict, margin, level, further, test, power)
        if without := row.diverged + row.control_diverged:
            runs_without = f"{without} {'run' if without == 1 else 'runs'} without a value"
            row = replace(row, counted=f"{runs_without} counted as {diverged:.3g}")
        rows[arm] = replace(row, verdict=verdict, reason=reason, further_seeds=further)
    return {arm: rows[arm] for arm in values}


def _replace_diverged(arm: str, values: Sequence[float], diverged: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Replaces the values of diverged runs by `diverged`; returns the values and the mask of such runs, each [n]."""
    try:
        runs = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"the values of arm {arm!r} are not numbers") from None
    if runs.ndim != 1:
        raise UsageError(f"the values of arm {arm!r} are {runs.shape}, not one for each seed")
    bad = ~np.isfinite(runs)
    if bad.any() and (diverged is None or not np.isfinite(diverged)):
        raise UsageError(
            f"{bad.sum()} of {len(runs)} runs of arm {arm!r} diverged: give what such a run counts as (diverged=...)"
        )
    return np.where(bad, diverged or 0.0, runs), bad


def decision_bounds(
    differences: Float[np.ndarray, "*sets n"], tails: Float[np.ndarray, " t"], margin: float | None, test: str
) -> tuple[Float[np.ndarray, "*sets t"], Float[np.ndarray, "*sets t"]]:
    """One-sided bounds of arms at several levels that exclude 0 and the margin only where the test does too.

    Args:
        differences: [..., n].
        tails: [t] probabilities with which a mean may lie beyond its bound.
        margin: of equivalence; None: only 0 is tested.
        test: a name in `TESTS`.

    Returns:
        Lower and upper bounds, each [..., t]; NaN below 3 seeds.
    """
    if differences.shape[-1] < FEWEST:
        nothing = np.full((*differences.shape[:-1], len(tails)), np.nan)
        return nothing, nothing
    low, high = mean_bounds(differences, tails)
    for point in {0.0, margin or 0.0}:
        above = TESTS[test](differences + point, "greater")[..., None] <= tails
        below = TESTS[test](differences - point, "less")[..., None] <= tails
        low, high = np.where(above, low, np.minimum(low, -point)), np.where(below, high, np.maximum(high, point))
    return low, high


def _summarize_arm(arm: str, runs: np.ndarray, bad: np.ndarray, confidence: float) -> Comparison:
    return Comparison(
        arm=arm,
        n=len(runs),
        diverged=int(bad.sum()),
        control_diverged=int(bad.sum()),
        mean=_mean(runs),
        interval=_to_floats(mean_interval(runs, confidence)),
        difference=np.nan,
        difference_interval=NOTHING,
        simultaneous_interval=NOTHING,
        p=np.nan,
        p_holm=np.nan,
        smallest_p=np.nan,
        probability_of_improvement=np.nan,
        improvement_interval=NOTHING,
        effect_size=np.nan,
        further_seeds=None,
        verdict="control",
        reason="the others are compared with it",
        counted="",
    )


def _verdict(bounds: Bounds[float], margin: float | None, larger_is_better: bool) -> str:
    if margin is not None and -margin < bounds.low and bounds.high < margin:
        return "equivalent"
    if bounds.low > 0 or bounds.high < 0:
        return "better" if (bounds.low > 0) == larger_is_better else "worse"
    return "undecided"


def _reason(
    row: Comparison, verdict: str, margin: float | None, level: float, further: int | None, test: str, power: float
) -> str:
    if verdict == "equivalent":
        return f"the interval lies within the margin of {margin:g}"
    if verdict != "undecided":
        return f"the interval lies {'above' if row.simultaneous_interval.low > 0 else 'below'} 0"
    if row.n < FEWEST:
        return f"needs at least {FEWEST} seeds, has {row.n}"
    if row.smallest_p > level:
        return (
            f"not attainable with {row.n} seeds: their smallest p is {row.smallest_p:.2g}, a verdict needs {level:.2g} "
            f"or less, {fewest_seeds(level, test=test)} seeds"
        )
    held = "the interval holds 0"
    if margin is not None:
        held += f" and reaches beyond the margin of {margin:g}"
    if further is None:
        return f"{held}; more than {MOST_SEEDS} seeds would be needed"
    return f"{held}; {further} more seeds would decide with power {power:g}"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _to_floats(bounds: Bounds[FloatOrArray]) -> Bounds[float]:
    return Bounds(float(bounds.low), float(bounds.high))
