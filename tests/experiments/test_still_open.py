"""Further looks: which arms they train, and how verdicts are read from all of them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from fishnet.report.results import Results
from fishnet.study.contrasts import Contrast, Evidence, evaluate_contrast
from fishnet.study.looks import find_undecided, train_first_look, train_until_decided
from fishnet.study.metrics import column_metric
from fishnet.study.question import QuestionArgs
from fishnet.study.trials import Look
from fishnet.sweep.run.progress import Display

LABELS = ("control", "a, set 1", "a, set 2", "b, set 1", "b, set 2")
BESIDE = {"a, set 1": ["a, set 2"], "b, set 1": ["b, set 2"]}


def found(verdicts, requires=BESIDE):
    rows = {label: SimpleNamespace(arm=label, verdict=verdict) for label, verdict in verdicts.items()}
    return Evidence(Contrast("error", "", "sets", column_metric("test_loss", ""), requires=requires), rows)


def test_nothing_more_where_all_is_decided():
    assert find_undecided([found({"control": "control", "a, set 1": "better"})], LABELS) == []


def test_what_is_open_comes_with_its_control_and_the_arms_its_measure_needs():
    evidence = found({"control": "control", "a, set 1": "undecided", "b, set 1": "worse"})
    assert find_undecided([evidence], LABELS) == ["control", "a, set 1", "a, set 2"]
    assert find_undecided([evidence], ("control",)) == []  # an earlier look has left it out
    alone = found({"control": "control", "a, set 1": "undecided"}, requires={})
    assert find_undecided([alone], LABELS) == ["control", "a, set 1"]


def test_what_has_a_problem_needs_no_further_seeds():
    """A class with too few test images has as few of them with every seed."""
    evidence = found({"control": "control", "a, set 1": "undecided"})
    assert find_undecided([replace(evidence, problem="no verdict: 3 test images of a")], LABELS) == []


class Planned:
    """A plan whose arms have given effects on runs that nobody trains; it remembers what was asked of it."""

    name = "planted"

    def __init__(self, effects):
        self.effects, self.asked = effects, []

    def labels(self, size):
        return LABELS

    def seeds_from(self, size, done=0):
        return list(range(done, done + 10))

    def train(self, asked, out, display, seeds, labels):
        self.asked.append((out.name, tuple(seeds), tuple(labels)))
        rows = []
        for label in labels:
            noise = np.random.default_rng(LABELS.index(label))
            values = noise.normal(0.0, 0.01, 100)[list(seeds)] + self.effects[label]
            rows += [{"run": len(rows) + i, "status": "ok", "test_loss": value} for i, value in enumerate(values)]
        nothing = pd.DataFrame()
        results = Results(Path("nowhere"), {"seeds": list(seeds)}, pd.DataFrame(rows), *[nothing] * 3)
        return Look(results, tuple(labels))


def looked_at(effects, tmp_path):
    """The plan, and the evidence after all looks at it."""
    plan = Planned(effects)
    asked = QuestionArgs("full", tmp_path, until_decided=True, devices=None, quiet=True, command="")
    metric = column_metric("test_loss", "loss", larger_is_better=False, margin=0.001)
    contrast = Contrast("losses", "", "planted", metric, arms=LABELS[1:])
    trials = {"planted": train_first_look(plan, asked, Display())}
    return plan, trials, train_until_decided([contrast], {"planted": plan}, asked, trials, Display())


def test_looks_add_seeds_of_what_is_open_alone(tmp_path):
    effects = {"control": 0.0, "a, set 1": -1.0, "a, set 2": 0.0005, "b, set 1": 1.0, "b, set 2": 0.0}
    plan, trials, evidence = looked_at(effects, tmp_path)
    assert [name for name, *_ in plan.asked] == ["planted", "planted-look2", "planted-look3"]
    assert [seeds[0] for _, seeds, _ in plan.asked] == [0, 10, 20]
    assert plan.asked[0][2] == LABELS
    assert plan.asked[1][2] == plan.asked[2][2] == ("control", "a, set 2", "b, set 2")
    rows = evidence["losses"].rows
    assert rows["a, set 1"].verdict == "better" and rows["b, set 1"].verdict == "worse"
    assert rows["a, set 1"].n == 10 and rows["a, set 2"].n == rows["control"].n == 30
    assert len(trials["planted"].looks) == 3


def test_nothing_is_added_to_what_the_first_look_decides(tmp_path):
    effects = dict.fromkeys(LABELS, 1.0) | {"control": 0.0}
    plan, _, evidence = looked_at(effects, tmp_path)
    assert len(plan.asked) == 1 and {row.n for row in evidence["losses"].rows.values()} == {10}


def test_a_verdict_needs_more_where_there_will_be_further_looks(tmp_path):
    """The smallest difference that one look at .05 tells from 0 is not told at the first of three."""
    contrast = Contrast(
        "losses", "", "planted", column_metric("test_loss", "", larger_is_better=False), arms=LABELS[1:]
    )
    for effect in np.linspace(0.0, 0.03, 121):
        effects = dict.fromkeys(LABELS, 0.0) | {"a, set 1": effect}
        asked = QuestionArgs("full", tmp_path, until_decided=True, devices=None, quiet=True, command="")
        trial = train_first_look(Planned(effects), asked, Display())
        if evaluate_contrast(contrast, trial).row("a, set 1").verdict == "worse":
            break
    plan, _, _ = looked_at(effects, tmp_path)
    assert "a, set 1" in plan.asked[1][2]
