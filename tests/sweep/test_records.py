"""The tables of an output folder, as users' scripts read them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from fishnet.data import load_task
from fishnet.host.parquet import write_table
from fishnet.sweep import Recipe, Sweep, run_sweep
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.history import CURVES, DIVERGED, OK, SUMMARY, History
from fishnet.sweep.store import records, tables
from tests.sweep.conftest import FIGURES, TINY

TABLES = ("runs", "curves", "class_curves", "per_class", "predictions")
COLUMNS = {
    "curves": [
        *("run", "epoch", "train_loss", "train_accuracy", "lr", "grad_norm", "clipped"),
        *(f"val_{name}" for name in SUMMARY),
    ],
    "class_curves": ["run", "epoch", "class", "val_auc", "val_loss", "train_loss"],
    "per_class": ["run", "class", "support", "auc", "auc_low", "auc_high", "recall", "precision"],
}


@pytest.fixture(scope="module")
def task():
    return load_task("synthetic", 8)


def runs_table(sweep: Sweep, history: History | None = None) -> pd.DataFrame:
    runs = sweep.runs()
    history = history or History.empty(len(runs), 2, 4)
    test = np.full((len(runs), len(SUMMARY)), np.nan)
    return records.runs_table(runs, sweep.axes, history, np.full(len(runs), 7), test)


def read_back(table: pd.DataFrame, path) -> pd.DataFrame:
    write_table(path, table, {"sweep": "hash"})
    return pd.read_parquet(path)


@pytest.mark.parametrize(
    ("axes", "values"),
    [
        ({"lr": [0.1, 0.01]}, [0.1, 0.01]),
        ({"lr": ["auto", 0.1]}, ["auto", "0.1"]),
        ({"image_size": [8, "auto"]}, ["8", "auto"]),
        ({"epochs": [1, 2]}, [1, 2]),
        ({"widths": [(16, 32), (8,)]}, ["16-32", "8"]),
        ({"norm_layers": ["all", (1, 3), (2,)]}, ["all", "1-3", "2"]),
        ({"activation": ["relu", "elu"]}, ["relu", "elu"]),
    ],
)
def test_an_axis_is_a_column_of_numbers_or_of_text(tmp_path, axes, values):
    (name,) = axes
    found = read_back(runs_table(Sweep(Recipe(), axes, seeds=2)), tmp_path / "runs.parquet")
    assert found[name].tolist() == [value for value in values for _ in range(2)]
    assert found["arm"].tolist()[::2] == [f"{name}={value}" for value in map(str, values)]


def test_axes_of_several_cohorts_fit_into_one_column(tmp_path):
    """The arms of an axis such as image_size are in cohorts of their own, whose tables are put together."""
    sweep = Sweep(Recipe(), {"image_size": [8, "auto"]}, seeds=1)
    runs = sweep.runs()
    history, test = History.empty(1, 2, 4), np.full((1, len(SUMMARY)), np.nan)
    parts = [records.runs_table([run], sweep.axes, history, np.array([7]), test) for run in runs]
    found = read_back(pd.concat(parts, ignore_index=True), tmp_path / "runs.parquet")
    assert found["image_size"].tolist() == ["8", "auto"]


def test_missing_is_null_and_whole_numbers_stay_whole(tmp_path):
    sweep = Sweep(Recipe(), {}, seeds=3)
    history = History.empty(3, 2, 4)
    history.status[:] = [DIVERGED, OK, OK]
    history.first_bad_step[0] = 17
    history.best_epoch[1:] = [2, 1]
    history.curves[:, :, CURVES.index("val_loss")] = [[9, 8], [1, 2], [3, 4]]
    found = read_back(runs_table(sweep, history), tmp_path / "runs.parquet")
    assert found["first_bad_step"].dtype == found["best_epoch"].dtype == "Int64"
    assert found["first_bad_step"].tolist() == [17, pd.NA, pd.NA]
    assert found["best_epoch"].tolist() == [pd.NA, 2, 1]
    np.testing.assert_array_equal(found["val_loss"], [np.nan, 2, 3])
    assert found["status"].tolist() == ["diverged", "ok", "ok"]
    assert found["run"].dtype == found["params"].dtype == np.int64


def test_curves_have_a_row_for_every_finished_epoch():
    sweep = Sweep(Recipe(), {}, seeds=[4, 2])
    history = History.empty(2, 3, 4)
    history.epochs[:] = [1, 3]
    found = records.curves_table(sweep.runs(), history)
    assert list(zip(found["run"], found["epoch"], strict=True)) == [(0, 1), (1, 1), (1, 2), (1, 3)]
    by_class = records.class_curves_table(sweep.runs(), history, list("abcd"))
    rows = [(0, 1), (1, 1), (1, 2), (1, 3)]
    expected = [(run, epoch, name) for (run, epoch), name in itertools.product(rows, "abcd")]
    assert list(zip(by_class["run"], by_class["epoch"], by_class["class"], strict=True)) == expected


def test_tables_of_no_runs_have_their_columns(task):
    nothing = np.zeros((0, 0, 4), np.float32)
    assert list(records.per_class_table([], task, nothing)) == COLUMNS["per_class"]
    empty = records.predictions_table([], task, "test", nothing)
    assert list(empty) == ["run", "split", "example", "label", *(f"p_{name}" for name in task.classes)]
    assert len(empty) == 0


def test_the_files_of_a_finished_sweep(tiny, task):
    _, result = tiny
    found = {name: pd.read_parquet(result.out / f"{name}.parquet") for name in TABLES}
    assert list(found["runs"]) == [
        *("run", "arm", "seed", "lr", "status", "first_bad_step", "best_epoch", "params", "train_seconds"),
        *FIGURES,
    ]
    for name, columns in COLUMNS.items():
        assert list(found[name]) == columns
    pd.testing.assert_frame_equal(found["runs"], result.runs)
    assert found["runs"]["run"].tolist() == [0, 1, 2, 3]
    assert len(found["curves"]) == 4 * TINY.epochs
    assert len(found["class_curves"]) == 4 * TINY.epochs * 4
    assert len(found["per_class"]) == 4 * 4
    assert found["per_class"]["support"].tolist() == [16] * 16
    predictions = found["predictions"]
    assert len(predictions) == 4 * (64 + 64)
    for split in ("val", "test"):
        rows = predictions[(predictions["run"] == 2) & (predictions["split"] == split)]
        assert rows["example"].tolist() == task.splits[split].tolist()
        assert rows["label"].tolist() == task.labels[task.splits[split]].tolist()


def test_figures_agree_with_predictions_and_curves(tiny):
    """Each table tells the same story: the selected epoch, and its probabilities."""
    _, result = tiny
    curves, predictions = (pd.read_parquet(result.out / f"{name}.parquet") for name in ("curves", "predictions"))
    columns = [name for name in predictions if name.startswith("p_")]
    np.testing.assert_allclose(predictions[columns].sum(axis=1), 1, atol=1e-6)
    for row in result.runs.itertuples():
        mine = curves[curves["run"] == row.run].set_index("epoch")
        assert row.best_epoch == mine["val_loss"].idxmin()
        for name in SUMMARY:
            assert getattr(row, f"val_{name}") == mine.loc[row.best_epoch, f"val_{name}"]
        for split in ("val", "test"):
            shown = predictions[(predictions["run"] == row.run) & (predictions["split"] == split)]
            p = shown[columns].to_numpy(float)
            assert getattr(row, f"{split}_accuracy") == np.mean(p.argmax(1) == shown["label"])
            loss = -np.log(p[np.arange(len(p)), shown["label"]]).mean()
            assert getattr(row, f"{split}_loss") == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_a_large_sweep_keeps_the_predictions_of_the_best_and_the_worst_run_of_each_arm(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PREDICTIONS_FOR_ALL", 5)
    sweep = Sweep(TINY, axes={"optimizer": ["momentum", "adam"]}, seeds=3)
    result = run_sweep(sweep, tmp_path / "out", devices=1)
    kept = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    expected = set()
    for _, rows in result.runs.groupby("arm"):
        order = rows.sort_values(["val_accuracy", "val_loss"], ascending=[False, True])["run"].tolist()
        expected |= {order[0], order[-1]}
    assert set(kept["run"]) == expected
    assert len(pd.read_parquet(tmp_path / "out" / "per_class.parquet")) == 6 * 4


class Reader(Display):
    """Reads the tables whenever training moves on, as a user would who watches a sweep."""

    def __init__(self, out) -> None:
        self.out, self.seen = out, []

    def advance(self, *args) -> None:
        if (self.out / "runs.parquet").exists():
            self.seen.append({name: pd.read_parquet(self.out / f"{name}.parquet") for name in TABLES})


def test_tables_can_be_read_at_any_time_and_hold_every_run_from_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("fishnet.sweep.run.phase.CHECKPOINT_SECONDS", 0.0)
    reader = Reader(tmp_path / "out")
    run_sweep(Sweep(TINY, axes={"momentum": [0.5, 0.9]}, seeds=2), tmp_path / "out", devices=1, display=reader)
    assert reader.seen
    for found in reader.seen:
        assert found["runs"]["run"].tolist() == [0, 1, 2, 3]
        assert set(found["runs"]["status"]) <= {"running", "ok"}
        assert (found["runs"]["params"] > 0).all()
        assert len(found["curves"]) % 4 == 0
    assert (reader.seen[0]["runs"]["status"] == "running").all()
