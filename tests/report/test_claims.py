"""What becomes of a statement, from intervals that are given."""

import dataclasses

import pytest

from fishnet.stats import Bounds, compare
from fishnet.study.claims import Claim, excludes, judge
from fishnet.study.contrasts import Contrast, Evidence
from fishnet.study.metrics import column_metric

ROWS = compare({"control": [0.5] * 10, "arm": [0.5] * 10}, "control", margin=0.03)


def evidence_of(low: float, high: float, verdict: str, larger: bool = True, margin: float | None = 0.03) -> Evidence:
    """An arm whose interval, and so whose verdict, is given."""
    metric = column_metric("test_accuracy" if larger else "test_loss", "figure", larger_is_better=larger, margin=margin)
    row = dataclasses.replace(ROWS["arm"], simultaneous_interval=Bounds(low, high), verdict=verdict)
    return Evidence(Contrast("x", "x", "trial", metric), {"control": ROWS["control"], "arm": row})


CASES = [
    # interval, verdict -> of "better", "worse", "not better", "not worse"
    ((0.01, 0.05), "better", "supported", "refuted", "refuted", "supported"),
    ((-0.05, -0.01), "worse", "refuted", "supported", "supported", "refuted"),
    ((-0.02, 0.02), "equivalent", "refuted", "refuted", "supported", "supported"),
    ((-0.02, 0.05), "undecided", "undecided", "refuted", "undecided", "supported"),
    ((-0.05, 0.02), "undecided", "refuted", "undecided", "supported", "undecided"),
    ((-0.05, 0.05), "undecided", "undecided", "undecided", "undecided", "undecided"),
]


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize(("bounds", "verdict", "better", "worse", "not_better", "not_worse"), CASES)
def test_intervals_that_exclude_a_margin_bear_on_a_claim(bounds, verdict, better, worse, not_better, not_worse, larger):
    low, high = bounds if larger else (-bounds[1], -bounds[0])
    evidence = {"x": evidence_of(low, high, verdict, larger)}
    for expected, judged in {
        "better": better,
        "worse": worse,
        "not better": not_better,
        "not worse": not_worse,
    }.items():
        assert judge(Claim("", "", "x", {"arm": expected}), evidence).verdict == judged, expected


def test_more_evidence_never_speaks_for_a_claim_less():
    """Sliding an interval of one width upwards, `better` goes from refuted over undecided to supported."""
    order = {"refuted": 0, "undecided": 1, "supported": 2}
    for width in (0.02, 0.05, 0.1):
        found = []
        for low in [step / 1000 for step in range(-150, 100)]:
            high = low + width
            verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
            verdict = "equivalent" if low > -0.03 and high < 0.03 else verdict
            judged = judge(Claim("", "", "x", {"arm": "better"}), {"x": evidence_of(low, high, verdict)})
            found.append(order[judged.verdict])
        assert found == sorted(found) and found[0] == 0 and found[-1] == 2


def test_without_a_margin_only_the_verdict_counts():
    of = evidence_of(-0.05, 0.001, "undecided", margin=None)
    assert excludes(of, "arm") == set()
    assert judge(Claim("", "", "x", {"arm": "better"}), {"x": of}).verdict == "undecided"


def test_what_is_excluded_is_said():
    judged = judge(Claim("", "", "x", {"arm": "better"}), {"x": evidence_of(-0.05, 0.02, "undecided")})
    assert judged.effects["arm"].endswith("undecided, 10 seeds (better by 0.03 is excluded)")


def test_without_verdicts_nothing_is_excluded():
    of = dataclasses.replace(evidence_of(-0.05, 0.02, "undecided"), problem="no verdict: a smoke test")
    assert judge(Claim("", "", "x", {"arm": "better"}), {"x": of}).verdict == "undecided"


def test_a_claim_about_two_tasks_needs_both():
    other = dataclasses.replace(evidence_of(-0.05, 0.05, "undecided").contrast.metric, name="figure on the other task")
    fish = evidence_of(0.01, 0.05, "better")
    for bounds, verdict, judged in (
        ((0.01, 0.05), "better", "supported"),
        ((-0.05, 0.05), "undecided", "undecided"),
        ((-0.02, 0.02), "equivalent", "refuted"),
    ):
        digits = evidence_of(*bounds, verdict)
        digits = dataclasses.replace(digits, contrast=dataclasses.replace(digits.contrast, metric=other))
        claim = Claim("", "", "fish", {"arm": "better"}, also={"digits": {"arm": "better"}})
        found = judge(claim, {"fish": fish, "digits": digits})
        assert found.verdict == judged
        assert found.metric == "figure; figure on the other task" and found.control == "control"
        first, second = found.effects
        assert first == "arm (figure, against control)" and second == "arm (figure on the other task, against control)"


def test_arms_that_are_the_same_runs_are_called_so():
    of = dataclasses.replace(evidence_of(0.0, 0.0, "equivalent"), same=frozenset({"arm"}))
    assert ", the same runs, " in of.difference_text("arm")
