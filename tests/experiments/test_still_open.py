"""Which arms a further look trains."""

from types import SimpleNamespace

from experiments._question import still_open
from fishnet.report.evidence import Contrast, Evidence, column

LABELS = ("control", "a, set 1", "a, set 2", "b, set 1", "b, set 2")
BESIDE = {"a, set 1": ["a, set 2"], "b, set 1": ["b, set 2"]}


def found(verdicts, beside=BESIDE):
    rows = {label: SimpleNamespace(arm=label, verdict=verdict) for label, verdict in verdicts.items()}
    return Evidence(Contrast("error", "", "sets", column("test_loss", ""), beside=beside), rows)


def test_nothing_more_where_all_is_decided():
    assert still_open([found({"control": "control", "a, set 1": "better"})], LABELS) == []


def test_what_is_open_comes_with_its_control_and_the_arms_its_measure_needs():
    evidence = found({"control": "control", "a, set 1": "undecided", "b, set 1": "worse"})
    assert still_open([evidence], LABELS) == ["control", "a, set 1", "a, set 2"]
    assert still_open([evidence], ("control",)) == []  # an earlier look has left it out
    alone = found({"control": "control", "a, set 1": "undecided"}, beside={})
    assert still_open([alone], LABELS) == ["control", "a, set 1"]
