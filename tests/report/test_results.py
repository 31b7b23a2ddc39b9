"""What is read out of an output folder."""

import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UserError
from fishnet.report.results import load_results
from fishnet.sweep import Range, Recipe, Samples
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file
from tests.report.conftest import put


def test_arms_are_ranked_by_mean_validation_accuracy_over_seeds(sweep_folder):
    results = load_results(sweep_folder())
    means = results.runs.groupby("arm")["val_accuracy"].mean().sort_values(ascending=False)
    assert [arm.name for arm in results.ranked] == means.index.tolist()
    assert results.best.name == means.index[0]
    assert results.worst.name == means.index[-1]
    assert results.best.metrics["val_accuracy"].mean == pytest.approx(means.iloc[0])
    assert results.best.metrics["val_accuracy"].n == 3


def test_best_run_is_chosen_by_validation_not_by_test(sweep_folder):
    out = sweep_folder()
    runs = pd.read_parquet(out / "runs.parquet")
    runs.loc[5, ["val_accuracy", "test_accuracy"]] = [0.99, 0.01]
    put(out, "runs", runs)
    results = load_results(out)
    assert results.best_run == 5
    assert next(arm for arm in results.arms if 5 in arm.runs).runs[0] == 5


def test_ties_go_to_the_lower_validation_loss(sweep_folder):
    out = sweep_folder(axes={"norm": ["none", "batch"]}, seeds=1)
    runs = pd.read_parquet(out / "runs.parquet")
    runs["val_accuracy"], runs["val_loss"] = 0.5, [0.9, 0.8]
    put(out, "runs", runs)
    results = load_results(out)
    assert (results.best.name, results.best_run) == ("norm=batch", 1)


def test_diverged_runs_are_counted_and_left_out_of_the_means(sweep_folder):
    results = load_results(sweep_folder(axes={"norm": ["none", "batch"]}, diverged=(0, 3, 4, 5)))
    none, batch = results.arms
    assert (none.diverged, none.seeds, sorted(none.runs)) == (1, 3, [1, 2])
    assert none.metrics["test_accuracy"].n == 2
    assert (batch.diverged, batch.runs) == (3, ())
    assert np.isnan(batch.metrics["test_accuracy"].mean)
    assert results.best is none
    assert results.worst is none


def test_a_diverged_run_with_figures_from_before_is_still_left_out(sweep_folder):
    out = sweep_folder(axes={"norm": ["none", "batch"]}, seeds=2)
    runs = pd.read_parquet(out / "runs.parquet")
    runs.loc[0, ["status", "val_accuracy"]] = ["diverged", 1.0]
    put(out, "runs", runs)
    results = load_results(out)
    assert results.best_run != 0
    assert results.arms[0].metrics["val_accuracy"].n == 1
    assert results.best.name == "norm=batch"  # an arm that loses a run does not win against one that does not


def test_curves_are_means_over_seeds(sweep_folder):
    results = load_results(sweep_folder(epochs=4))
    arm = results.arms[0]
    epochs, mean, half = results.curve(arm, "val_accuracy")
    assert epochs.tolist() == [1, 2, 3, 4]
    rows = results.curves[results.curves["run"].isin(arm.runs) & (results.curves["epoch"] == 3)]
    assert mean[2] == pytest.approx(rows["val_accuracy"].mean())
    assert np.isfinite(half).all()
    assert not len(results.curve(arm, "no_such_column")[0])


def test_a_curve_that_ends_early_leaves_the_others(sweep_folder):
    out = sweep_folder(axes={"norm": ["none"]}, epochs=4)
    curves = pd.read_parquet(out / "curves.parquet")
    put(out, "curves", curves[(curves["run"] != 0) | (curves["epoch"] <= 2)])
    results = load_results(out)
    epochs, mean, _ = results.curve(results.arms[0], "val_loss")
    assert len(epochs) == 4
    assert np.isfinite(mean).all()


def test_the_recipe_of_a_run_has_its_axis_values_and_no_auto(sweep_folder):
    results = load_results(sweep_folder(axes={"widths": [(8, 16), (16, 32)], "norm": ["none", "batch"]}, seeds=2))
    recipe = results.recipe(6)
    assert (recipe["widths"], recipe["norm"], recipe["seed"]) == ([16, 32], "batch", 0)
    assert (recipe["lr"], recipe["image_size"]) == (0.02, 16)


def test_draws_are_arms_and_have_their_recipes(sweep_folder):
    samples = Samples({"widths": [(8, 16), (16, 32)], "lr": Range(0.01, 0.3, log=True)}, 3)
    results = load_results(sweep_folder(axes={"norm": ["none", "batch"]}, samples=samples, seeds=2))
    assert [arm.name for arm in results.arms] == list(dict.fromkeys(results.runs["arm"]))
    assert all(arm.seeds == 2 for arm in results.arms)
    recipe = results.recipe(11)
    last = samples.points[-1]
    assert (recipe["widths"], recipe["norm"], recipe["seed"]) == (list(last["widths"]), "batch", 1)


def listed(tasks=("synthetic",), **fields):
    """Arms given one by one: the recipe with each of these tasks and, apart from that, with each of these values."""
    arms = [{"task": task} for task in tasks] + [{name: v} for name, values in fields.items() for v in values]
    same = {"task": tasks[0], "lr": 0.02, "norm": "batch"}
    same = {name: same[name] for name in same if any(name in arm for arm in arms)}
    draws = [same | arm for arm in arms]
    return Samples({name: list(dict.fromkeys(draw[name] for draw in draws)) for name in same}, draws)


def test_arms_that_were_listed_are_called_after_what_differs_from_the_recipe(sweep_folder):
    recipe = Recipe(task="synthetic", norm="batch", lr=0.02)
    out = sweep_folder(axes={}, samples=listed(norm=["none", "group"], lr=[0.1]), recipe=recipe, seeds=2)
    results = load_results(out)
    assert results.listed and results.headings == ["arm"]
    expected = ["the recipe", "norm=none", "norm=group", "lr=0.1"]
    assert [results.label(arm.name) for arm in results.arms] == expected
    assert [results.cells(arm) for arm in results.arms] == [[label] for label in expected]


@pytest.mark.parametrize(
    ("axes", "samples"),
    [
        ({"norm": ["none", "batch"]}, Samples()),
        ({}, Samples({"norm": ["none", "batch", "layer"]}, 2)),
        ({"depth": [1, 2]}, listed(norm=["none"])),
        ({}, Samples({"lr": Range(0.01, 0.3)}, [{"lr": 0.02}, {"lr": 0.05}])),
    ],
)
def test_other_arms_keep_their_names(sweep_folder, axes, samples):
    results = load_results(sweep_folder(axes=axes, samples=samples, seeds=1))
    assert not results.listed and results.headings == list(results.axes)
    assert [results.label(arm.name) for arm in results.arms] == [arm.name for arm in results.arms]
    assert [results.cells(arm) for arm in results.arms] == [list(arm.values.values()) for arm in results.arms]


def test_a_task_is_called_after_what_is_planted_otherwise(sweep_folder):
    base = "synthetic?train=0.5&noise=rising:0.2&noise=falling:0.2"
    others = {
        "synthetic?train=0.25&noise=rising:0.2&noise=falling:0.2": "task with train=0.25",
        "synthetic?train=0.5": "task without noise",
        "synthetic?train=0.5&noise=rising:0.2": "task without noise=falling:0.2",
        "synthetic?noise=rising:0.1": "task with noise=rising:0.1, without train&noise=rising:0.2&noise=falling:0.2",
        "synthetic": "task without train&noise",
        "mnist-mini?train=0.5": "task=mnist-mini?train=0.5",
    }
    out = sweep_folder(axes={}, samples=listed((base, *others)), recipe=Recipe(task=base), seeds=1)
    results = load_results(out)
    assert [results.label(arm.name) for arm in results.arms] == ["the recipe", *others.values()]


def test_confusion_counts_every_test_image(sweep_folder):
    results = load_results(sweep_folder())
    counts = results.confusion(0)
    assert counts.sum() == 120
    assert np.trace(counts) / 120 == pytest.approx(results.row(0)["test_accuracy"])


def test_a_run_without_predictions_has_no_confusion(sweep_folder):
    assert load_results(sweep_folder(axes={}, predictions=False)).confusion(0) is None


def test_a_large_sweep_shows_the_best_run_whose_predictions_were_kept(sweep_folder):
    out = sweep_folder(axes={"norm": ["none", "batch"]})
    best = load_results(out).best_run
    predictions = pd.read_parquet(out / "predictions.parquet")
    put(out, "predictions", predictions[predictions["run"] != best])
    results = load_results(out)
    assert results.best_run == best
    others = results.runs[results.runs["run"] != best]
    assert results.row(results.shown_run)["val_accuracy"] == others["val_accuracy"].max()


@pytest.mark.parametrize("missing", ["sweep.json", "runs.parquet"])
def test_a_folder_without_a_sweep_is_named(sweep_folder, missing):
    out = sweep_folder(axes={}, seeds=1)
    (out / missing).unlink()
    with pytest.raises(UserError, match=rf"{out}.*{missing}"):
        load_results(out)


@pytest.mark.parametrize("broken", ["sweep.json", "runs.parquet", "curves.parquet"])
def test_a_damaged_file_is_named(sweep_folder, broken):
    out = sweep_folder(axes={}, seeds=1)
    (out / broken).write_bytes((out / broken).read_bytes()[:40])
    with pytest.raises(UserError, match=broken):
        load_results(out)


def test_later_keys_of_the_sweep_file_do_no_harm(sweep_folder):
    out = sweep_folder(axes={}, seeds=1)
    write_sweep_file(out, read_sweep_file(out) | {"something_new": 1})
    assert load_results(out).best.name == "base"
