"""How many seeds: against textbook tables, closed forms and simulated decisions."""

import numpy as np
import pytest
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import TESTS, fewest_seeds, needed_seeds, smallest_sign_flip_p
from tests.stats.families import simultaneous


@pytest.mark.parametrize(
    ("alpha", "arms", "seeds"), [(0.05, 1, 6), (0.05, 4, 8), (0.05, 10, 9), (0.25, 1, 3), (0.5, 1, 3)]
)
def test_fewest_seeds_are_those_of_the_smallest_p(alpha, arms, seeds):
    assert fewest_seeds(alpha, arms) == seeds
    assert smallest_sign_flip_p(seeds) <= alpha / arms
    assert seeds == 3 or smallest_sign_flip_p(seeds - 1) > alpha / arms
    assert fewest_seeds(alpha, arms, "t") == 3


@pytest.mark.parametrize(("effect", "alpha", "pairs"), [(1.5, 0.05, 6), (1.2, 0.05, 8), (2.0, 0.05, 5), (1.5, 0.01, 9)])
def test_a_t_test_needs_what_the_tables_say(effect, alpha, pairs):
    """Pairs for a power of 80 %, as programs for power analysis give them."""
    assert needed_seeds(0.01 * effect, 0.01, alpha=alpha, test="t") == pairs
    assert needed_seeds(-0.01 * effect, 0.01, alpha=alpha, test="t") == pairs


def test_where_few_flips_are_allowed_all_signs_must_agree():
    # 6 seeds, p = 1/32: all of one sign with probability Phi(d)^6, 0.8 at d = 1.79.
    least = stats.norm.ppf(0.8 ** (1 / 6))
    assert needed_seeds(least + 0.01, 1.0) == 6
    assert needed_seeds(least - 0.01, 1.0) > 6


@pytest.mark.parametrize(("effect", "alpha"), [(0.2, 0.05), (0.5, 0.05), (0.8, 0.005), (1.5, 0.01), (2.5, 0.001)])
def test_the_normal_approximation_gives_the_number_of_the_noncentral_distribution(effect, alpha):
    n = np.arange(3, 1000)
    exact = n[(stats.nct.sf(stats.t.isf(alpha / 2, n - 1), n - 1, effect * np.sqrt(n)) >= 0.8).argmax()]
    found = needed_seeds(effect, 1.0, alpha=alpha, test="t")
    # From 10 seeds on 6 % is added to the half-width, and so up to 13 % to the seeds.
    assert found == exact if exact < 10 else 1 <= found / exact <= 1.13


FEW_AND_MANY = [(1.5, None), (1.0, None), pytest.param(0.6, None, marks=pytest.mark.slow), (0.0, 1.0), (0.3, 1.5)]


@pytest.mark.parametrize(("mean", "margin"), FEW_AND_MANY)
def test_planned_seeds_decide_about_as_often_as_planned(mean, margin):
    n = needed_seeds(mean, 1.0, margin=margin)
    low, high = simultaneous(np.random.default_rng(0).normal(mean, 1, (300, 1, n)), margin=margin)
    decided = (low > 0) | (high < 0) | ((low > -(margin or 0)) & (high < (margin or 0)))
    # The plan is an approximation, and 300 trials are known to 2.5 %.
    assert 0.7 <= decided.mean() <= 0.97


def test_more_is_needed_for_less_and_nothing_suffices_for_nothing():
    effects = [needed_seeds(d, 1.0) for d in (3, 1, 0.5, 0.2)]
    assert effects == sorted(effects)
    assert effects[0] == 6
    assert needed_seeds(0.5, 1.0, alpha=0.005) > needed_seeds(0.5, 1.0)
    assert needed_seeds(0.5, 1.0, power=0.9) > needed_seeds(0.5, 1.0)
    assert needed_seeds(3.0, 1.0, at_least=11) == 11
    assert needed_seeds(0.01, 1.0) is None
    assert needed_seeds(np.nan, 1.0) is None
    # Without spread, the fewest; without an effect either, only a margin can be kept.
    assert needed_seeds(0.1, 0.0) == 6
    assert needed_seeds(0.0, 0.0) is None
    assert needed_seeds(0.0, 0.0, margin=0.01) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deviation": -1.0}, "-1.0 is negative"),
        ({"margin": 0.0}, "margin of equivalence must be above 0, got 0.0"),
        ({"alpha": 0.0}, "alpha 0.0 is not between"),
        ({"power": 1.0}, "power 1.0 is not between"),
        ({"test": "sign"}, "unknown test 'sign'"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        needed_seeds(**{"mean": 1.0, "deviation": 1.0} | change)
    with pytest.raises(UsageError, match="at least 1 arm"):
        fewest_seeds(arms=0)
    assert set(TESTS) == {"sign-flip", "t"}
