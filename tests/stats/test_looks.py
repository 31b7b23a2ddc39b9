"""Looking again and again: what is spent, and how often arms like the control are called different."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import SPENDING, alpha_at_look, compare, keep_decided
from tests.stats.families import at_most, told_from_0


def test_spending_by_hand():
    # Pocock at the first of two looks: 0.05 log(1 + (e - 1) / 2); O'Brien and Fleming: 2 (1 - Phi(1.96 sqrt 2)).
    assert alpha_at_look(1, 2) == pytest.approx(0.05 * np.log(1 + (np.e - 1) / 2))
    assert alpha_at_look(1, 2, spending="obrien-fleming") == pytest.approx(
        2 * stats.norm.sf(1.959964 * 2**0.5), rel=1e-5
    )
    assert alpha_at_look(1, 1, 0.1) == pytest.approx(0.1)


@given(st.sampled_from(sorted(SPENDING)), st.integers(1, 12), st.floats(0.001, 0.2))
@settings(max_examples=60)
def test_the_parts_are_positive_and_add_up(spending, looks, alpha):
    parts = [alpha_at_look(k, looks, alpha, spending) for k in range(1, looks + 1)]
    # O'Brien and Fleming's first of many looks is below the smallest number.
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(alpha)


def test_a_function_of_ones_own_and_what_is_refused():
    assert alpha_at_look(2, 4, 0.05, lambda fraction, alpha: alpha * fraction) == pytest.approx(0.0125)
    for look in (0, 4):
        with pytest.raises(UsageError, match=f"look {look} is not one of the 3"):
            alpha_at_look(look, 3)
    with pytest.raises(UsageError, match=r"unknown spending 'pocok'.*did you mean 'pocock'"):
        alpha_at_look(1, 3, spending="pocok")
    with pytest.raises(UsageError, match="alpha 0 is not"):
        alpha_at_look(1, 3, 0)


def until_decided(runs, looks, test, spending):
    """Verdicts of a run of looks that adds seeds to undecided arms only; runs: arm -> as many seeds as ever wanted."""
    seeds, rows = dict.fromkeys(runs, looks[0]), {}
    for k, n in enumerate(looks, 1):
        seeds |= {arm: n for arm in runs if arm not in rows or not rows[arm].decided}
        now = compare(
            {arm: values[: seeds[arm]] for arm, values in runs.items()},
            "control",
            alpha=alpha_at_look(k, len(looks), spending=spending),
            test=test,
        )
        rows = keep_decided(rows, now)
    return rows


@pytest.mark.parametrize(
    ("test", "spending", "looks", "arms"),
    [
        ("t", "pocock", (3, 5, 7, 9), 1),
        ("t", "obrien-fleming", (3, 4, 5, 6, 7, 8, 9), 1),
        ("sign-flip", "obrien-fleming", (6, 7, 8, 9), 1),
        ("sign-flip", "pocock", (8, 9), 3),
        ("t", "pocock", (4, 6, 9), 3),
    ],
)
def test_arms_like_the_control_are_called_different_in_5_percent_or_less(test, spending, looks, arms):
    runs = np.random.default_rng(0).normal(size=(1000, arms + 1, looks[-1]))
    differences, wrong, careless = runs[:, 1:] - runs[:, :1], np.zeros(1000, bool), np.zeros(1000, bool)
    for k, n in enumerate(looks, 1):
        wrong |= told_from_0(differences[..., :n], alpha_at_look(k, len(looks), spending=spending), test)
        careless |= told_from_0(differences[..., :n], test=test)
    assert wrong.mean() <= at_most(0.05, 1000)
    # Without correction they would be.
    assert test == "sign-flip" or careless.mean() > at_most(0.05, 1000)


def test_adding_seeds_to_the_undecided_only_is_wrong_in_5_percent_or_less():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        runs = {name: rng.normal(size=9) for name in ("control", "a", "b")}
        wrong += any(row.decided for row in until_decided(runs, (3, 6, 9), "t", "pocock").values())
    assert wrong / 100 <= at_most(0.05, 100)


def test_a_decision_stands_and_only_the_undecided_go_on():
    rng = np.random.default_rng(0)
    base = rng.normal(0.8, 0.01, 14)
    runs = {"control": base, "clear": base + 0.1 + rng.normal(0, 0.001, 14), "same": base + rng.normal(0, 0.01, 14)}
    rows = until_decided(runs, (9, 11, 14), "sign-flip", "pocock")
    assert (rows["clear"].verdict, rows["clear"].n) == ("better", 9)
    assert (rows["same"].verdict, rows["same"].n) == ("undecided", 14)
    assert rows["control"].n == 14
    assert list(rows) == list(runs)


def test_an_arm_that_was_decided_may_not_be_dropped():
    rng = np.random.default_rng(0)
    values = {"control": np.zeros(8), "a": rng.normal(1, 0.01, 8), "b": rng.normal(0, 1, 8)}
    rows = compare(values, "control")
    del values["a"]
    with pytest.raises(UsageError, match="'a', decided earlier"):
        keep_decided(rows, compare(values, "control"))
