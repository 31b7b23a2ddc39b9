"""The interquartile mean by hand and against SciPy, and how often its interval holds it."""

import numpy as np
import pytest
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import interquartile_mean


def test_by_hand():
    # Of 1 to 8 the middle four are left.
    assert interquartile_mean([[1.0, 8.0, 3.0, 100.0], [2.0, -50.0, 6.0, 4.0]])[0] == (2 + 3 + 4 + 6) / 4
    assert interquartile_mean([[3.0]])[0] == 3


def test_it_is_scipys_trimmed_mean_and_neither_order_nor_outliers_move_it():
    scores = np.random.default_rng(0).normal(size=(3, 6))
    expected, bounds = interquartile_mean(scores)
    assert expected == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))
    assert interquartile_mean(scores[::-1])[0] == pytest.approx(expected)
    wild = np.where(scores == scores.max(), 1e6, scores)
    assert interquartile_mean(wild)[0] == pytest.approx(expected)
    assert bounds.low < expected < bounds.high
    assert interquartile_mean(scores) == (expected, bounds)


def test_tasks_are_resampled_each_for_itself():
    """Runs of a task agree, tasks do not: the interval is that of the runs, not of which tasks there are."""
    scores = 10 * np.arange(5)[:, None] + np.random.default_rng(0).normal(0, 0.1, (5, 8))
    _, (low, high) = interquartile_mean(scores)
    assert high - low < 0.5


@pytest.mark.parametrize(("tasks", "runs"), [(1, 10), (2, 5), (3, 5), (10, 5)])
@pytest.mark.parametrize("apart", [0.0, 3.0])
@pytest.mark.slow
def test_intervals_hold_it_in_93_to_97_percent(tasks, runs, apart):
    rng = np.random.default_rng(tasks)
    level = np.linspace(0, apart, tasks)[:, None]
    many = (level + rng.normal(size=(4000, tasks, runs))).reshape(4000, -1)
    true = stats.trim_mean(many, 0.25, axis=1).mean()
    draws = level + rng.normal(size=(400, tasks, runs))
    bounds = [interquartile_mean(scores, resamples=400)[1] for scores in draws]
    held = np.mean([low <= true <= high for low, high in bounds])
    # Of 400, by chance 1.1 % more or less: two of these beyond .93 and .97.
    assert 0.908 <= held <= 0.992


@pytest.mark.parametrize("scores", [[[1.0, 2.0, 3.0] * 2], [[1.0, 2.0, 3.0, 4.0]] * 10, [[1.0] * 9, [2.0]]])
def test_too_few_runs_have_no_interval(scores):
    value, bounds = interquartile_mean(scores)
    assert np.isfinite(value)
    assert np.isnan(bounds).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [([], "none of them empty"), ([[1.0], []], "none of them empty"), ([[1.0, np.nan]], "diverged run")],
)
def test_what_is_no_list_of_scores_is_refused(scores, message):
    with pytest.raises(UsageError, match=message):
        interquartile_mean(scores)
