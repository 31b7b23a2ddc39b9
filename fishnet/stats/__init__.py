"""Statistics of a few seeds and a finite test set: intervals, paired comparisons, several arms, several looks.

Reports use `compare`, which is made of the rest. intervals.py, paired.py: one arm, one pair of arms;
multiplicity.py: many arms; planning.py, looks.py: how many seeds; proportions.py, delong.py: what the test images
allow; aggregate.py: many tasks; bias_variance.py: many training sets.
"""

from fishnet.stats.aggregate import interquartile_mean
from fishnet.stats.bias_variance import BiasVariance, VarianceBySource, bias_variance, variance_by_source
from fishnet.stats.compare import DECISIONS, VERDICTS, Comparison, compare
from fishnet.stats.delong import AucTest, delong_covariance, delong_test
from fishnet.stats.intervals import Bounds, Interval, interval, mean_interval, t_interval
from fishnet.stats.looks import SPENDING, alpha_at_look, keep_decided
from fishnet.stats.multiplicity import HolmIntervals, holm, holm_intervals
from fishnet.stats.paired import (
    TESTS,
    effect_size,
    probability_of_improvement,
    sign_flip_p,
    smallest_sign_flip_p,
    t_test_p,
)
from fishnet.stats.planning import fewest_seeds, needed_seeds
from fishnet.stats.proportions import accuracy_noise, difference_noise, wilson_interval

__all__ = [
    "DECISIONS",
    "SPENDING",
    "TESTS",
    "VERDICTS",
    "AucTest",
    "BiasVariance",
    "Bounds",
    "Comparison",
    "HolmIntervals",
    "Interval",
    "VarianceBySource",
    "accuracy_noise",
    "alpha_at_look",
    "bias_variance",
    "compare",
    "delong_covariance",
    "delong_test",
    "difference_noise",
    "effect_size",
    "fewest_seeds",
    "holm",
    "holm_intervals",
    "interquartile_mean",
    "interval",
    "keep_decided",
    "mean_interval",
    "needed_seeds",
    "probability_of_improvement",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "t_interval",
    "t_test_p",
    "variance_by_source",
    "wilson_interval",
]
