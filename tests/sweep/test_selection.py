"""A figure that the validation images leave undefined selects nothing, and no sweep begins that asks it to."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from experiments.predict import explain_no_epoch
from fishnet.data.task import make_task
from fishnet.errors import UsageError
from fishnet.metrics.classification import summary, undefined_metrics
from fishnet.sweep import Recipe, Sweep, run_sweep
from fishnet.sweep.spec.history import DIVERGED, OK, RUNNING
from fishnet.sweep.spec.stopping import Stopping
from fishnet.sweep.spec.validation import check_selection, selection_notes
from fishnet.sweep.store.load import why_unselected

RECIPE = Recipe()
ONE_CLASS = {"train": [0, 1], "val": [0, 0], "test": [0, 1]}


def task_of(labels_of: dict[str, list[int]], classes=("bass", "carp", "eel")):
    labels = np.concatenate([labels_of[split] for split in ("train", "val", "test")])
    ends = np.cumsum([0, *(len(labels_of[split]) for split in ("train", "val", "test"))])
    splits = {split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(("train", "val", "test"))}
    return make_task("lake", np.zeros((len(labels), 8, 8, 3), np.uint8), labels, splits, classes)


def check(labels_of, recipe=RECIPE, **stopping) -> None:
    recipe = dataclasses.replace(recipe, task="lake", image_size=8)
    check_selection([recipe], {("lake", 8): task_of(labels_of)}, Stopping(**stopping))


@pytest.mark.parametrize("labels", [[0, 0, 0], [2], [0, 1, 1], [0, 1, 2], [1, 2, 2, 1]])
def test_which_numbers_are_undefined(labels):
    """Whatever the logits; of the areas under ROC curves scikit-learn says so class by class."""
    logits = np.random.default_rng(0).normal(size=(3, len(labels), 3))
    for one in logits:
        numbers = summary(labels, one)
        assert {name for name, value in numbers.items() if np.isnan(value)} == set(undefined_metrics(labels, 3))
    areas = []
    for c in range(3):
        with np.errstate(all="ignore"):
            both = 0 < np.equal(labels, c).sum() < len(labels)
            areas.append(roc_auc_score(np.equal(labels, c), logits[0][:, c]) if both else np.nan)
    assert (undefined_metrics(labels, 3) == ("macro_auc",)) == np.isnan(areas).all()


def test_what_is_undefined_selects_nothing():
    select = Recipe(select_by="val_macro_auc")
    message = (
        "val_macro_auc is undefined in every epoch: the validation split of lake holds images of bass only and none "
    )
    with pytest.raises(UsageError, match=f"select_by: {message}of carp, eel"):
        check(ONE_CLASS, select)
    with pytest.raises(UsageError, match=f"select_by: {message}"):
        check(ONE_CLASS, select, halving=2)
    with pytest.raises(UsageError, match=f"target: {message}"):
        check(ONE_CLASS, target="val_macro_auc>=0.9")
    check(ONE_CLASS)
    check(ONE_CLASS, target="train_accuracy>=0.9")
    for figure in ("val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_ece"):
        check(ONE_CLASS, Recipe(select_by=figure), target=f"{figure}>=0.5")
    check(ONE_CLASS | {"val": [0, 1]}, select, target="val_macro_auc>=0.9")


def test_figures_that_no_run_has_are_named():
    assert list(selection_notes([task_of(ONE_CLASS)])) == [
        "val_macro_auc: undefined, since the validation split of lake holds images of bass only and none of carp, eel"
    ]
    assert list(selection_notes([task_of(ONE_CLASS | {"val": [0, 2], "test": [1]})])) == [
        "test_macro_auc: undefined, since the test split of lake holds images of carp only and none of bass, eel"
    ]
    assert not list(selection_notes([task_of({"train": [0, 1], "val": [0, 1], "test": [1, 2]})]))


def test_a_folder_whose_validation_has_one_class_is_refused(tmp_path):
    """Before anything is compiled or written: of a class with a single photograph all are trained on."""
    rng = np.random.default_rng(0)
    for name, count in (("bass", 20), ("carp", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    recipe = Recipe(task=f"folder:{tmp_path / 'photos'}", image_size=8, model="mlp", widths=(8,), batch_size=8)
    recipe = dataclasses.replace(recipe, select_by="val_macro_auc")
    with pytest.raises(UsageError, match="holds images of bass only and none of carp"):
        run_sweep(Sweep(recipe, seeds=1), tmp_path / "out", devices=1)
    assert not (tmp_path / "out" / "sweep.json").exists() and not (tmp_path / "out" / "checkpoints").exists()


def test_why_a_run_has_no_selected_epoch():
    def why(status, epochs, bad=-1):
        history = {"status": [status], "epochs": [epochs], "first_bad_step": [bad]}
        return why_unselected({name: np.array(value) for name, value in history.items()}, Recipe())

    assert why(DIVERGED, 1, 7) == "it diverged at step 7, before the end of its first epoch"
    assert why(RUNNING, 0) == "it has not finished an epoch yet"
    assert why(OK, 3) == "its val_loss was undefined in every epoch"
    assert (
        explain_no_epoch(["diverged", "ok", "diverged"]) == "2 diverged, 1 whose select_by was undefined in every epoch"
    )
