"""The comparison that reports show: worked examples, what must hold for any values, and how often it is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishnet.errors import UsageError
from fishnet.stats import (
    VERDICTS,
    compare,
    effect_size,
    holm,
    mean_interval,
    needed_seeds,
    probability_of_improvement,
    sign_flip_p,
)
from tests.stats.families import at_most, simultaneous, told_from_0


def example(n=9):
    rng = np.random.default_rng(0)
    relu = rng.normal(0.8, 0.02, n)
    return {
        "relu": relu,
        "elu": relu + rng.normal(0.05, 0.01, n),
        "tanh": relu + rng.normal(-0.08, 0.01, n),
        "swish": relu + rng.normal(0.0, 0.002, n),
        "selu": relu + rng.normal(0.01, 0.03, n),
    }


def test_verdicts_of_a_worked_example():
    rows = compare(example(), "relu", margin=0.01)
    assert {arm: row.verdict for arm, row in rows.items()} == {
        "relu": "control",
        "elu": "better",
        "tanh": "worse",
        "swish": "equivalent",
        "selu": "undecided",
    }
    assert rows["elu"].reason == "the interval lies above 0"
    assert rows["tanh"].reason == "the interval lies below 0"
    assert rows["swish"].reason == "the interval lies within the margin of 0.01"
    assert rows["selu"].reason.startswith("the interval holds 0 and reaches beyond the margin of 0.01; ")
    assert [row.further_seeds for row in rows.values()][1:4] == [0, 0, 0]
    without = compare(example(), "relu")
    assert without["swish"].verdict == "undecided"


def test_a_row_holds_the_figures_of_its_parts():
    values = example()
    rows = compare(values, "relu", confidence=0.9)
    d = values["elu"] - values["relu"]
    row = rows["elu"]
    assert (row.arm, row.n, row.diverged, row.control_diverged) == ("elu", 9, 0, 0)
    assert row.mean == pytest.approx(values["elu"].mean())
    assert row.interval == pytest.approx(mean_interval(values["elu"], 0.9))
    assert row.difference == pytest.approx(d.mean())
    assert row.difference_interval == pytest.approx(mean_interval(d, 0.9))
    assert row.p == sign_flip_p(d)
    assert row.smallest_p == 2**-8
    assert (row.probability_of_improvement, row.improvement_interval) == probability_of_improvement(d, 0.9)
    assert row.effect_size == effect_size(d)
    arms = [arm for arm in values if arm != "relu"]
    np.testing.assert_allclose([rows[a].p_holm for a in arms], holm([rows[a].p for a in arms]))
    t = compare(values, "relu", test="t")["elu"]
    assert t.p == pytest.approx(stats.ttest_rel(values["elu"], values["relu"]).pvalue)
    assert t.smallest_p == 0


def test_one_arm_by_hand():
    """Differences 1 to 6: mean 3.5, s = 1.8708, t_5 = 2.5706, half-width 1.9633; p = 2 / 64."""
    row = compare({"a": np.arange(1.0, 7) + 10, "b": np.full(6, 10.0)}, "b")["a"]
    assert row.difference_interval == pytest.approx((1.5367, 5.4633), abs=1e-4)
    assert row.simultaneous_interval == pytest.approx(row.difference_interval)
    assert (row.p, row.p_holm, row.verdict) == (2 / 64, 2 / 64, "better")
    assert row.effect_size == pytest.approx(0.8408 * 3.5 / 1.8708, abs=1e-3)


@pytest.mark.parametrize(
    ("n", "reason"),
    [
        (0, "needs at least 3 seeds, has 0"),
        (1, "needs at least 3 seeds, has 1"),
        (2, "needs at least 3 seeds, has 2"),
        (3, "not attainable with 3 seeds: their smallest p is 0.25, a verdict needs 0.05 or less, 6 seeds"),
        (5, "not attainable with 5 seeds: their smallest p is 0.062, a verdict needs 0.05 or less, 6 seeds"),
    ],
)
def test_too_few_seeds_are_refused_in_words_however_clear_the_difference(n, reason):
    noise = np.random.default_rng(0).normal(0, 1e-3, n)
    for margin in (None, 0.5):
        for difference in (1.0, 0.0):
            row = compare({"a": difference + noise, "b": np.zeros(n)}, "b", margin=margin)["a"]
            assert (row.verdict, row.reason) == ("undecided", reason)
            low, high = row.simultaneous_interval
            assert np.isnan([low, high]).all() if n < 3 else low <= 0 <= high
            if difference or n < 3:
                assert row.further_seeds == (6 - n if n >= 3 else None)


def test_the_t_test_decides_from_three_seeds_on():
    row = compare({"a": [1.0, 1.1, 0.9], "b": [0.0, 0.0, 0.0]}, "b", test="t")["a"]
    assert (row.verdict, row.n) == ("better", 3)
    assert row.p == pytest.approx(stats.ttest_1samp([1.0, 1.1, 0.9], 0).pvalue)


def test_many_arms_need_more_seeds():
    noise = np.random.default_rng(0).normal(0, 0.01, (13, 8))
    values = dict(zip("abcdefghijklm", noise + np.append(np.ones(1), np.zeros(12))[:, None], strict=True))
    row = compare(values, "m")["a"]
    assert row.verdict == "undecided"
    assert row.reason.startswith("not attainable with 8 seeds: their smallest p is 0.0078, a verdict needs 0.0042")
    assert row.further_seeds == 1


def test_further_seeds_are_those_needed_at_the_level_that_is_left():
    values = example()
    rows = compare(values, "relu")
    d = values["selu"] - values["relu"]
    # Not shown to lie above 0: tanh, swish and selu.
    needed = needed_seeds(d.mean(), d.std(ddof=1), alpha=0.05 / 3, at_least=10)
    assert rows["selu"].further_seeds == needed - 9
    assert f"; {needed - 9} more seeds would decide with power 0.8" in rows["selu"].reason


def test_less_is_better_for_losses():
    values = example()
    rows, losses = compare(values, "relu"), compare(values, "relu", larger_is_better=False)
    assert (losses["elu"].verdict, losses["tanh"].verdict) == ("worse", "better")
    assert losses["elu"].difference == rows["elu"].difference
    assert losses["elu"].probability_of_improvement == 1 - rows["elu"].probability_of_improvement
    assert losses["elu"].reason == rows["elu"].reason


def test_a_diverged_run_counts_as_what_the_caller_says():
    values = {"a": [0.8, np.nan, 0.7, 0.9], "b": [0.6, 0.7, np.inf, 0.5]}
    rows = compare(values, "b", diverged=0.1)
    expected = compare({"a": [0.8, 0.1, 0.7, 0.9], "b": [0.6, 0.7, 0.1, 0.5]}, "b")
    assert (rows["a"].n, rows["a"].diverged, rows["a"].control_diverged, rows["b"].diverged) == (4, 1, 1, 1)
    assert rows["a"].counted == "2 runs without a value counted as 0.1" and expected["a"].counted == ""
    same = replace(rows["a"], diverged=0, control_diverged=0, counted="")
    assert same == expected["a"]
    assert rows["b"].mean == expected["b"].mean


def test_an_arm_that_diverges_on_one_seed_is_not_flattered():
    base = np.full(9, 0.8) + np.linspace(0, 0.01, 9)
    better = base + 0.02 + np.linspace(0.001, 0, 9)
    assert compare({"a": better, "b": base}, "b")["a"].verdict == "better"
    better[4] = np.nan
    row = compare({"a": better, "b": base}, "b", diverged=0.1)["a"]
    assert row.verdict == "undecided"
    assert row.counted == "1 run without a value counted as 0.1"


def test_a_shorter_list_is_paired_with_the_first_seeds():
    values = example()
    values["elu"] = values["elu"][:8]
    rows, first = compare(values, "relu"), compare({arm: runs[:8] for arm, runs in values.items()}, "relu")
    assert (rows["elu"].n, rows["tanh"].n, rows["relu"].n) == (8, 9, 9)
    assert rows["elu"].difference == first["elu"].difference
    assert rows["elu"].p == first["elu"].p


def test_alpha_moves_the_verdicts_and_not_the_single_intervals():
    rows, strict = compare(example(), "relu"), compare(example(), "relu", alpha=1e-4)
    assert strict["elu"].difference_interval == rows["elu"].difference_interval
    assert strict["elu"].verdict == "undecided"
    assert rows["elu"].verdict == "better"


@pytest.mark.parametrize(
    ("values", "change", "message"),
    [
        ({"a": [1.0]}, {}, "unknown control 'b': valid are a"),
        ({"b": [1.0]}, {}, "no arm beside the control 'b'"),
        ({"a": [1.0, 2.0], "b": [1.0]}, {}, "arm 'a' has 2 seeds, more than the 1 of the control 'b'"),
        ({"a": [1.0, np.nan], "b": [1.0, 2.0]}, {}, "1 of 2 runs of arm 'a' diverged: give"),
        ({"a": [1.0], "b": [np.inf]}, {"diverged": np.nan}, "1 of 1 runs of arm 'b' diverged"),
        ({"a": ["x"], "b": [1.0]}, {}, "values of arm 'a' are not numbers"),
        ({"a": [[1.0]], "b": [1.0]}, {}, r"values of arm 'a' are \(1, 1\), not one for each seed"),
        ({"a": [1.0], "b": [1.0]}, {"margin": -0.1}, "margin of equivalence must be above 0, got -0.1"),
        ({"a": [1.0], "b": [1.0]}, {"confidence": 95}, "confidence 95 is not between 0 and 1"),
        ({"a": [1.0], "b": [1.0]}, {"alpha": 0.0}, "alpha 0.0 is not between 0 and 1"),
        ({"a": [1.0], "b": [1.0]}, {"test": "u"}, "unknown test 'u': valid are sign-flip, t"),
    ],
)
def test_bad_input_is_refused_in_one_line(values, change, message):
    with pytest.raises(UsageError, match=message) as refused:
        compare(values, "b", **change)
    assert "\n" not in str(refused.value)


@st.composite
def families(draw):
    """Values of a control "c" and of up to three arms, up to 10 seeds, in hundredths: ties and no spread included."""
    n, arms = draw(st.integers(0, 10)), draw(st.integers(1, 3))
    shifts = [0, *draw(st.lists(st.integers(-60, 60), min_size=arms, max_size=arms))]
    noise = st.lists(st.integers(-20, 20), min_size=n, max_size=n)
    return {arm: (np.array(draw(noise)) + shift) / 100 for arm, shift in zip("cdef", shifts, strict=False)}


@given(families(), st.sampled_from([None, 0.1, 0.5]), st.booleans(), st.sampled_from(["sign-flip", "t"]))
@settings(max_examples=100)
def test_a_verdict_is_what_its_interval_and_p_value_say(values, margin, larger_is_better, test):
    for row in compare(values, "c", margin=margin, larger_is_better=larger_is_better, test=test).values():
        assert row.verdict in VERDICTS
        if row.verdict == "control":
            continue
        low, high = row.simultaneous_interval
        within = margin is not None and -margin < low and high < margin
        sign = (low > 0) - (high < 0) if larger_is_better else (high < 0) - (low > 0)
        assert row.verdict == ("equivalent" if within else {1: "better", -1: "worse", 0: "undecided"}[sign])
        if row.verdict in ("better", "worse"):
            assert row.p_holm <= 0.05 + 1e-12
            assert (row.difference > 0) == ((row.verdict == "better") == larger_is_better)
        assert (row.further_seeds == 0) == row.decided
        if row.n:
            assert row.smallest_p <= row.p or np.isnan(row.p)
            assert row.p_holm >= row.p or np.isnan(row.p)


@given(families(), st.integers(-200, 200), st.randoms())
@settings(max_examples=40)
def test_swaps_shifts_and_the_order_of_seeds_and_arms(values, shift, random):
    pair = {"c": values["c"], "d": values["d"]}
    row, swapped = compare(pair, "c", margin=0.1)["d"], compare(pair, "d", margin=0.1)["c"]
    opposite = {"better": "worse", "worse": "better"}
    assert swapped.verdict == opposite.get(row.verdict, row.verdict)
    np.testing.assert_allclose(
        [swapped.difference, swapped.effect_size], [-row.difference, -row.effect_size], atol=1e-9
    )
    np.testing.assert_allclose(swapped.simultaneous_interval, np.negative(row.simultaneous_interval)[::-1], atol=1e-9)
    assert (swapped.p, swapped.further_seeds) == (row.p, row.further_seeds) or np.isnan(row.p)

    order = random.sample(range(row.n), row.n)
    moved = {arm: runs[order] for arm, runs in reversed(values.items())}
    for arm, other in compare(values, "c").items():
        again = compare(moved, "c")[arm]
        assert (again.verdict, again.reason) == (other.verdict, other.reason)
        np.testing.assert_allclose(again.simultaneous_interval, other.simultaneous_interval, atol=1e-9)

    # Whole numbers: no rounding, and so nothing but the means moves.
    whole = {arm: np.round(100 * runs) for arm, runs in values.items()}
    for arm, other in compare(whole, "c").items():
        again = compare({arm: runs + shift for arm, runs in whole.items()}, "c")[arm]
        assert (again.verdict, again.reason) == (other.verdict, other.reason)
        np.testing.assert_array_equal(again.simultaneous_interval, other.simultaneous_interval)


def test_many_families_at_once_are_as_one_by_one():
    values = np.random.default_rng(0).normal(0, 0.01, (5, 4, 8)) + np.array([0, 0.04, 0, 0])[:, None]
    for test, margin in (("sign-flip", 0.02), ("t", None)):
        low, high = simultaneous(values[:, 1:] - values[:, :1], margin=margin, test=test)
        for i, family in enumerate(values):
            rows = compare(dict(zip("cdef", family, strict=True)), "c", margin=margin, test=test)
            np.testing.assert_allclose(
                [rows[arm].simultaneous_interval for arm in "def"], np.stack([low[i], high[i]], 1)
            )


@pytest.mark.parametrize("test", ["sign-flip", "t"])
@pytest.mark.parametrize(
    ("n", "arms"),
    [(3, 4), (5, 1), (6, 1), (8, 4), (8, 12), pytest.param(10, 12, marks=pytest.mark.slow), (12, 3)],
)
@pytest.mark.parametrize("draw", ["normal", "standard_t", "lognormal"])
def test_arms_like_the_control_are_called_different_in_5_percent_of_families_or_less(draw, n, arms, test):
    rng, families = np.random.default_rng(n), 800 if n < 10 else 150
    runs = getattr(rng, draw)(**({"df": 3} if draw == "standard_t" else {}), size=(families, arms + 1, n))
    assert told_from_0(runs[:, 1:] - runs[:, :1], test=test).mean() <= at_most(0.05, families)


@pytest.mark.parametrize("effects", [(0.0, 0.0, 0.0), (0.0, 1.5, 3.0), (-1.0, 0.0, 4.0), (3.0, 3.0, 3.0)])
def test_simultaneous_intervals_hold_all_differences_in_95_percent_or_more(effects):
    rng = np.random.default_rng(0)
    runs = rng.normal(size=(800, 4, 8)) + np.array([0.0, *effects])[:, None]
    low, high = simultaneous(runs[:, 1:] - runs[:, :1])
    held = ((low <= effects) & (effects <= high)).all(1)
    assert 1 - held.mean() <= at_most(0.05, 800)


@pytest.mark.parametrize(("n", "test"), [(8, "sign-flip"), (4, "t"), (12, "sign-flip")])
def test_differences_as_large_as_the_margin_are_called_equivalent_in_5_percent_or_less(n, test):
    families = 1000 if n < 10 else 200
    differences = np.random.default_rng(0).normal(0.01, 0.004, (families, 1, n))
    low, high = simultaneous(differences, margin=0.01, test=test)
    assert ((low > -0.01) & (high < 0.01)).mean() <= at_most(0.025, families)
