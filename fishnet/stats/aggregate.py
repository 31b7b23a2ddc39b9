"""Aggregate metric over several tasks: the interquartile mean."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from fishnet.checks.arrays import ArrayLike
from fishnet.errors import UsageError
from fishnet.stats.intervals import Bounds, check_confidence

FEWEST_RUNS, FEWEST_DEGREES = 5, 8  # of a task; runs less one, added up over the tasks
RESAMPLES = 9999


def interquartile_mean(
    scores: Sequence[ArrayLike | Sequence[float]], confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, Bounds[float]]:
    """Interquartile mean over all runs of all tasks, and its stratified bootstrap interval.

    The mean of the N sorted scores without `floor(N / 4)` at either end: less sensitive to single runs than the mean,
    and less variable than the median. Runs are resampled within each task, the tasks being fixed; the ends are the
    percentiles, their distance from the estimate multiplied by

        sqrt(N / f) t_f / z,   f = sum over tasks of (runs - 1),  t_f and z the quantiles of Student's and the normal

    because a resample of r runs has (r - 1) / r of their variance. Simulated coverage of the nominal 95 % for 1 to 10
    tasks of 5 to 20 normal runs, the tasks alike or up to 3 standard deviations apart: .94 to .97, where the bare
    percentiles of Agarwal et al. give .89 to .92 at 5. Below that there is no interval: with 3 or 4 runs of tasks that
    are far apart it covers .92.

    Args:
        scores: a list of scores for each task, on one scale, as from chance 0 to perfect 1.
        confidence: between 0 and 1.
        resamples: of the bootstrap, the same in every call.

    Returns:
        The interquartile mean, and its interval: NaN with fewer than 5 runs of a task or f below 8.

    Raises:
        UsageError: no task, a task without runs, a score that is not finite (give a diverged run the score that it is
            to count as), or a confidence that is not between 0 and 1.

    Source: Agarwal et al. 2021, https://arxiv.org/abs/2108.13264; the factor of N / f: Rao and Wu 1988,
    https://doi.org/10.1080/01621459.1988.10478591
    """
    check_confidence(confidence)
    tasks = [np.asarray(task, np.float64) for task in scores]
    if not tasks or any(task.ndim != 1 or len(task) == 0 for task in tasks):
        raise UsageError("an interquartile mean needs a list of scores for each task, and none of them empty")
    if not np.isfinite(np.concatenate(tasks)).all():
        raise UsageError("scores must be finite: give a diverged run the score that it is to count as")

    def statistic(*tasks: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(np.concatenate(tasks, axis), 0.25, axis)

    estimate = float(statistic(*tasks, axis=0))
    runs, degrees = sum(map(len, tasks)), sum(len(task) - 1 for task in tasks)
    if min(map(len, tasks)) < FEWEST_RUNS or degrees < FEWEST_DEGREES:
        return estimate, Bounds(np.nan, np.nan)
    drawn = stats.bootstrap(
        tasks,
        statistic,
        n_resamples=resamples,
        vectorized=True,
        method="percentile",
        random_state=0,  # pyright: ignore[reportCallIssue]: SciPy's decorator hides it; `rng` draws other numbers
    ).bootstrap_distribution
    tails = np.array([1 - confidence, 1 + confidence]) / 2
    wider = np.sqrt(runs / degrees) * stats.t.ppf(tails[1], degrees) / stats.norm.ppf(tails[1])
    low, high = estimate + wider * (np.quantile(drawn, tails) - estimate)
    return estimate, Bounds(float(low), float(high))
