"""What the page of an answer says beside its figures: tables, the noise of a test set, classes with few images."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fishnet.stats import accuracy_noise, compare
from fishnet.study.answer import (
    Answer,
    DrawnFigure,
    cells,
    make_table,
    noise_text,
    percent_text,
    predictions_by_arm,
    reason_text,
    smallest_p_text,
    warn_of_small_classes,
)
from fishnet.study.contrasts import Contrast, evaluate_contrast
from fishnet.study.metrics import column_metric, probe_metric
from fishnet.study.trials import Trial
from tests.report.test_evidence import ACCURACY, LABELS, SEEDS, look_of

IMAGES = 40
BALANCED = column_metric("test_balanced_accuracy", "balanced test accuracy", diverged=0.5)


def trial_of_images(balanced: bool = False) -> Trial:
    """Two classes of 4 and 36 test images, of which every run gets the same ones right."""
    look = look_of()
    labels = np.repeat([0, 1], [4, IMAGES - 4])
    right = np.arange(IMAGES) % 4 != 0
    p_b = np.where(right == (labels == 1), 0.9, 0.1)
    predictions = pd.concat(
        pd.DataFrame({"run": run, "split": "test", "example": np.arange(IMAGES), "label": labels,
                      "p_a": 1 - p_b, "p_b": p_b})
        for run in range(len(LABELS) * SEEDS)
    )  # fmt: skip
    support = look.results.per_class["class"].map({"a": 4, "b": IMAGES - 4})
    runs = look.results.runs.assign(test_balanced_accuracy=look.results.runs["test_accuracy"])
    results = dataclasses.replace(
        look.results, runs=runs, predictions=predictions, per_class=look.results.per_class.assign(support=support)
    )
    return Trial("planted", (dataclasses.replace(look, results=results),))


def evidence_of(metric, trial):
    return evaluate_contrast(Contrast("accuracy", "accuracy", "planted", metric), trial)


def answer_of(evidence, trial) -> Answer:
    figure = DrawnFigure("x", "x", "x", [])
    return Answer("", "", "", [evidence], figure, figure, [], ["a limit"], [], {"planted": trial}, "")


@pytest.mark.parametrize("metric", [ACCURACY, BALANCED])
def test_the_noise_of_the_test_set_is_that_of_its_images(metric):
    trial = trial_of_images()
    labels = np.repeat([0, 1], [4, IMAGES - 4])
    right = (np.arange(IMAGES) % 4 != 0).astype(float)
    floor = accuracy_noise(right, labels if metric is BALANCED else None)
    words = noise_text(evidence_of(metric, trial), {"planted": predictions_by_arm(trial)})
    assert f"{IMAGES} test images leave the accuracy of one network uncertain by ±{floor:.3f} (95 %)" in words
    assert words in make_table(evidence_of(metric, trial), words)["words"]


def test_other_measures_have_no_noise_of_test_images():
    trial = trial_of_images()
    dead = probe_metric("dead_units", "dead units", diverged=1.0)
    assert noise_text(evidence_of(dead, trial), {"planted": predictions_by_arm(trial)}) == ""
    bare = Trial("planted", (look_of(),))
    assert noise_text(evidence_of(ACCURACY, bare), {"planted": predictions_by_arm(bare)}) == ""
    assert noise_text(evidence_of(ACCURACY, trial), {}) == ""


def test_classes_with_few_images_are_a_limit_of_balanced_accuracy_alone():
    trial = trial_of_images()
    (limit,) = warn_of_small_classes(answer_of(evidence_of(BALANCED, trial), trial))
    assert limit.endswith("with fewer than 5 test images: a (4) of 2 classes.")
    assert warn_of_small_classes(answer_of(evidence_of(ACCURACY, trial), trial)) == []


def test_a_row_has_every_figure_that_a_verdict_rests_on():
    of = evidence_of(ACCURACY, trial_of_images())
    row, shown = of.row("better by .05"), cells(of, "better by .05")
    assert shown["verdict"] == "better" and shown["reason"] == ""
    assert shown["effect"] == f"{row.effect_size:+.1f}" and shown["p"] == ".002 (.006)"
    assert (
        shown["wins"] == "100\u00a0%"
        and shown["wins_interval"] == percent_text(row.improvement_interval) == "[72, 100]"
    )
    assert cells(of, "control")["verdict"] == "control" and cells(of, "control")["p"] == ""
    unstable = cells(of, "unstable")
    assert unstable["diverged"] == f"({SEEDS - 1} diverged)"
    assert unstable["reason"] == f": {SEEDS - 1} runs without a value counted as 0.1"
    assert smallest_p_text([of]) == ".002 with 10 seeds"


def test_an_undecided_row_says_what_would_decide():
    rng = np.random.default_rng(3)
    values = {"control": rng.normal(0, 1, 10), "open": rng.normal(0.5, 1, 10), "short": rng.normal(0, 1, 2)}
    rows = compare(values, "control", margin=0.1)
    further = rows["open"].further_seeds
    assert further and reason_text(rows["open"]) == f"{further} more seeds would decide"
    assert reason_text(rows["short"]) == "needs at least 3 seeds, has 2"


def test_a_value_that_is_missing_without_divergence_is_called_so():
    rows = [
        {"run": run, "epoch": 1, "step": 5, "probe": "rank", "layer": "a", "index": 0, "class": None, "value": value}
        for run, value in enumerate([1.0] * SEEDS + [2.0] * (SEEDS - 2) + [np.nan] * 2 + [1.0] * 2 * SEEDS)
    ]
    look = look_of()
    look = dataclasses.replace(look, results=dataclasses.replace(look.results, probes=pd.DataFrame(rows)))
    of = evidence_of(probe_metric("rank", "rank"), Trial("planted", (look,)))
    assert of.missing_text("better by .05") == "2 without a value"
    assert of.missing_text("unstable") == f"{SEEDS - 1} diverged" and of.missing_text("control") == ""
    assert of.difference_text("better by .05").endswith("10 seeds, 2 without a value")
