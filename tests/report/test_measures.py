"""Figures of a run from its curves, classes and predictions, each with an independent way to the same number."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fishnet.metrics.classification import accuracy, confusion
from fishnet.metrics.roc import one_vs_rest_auc
from fishnet.report.results import Results
from fishnet.stats import bias_variance
from fishnet.study.derived_metrics import (
    bias_variance_metric,
    drop_from_best,
    final_gap,
    group_by_draw,
    layer_ratio_metric,
    log10_metric,
    other_classes_metric,
    prediction_metric,
)
from fishnet.study.figures.predictions import (
    auc_change,
    auc_changes_panel,
    rejection_panel,
    split_variance,
    variance_panel,
)
from fishnet.study.metrics import final_metric
from fishnet.study.trials import Look, Trial
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.sweep import Sweep

DRAWS, SEEDS, IMAGES, CLASSES = 3, 2, 60, ("a", "b", "c")
WIDTHS = ((8,), (16,))


@pytest.fixture(scope="module")
def results() -> Results:
    """Two networks on three draws of the training images, two seeds each."""
    tasks = [f"synthetic?train=0.5@{draw}&noise=0.2" for draw in range(1, DRAWS + 1)]
    sweep = Sweep(Recipe(norm="none"), axes={"widths": WIDTHS, "task": tasks}, seeds=SEEDS)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, IMAGES)
    runs, curves, classes, predictions = [], [], [], []
    for run in sweep.runs():
        runs.append({"run": run.index, "arm": run.arm, "seed": run.recipe.seed, "status": "ok"})
        for epoch, value in enumerate((0.5, 0.8, 0.6 + run.index / 100), start=1):
            curves.append({"run": run.index, "epoch": epoch, "val_accuracy": value, "train_accuracy": 0.9})
        classes += [{"run": run.index, "class": c, "auc": 0.5 + k / 10} for k, c in enumerate(CLASSES)]
        p = rng.dirichlet(np.ones(3), IMAGES) + np.eye(3)[labels] * run.recipe.widths[0] / 16
        p /= p.sum(1, keepdims=True)
        order = rng.permutation(IMAGES)  # of the rows: images are told by `example`
        fixed = {"run": run.index, "split": "test", "example": order, "label": labels[order]}
        predictions.append(pd.DataFrame(fixed | {f"p_{c}": p[order, k] for k, c in enumerate(CLASSES)}))
    tables = [pd.DataFrame(rows) for rows in (runs, curves, classes)]
    return Results(Path("nowhere"), sweep.spec(), *tables, pd.concat(predictions, ignore_index=True))


@pytest.fixture(scope="module")
def trial(results) -> Trial:
    labels = tuple(f"{width[0]}, {draw}" for width in WIDTHS for draw in range(DRAWS))
    return Trial("planted", (Look(results, labels),))


def probabilities(results: Results, run: int) -> tuple[np.ndarray, np.ndarray]:
    rows = results.predictions[results.predictions["run"] == run].set_index("example").loc[range(IMAGES)]
    return rows["label"].to_numpy(), rows[[f"p_{c}" for c in CLASSES]].to_numpy()


def test_decades_are_those_of_the_first_measurement_layer_by_layer(results):
    rows = [
        {"run": run, "step": step, "probe": probe, "layer": layer, "index": i, "class": None, "value": value}
        for run, sizes in enumerate([(1e-4, 5.0, 1e-2), (1e2, 5.0, 1.0), (0.0, 5.0, 1.0)])
        for step, factor in ((3, 7.0), (0, 1.0))
        for probe in ("gradient_rms", "other")
        for i, (layer, value) in enumerate(zip(("dense_0", "norm_0", "head"), np.array(sizes) * factor, strict=True))
    ]
    planted = dataclasses.replace(results, probes=pd.DataFrame(rows))
    apart = layer_ratio_metric("gradient_rms", lambda sizes: sizes[0] / sizes[-1], "")
    assert apart.of(planted) == pytest.approx({0: 2.0, 1: 2.0})  # norms have no kernel; log 0 is no figure
    signed = layer_ratio_metric("gradient_rms", lambda sizes: sizes[0], "", magnitude=False)
    assert signed.of(planted) == pytest.approx({0: -4.0, 1: 2.0})
    assert apart.of(results) == {}


def test_falls_and_gaps(results):
    lost, gap = (
        drop_from_best("val_accuracy", "").of(results),
        final_gap("train_accuracy", "val_accuracy", "").of(results),
    )
    assert lost[3] == pytest.approx(0.8 - 0.63) and gap[3] == pytest.approx(0.9 - 0.63)
    assert not drop_from_best("val_accuracy", "").larger_is_better


def test_the_classes_beside_one(results):
    assert other_classes_metric("auc", "", "a").of(results)[0] == pytest.approx(0.6)
    assert other_classes_metric("auc", "", "a", over="max").of(results)[0] == pytest.approx(0.7)


def test_what_predictions_come_to(results):
    found = prediction_metric(lambda labels, p: accuracy(confusion(labels, p.argmax(-1), 3)), "").of(results)
    labels, p = probabilities(results, 5)
    assert found[5] == pytest.approx((p.argmax(1) == labels).mean())
    assert prediction_metric(lambda labels, p: 1.0, "", split="val").of(results) == {}


def test_draws_of_the_training_images_belong_together(results):
    groups = sorted(group_by_draw(results, results.runs["run"]).values())
    # run = (width * DRAWS + draw) * SEEDS + seed
    assert groups == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]
    labels, _ = probabilities(results, 0)
    split = bias_variance(np.stack([probabilities(results, run)[1] for run in (7, 9, 11)]), labels)
    for part in ("error", "bias", "variance"):
        found = bias_variance_metric(part, "").of(results)
        assert found[7] == found[9] == found[11] == pytest.approx(float(getattr(split, part)))


def test_no_table_no_figure(results):
    empty = dataclasses.replace(results, curves=pd.DataFrame(), per_class=pd.DataFrame(), predictions=pd.DataFrame())
    metrics = [
        drop_from_best("val_accuracy", ""),
        other_classes_metric("auc", "", "a"),
        bias_variance_metric("bias", ""),
        prediction_metric(len, ""),
    ]
    assert all(metric.of(empty) == {} for metric in metrics)


def test_auc_of_a_class_before_and_after(trial, results):
    change = auc_change(trial, "b", "8, 0", "16, 0")
    labels, _ = probabilities(results, 0)
    means = [np.mean([probabilities(results, run)[1] for run in runs], 0) for runs in ((0, 1), (6, 7))]
    expected = [one_vs_rest_auc(labels, p)[1] for p in means]
    assert (change.before, change.after) == pytest.approx(tuple(expected))
    assert change.interval.low < change.after - change.before < change.interval.high
    assert auc_change(trial, "nobody", "8, 0", "16, 0") is None
    assert auc_changes_panel([None], "") is None
    assert "16, 0" in auc_changes_panel([change, None], "cured").alt


def test_bias_and_variance_by_source(trial, results):
    split = split_variance(trial, ["16, 0", "16, 1", "16, 2"])
    assert split.bias + split.sets + split.seeds == pytest.approx(split.error)
    assert split_variance(trial, ["16, 0"]) is None
    assert variance_panel({"wide": split, "none": None}, "parts").alt.startswith("parts. wide: bias")


def test_rejection_is_drawn_for_arms_with_predictions(trial):
    panel = rejection_panel(trial, ["8, 0", "16, 0"], "rejected")
    assert "16, 0" in panel.alt and "images that are answered" in panel.alt


def test_logarithms_of_a_measure_are_of_its_values_and_of_what_diverged_runs_count_as(results):
    plain = final_metric("val_accuracy", "accuracy", larger_is_better=False, diverged=0.01)
    found, values = log10_metric(plain, "logarithm", margin=0.1), plain.of(results)
    assert values and found.of(results) == pytest.approx({run: np.log10(value) for run, value in values.items()})
    assert found.diverged == -2.0 and found.margin == 0.1 and not found.larger_is_better
    assert found.within is None and log10_metric(dataclasses.replace(plain, diverged=None), "").diverged is None
