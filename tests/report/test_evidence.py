"""Verdicts from tables with a known answer: what is planted is found, what is not there is not claimed."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UsageError
from fishnet.report.results import Results
from fishnet.study.claims import Claim, judge
from fishnet.study.contrasts import Contrast, evaluate_contrast
from fishnet.study.metrics import class_metric, column_metric, final_metric
from fishnet.study.trials import Look, Trial

SEEDS = 10
LABELS = ("control", "better by .05", "the same", "unstable")
ACCURACY = column_metric("test_accuracy", "test accuracy", margin=0.02, diverged=0.1)


def look_of(labels=LABELS, seeds=SEEDS, first=0) -> Look:
    """Accuracies with an effect of each seed that all arms share, so that only paired figures see .05."""
    rng = np.random.default_rng(first)
    shared, noise = rng.normal(0.7, 0.08, seeds), rng.normal(0, 0.005, (len(labels), seeds))
    effect = {"better by .05": 0.05}
    rows, curves, classes = [], [], []
    for i, label in enumerate(labels):
        for seed in range(seeds):
            run = i * seeds + seed
            gone = label == "unstable" and seed > 0
            value = shared[seed] + effect.get(label, 0.0) + noise[i, seed]
            rows.append({"run": run, "status": "diverged" if gone else "ok", "test_accuracy": value})
            curves += [{"run": run, "epoch": e, "train_loss": 2.0 / e + value} for e in (1, 2, 3)]
            classes += [{"run": run, "class": c, "auc": value - k / 10} for k, c in enumerate("ab")]
    sweep = {"seeds": list(range(first, first + seeds))}
    tables = [pd.DataFrame(t) for t in (rows, curves, classes)]
    return Look(Results(Path("nowhere"), sweep, *tables, pd.DataFrame()), tuple(labels))


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial("planted", (look_of(),))


def test_what_was_planted_is_found_and_nothing_else(trial):
    found = evaluate_contrast(Contrast("accuracy", "accuracy", "planted", ACCURACY), trial)
    assert {label: row.verdict for label, row in found.rows.items()} == {
        "control": "control",
        "better by .05": "better",
        "the same": "equivalent",
        "unstable": "worse",
    }
    assert found.row("better by .05").difference == pytest.approx(0.05, abs=0.006)
    assert found.row("unstable").diverged == SEEDS - 1
    assert found.difference_text("better by .05").endswith("better, 10 seeds")
    assert found.best_arm() == "better by .05" and found.best_arm(["the same", "unstable"]) == "the same"
    row = found.row("better by .05")
    assert found.mean_text("better by .05") == f"{row.mean:.3f} [{row.interval[0]:.3f}, {row.interval[1]:.3f}]"
    with pytest.raises(UsageError, match="sideways"):
        found.row("sideways")


def test_intervals_of_accuracies_end_where_accuracies_do():
    """An arm that is nearly always right against one that is nearly always wrong, a seed of each apart."""
    values = {"a": [0.01] * 9 + [0.5], "b": [0.5] + [0.99] * 9}
    rows = [
        {"run": i * 10 + seed, "status": "ok", "test_accuracy": value, "test_loss": value}
        for i, of in enumerate(values.values())
        for seed, value in enumerate(of)
    ]
    nothing = pd.DataFrame()
    look = Look(Results(Path("nowhere"), {"seeds": list(range(10))}, pd.DataFrame(rows), *[nothing] * 3), ("a", "b"))
    free = column_metric("test_accuracy", "accuracy", within=None)
    row = evaluate_contrast(Contrast("x", "x", "t", free), Trial("t", (look,))).row("b")
    assert row.simultaneous_interval.high > 1 and row.interval.high > 1
    cut = evaluate_contrast(Contrast("x", "x", "t", ACCURACY), Trial("t", (look,))).row("b")
    assert cut.simultaneous_interval == (row.simultaneous_interval.low, 1)
    assert cut.interval == (row.interval.low, 1)
    assert cut.difference == row.difference
    assert column_metric("test_loss", "loss").within is None and column_metric("val_macro_auc", "auc").within == (0, 1)


def test_a_smoke_test_has_figures_and_no_verdict(trial):
    found = evaluate_contrast(Contrast("accuracy", "accuracy", "planted", ACCURACY), trial, verdicts=False)
    assert "no verdict" in found.difference_text("better by .05")
    claim = Claim("more is more", "a textbook", "accuracy", {"better by .05": "better"})
    assert judge(claim, {"accuracy": found}).verdict == "undecided"


@pytest.mark.parametrize(
    ("expected", "verdict"),
    [
        ({"better by .05": "better"}, "supported"),
        ({"better by .05": "worse"}, "refuted"),
        ({"the same": "better"}, "refuted"),
        ({"the same": "equivalent"}, "supported"),
        ({"the same": "not better"}, "supported"),
        ({"unstable": "not better"}, "supported"),
        ({"better by .05": "not better"}, "refuted"),
        ({"better by .05": "better", "the same": "better"}, "refuted"),
    ],
)
def test_claims_are_judged_by_the_verdicts(trial, expected, verdict):
    evidence = {"accuracy": evaluate_contrast(Contrast("accuracy", "accuracy", "planted", ACCURACY), trial)}
    assert judge(Claim("", "", "accuracy", expected), evidence).verdict == verdict


def test_a_claim_that_cannot_be_judged_is_refused(trial):
    evidence = {"accuracy": evaluate_contrast(Contrast("accuracy", "accuracy", "planted", ACCURACY), trial)}
    with pytest.raises(UsageError, match="good"):
        judge(Claim("", "", "accuracy", {"the same": "good"}), evidence)
    with pytest.raises(UsageError, match="speed"):
        judge(Claim("", "", "speed", {"the same": "better"}), evidence)


def test_three_seeds_are_told_to_be_too_few():
    found = evaluate_contrast(Contrast("accuracy", "", "planted", ACCURACY), Trial("planted", (look_of(seeds=3),)))
    assert found.row("better by .05").verdict == "undecided"
    assert "not attainable with 3 seeds" in found.row("better by .05").reason


def test_a_later_look_adds_seeds_to_its_arms_alone():
    later = look_of(("control", "the same"), SEEDS, first=SEEDS)
    values = Trial("planted", (look_of(), later)).by_seed(ACCURACY)
    assert [len(values[label]) for label in LABELS] == [2 * SEEDS, SEEDS, 2 * SEEDS, SEEDS]


def test_figures_of_the_last_epoch_and_of_a_class(trial):
    accuracy = trial.by_seed(ACCURACY)
    np.testing.assert_allclose(
        trial.by_seed(final_metric("train_loss", "loss"))["control"], np.array(accuracy["control"]) + 2 / 3
    )
    np.testing.assert_allclose(
        trial.by_seed(class_metric("auc", "AUC", "b"))["the same"], np.array(accuracy["the same"]) - 0.1
    )
    assert np.isnan(trial.by_seed(class_metric("auc", "AUC", "c"))["control"]).all()


def test_other_controls_and_some_arms(trial):
    contrast = Contrast("pair", "", "planted", ACCURACY, control="the same", arms=("control",))
    found = evaluate_contrast(contrast, trial)
    assert list(found.rows) == ["the same", "control"]
    assert found.row("control").verdict == "equivalent"


def test_what_a_diverged_run_had_measured_is_not_how_it_ended(trial):
    """Its last epoch has a loss, finite or not, that says nothing: it counts as the worst of the others."""
    loss = final_metric("train_loss", "loss", larger_is_better=False)
    values = trial.by_seed(loss)
    assert np.isfinite(values["unstable"]).sum() == 1 and np.isfinite(values["control"]).all()
    found = evaluate_contrast(Contrast("loss", "loss", "planted", loss), trial)
    worst = max(value for of in values.values() for value in of if np.isfinite(value))
    own = values["unstable"][0]
    assert found.row("unstable").mean == pytest.approx((own + (SEEDS - 1) * worst) / SEEDS)
    assert found.row("unstable").verdict != "better"
    fixed = evaluate_contrast(Contrast("loss", "loss", "planted", dataclasses.replace(loss, diverged=9.0)), trial)
    assert fixed.row("unstable").mean == pytest.approx((own + (SEEDS - 1) * 9.0) / SEEDS)


def test_a_class_with_few_test_images_has_no_verdict():
    look = look_of()
    few = look.results.per_class.assign(support=np.where(look.results.per_class["class"] == "a", 4, 5))
    short = Trial("planted", (dataclasses.replace(look, results=dataclasses.replace(look.results, per_class=few)),))
    of_a, of_b = (
        evaluate_contrast(Contrast("auc", "auc", "planted", class_metric("auc", "AUC", name)), short)
        for name in ("a", "b")
    )
    assert of_a.problem == "no verdict: 4 test images of a" and of_b.problem == ""
    assert "no verdict" in of_a.difference_text("better by .05")
    claim = Claim("", "", "auc", {"better by .05": "better"})
    assert judge(claim, {"auc": of_a}).verdict == "undecided" and judge(claim, {"auc": of_b}).verdict == "supported"


def test_two_arms_at_chance_support_nothing():
    flat = pd.DataFrame(
        [{"run": run, "status": "ok", "test_accuracy": 0.1 + run % 3 * 1e-4} for run in range(2 * SEEDS)]
    )
    look = look_of(("a", "b"))
    look = dataclasses.replace(look, results=dataclasses.replace(look.results, runs=flat))
    at_chance = dataclasses.replace(ACCURACY, diverged=0.1)
    found = {"x": evaluate_contrast(Contrast("x", "x", "t", at_chance), Trial("t", (look,)))}
    assert found["x"].row("b").verdict == "equivalent"
    for expected, verdict in {"not worse": "undecided", "equivalent": "undecided", "better": "refuted"}.items():
        assert judge(Claim("", "", "x", {"b": expected}), found).verdict == verdict


def test_intervals_in_words_are_those_of_the_differences(trial):
    found = evaluate_contrast(Contrast("accuracy", "accuracy", "planted", ACCURACY), trial)
    low, high = found.row("better by .05").difference_interval
    assert (
        found.difference_text("better by .05")
        == f"{found.row('better by .05').difference:+.3f} [{low:+.3f}, {high:+.3f}], better, 10 seeds"
    )
    assert found.difference_text("unstable").endswith(f"10 seeds, {SEEDS - 1} diverged")
