"""Sweeps as people write them: several programs, runs that end at different times, functions of one's own."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest

from fishnet.data import load_task
from fishnet.data.task import make_task
from fishnet.data.tasks import TASKS, Source
from fishnet.errors import UserError
from fishnet.nn.activations import ACTIVATIONS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep import Interrupted, Sweep, load_run, run_sweep
from fishnet.sweep.run.supervised import SupervisedPhase
from tests.sweep.conftest import FIGURES, TINY, Stopper, contents, trained

FLAT = dataclasses.replace(TINY, norm="none", activation="identity", optimizer="sgd")


def swish(x):
    """An activation of the user's own."""
    return x * jax.nn.sigmoid(1.5 * x)


@pytest.fixture(scope="module")
def other():
    """A second task of the same shapes, so that its program is compiled already; known by name in this module."""
    synthetic = load_task("synthetic", 8)
    task = make_task("other", 255 - synthetic.images, synthetic.labels, synthetic.splits, ["-", "\\", "|", "/"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "other", Source(lambda request: task, (8,), 8))
        yield task


@pytest.fixture(scope="module")
def several(other, tmp_path_factory):
    """Two programs; in each, runs of one and of three epochs."""
    axes = {"task": ["synthetic", "other"], "activation": ["relu", "elu"], "epochs": [1, 3]}
    sweep = Sweep(TINY, axes=axes, seeds=1)
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("several") / "out", devices=1)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A sweep with an activation of the user's own."""
    sweep = Sweep(TINY, axes={"activation": ["relu", "mine"]}, seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ACTIVATIONS, "mine", swish)
        yield sweep, run_sweep(sweep, tmp_path_factory.mktemp("own") / "out", devices=1)


def test_every_run_is_there_once_and_trains_for_its_own_epochs(several):
    sweep, result = several
    assert result.programs == 2
    assert result.runs["run"].tolist() == list(range(8))
    assert (result.runs["status"] == "ok").all()
    assert result.runs["arm"].tolist() == [run.arm for run in sweep.runs()]
    curves = pd.read_parquet(result.out / "curves.parquet")
    for row in result.runs.itertuples():
        mine = curves[curves["run"] == row.run]
        assert mine["epoch"].tolist() == list(range(1, row.epochs + 1))
        assert mine["lr"].iloc[-1] < 0.05 * OPTIMIZERS["momentum"].default_lr  # each has a schedule of its own length
    for table in ("per_class", "predictions", "class_curves"):
        assert set(pd.read_parquet(result.out / f"{table}.parquet")["run"]) == set(range(8))


@pytest.mark.slow
def test_a_run_of_its_own_length_equals_that_run_alone(several, tmp_path):
    """Runs that go on longer change nothing of one that ends first, nor do runs of other programs."""
    sweep, result = several
    short = sweep.runs()[2].recipe
    alone = run_sweep(Sweep(dataclasses.replace(short, seed=0), seeds=1), tmp_path / "out", devices=1)
    pd.testing.assert_frame_equal(
        alone.runs[FIGURES], result.runs.iloc[[2]][FIGURES].reset_index(drop=True), check_exact=True
    )


def test_tasks_share_the_tables_and_each_run_has_the_columns_of_its_own_classes(several, other):
    _, result = several
    table = pd.read_parquet(result.out / "predictions.parquet")
    for row in result.runs.itertuples():
        task = other if row.task == "other" else load_task("synthetic", 8)
        rows = table[table["run"] == row.run]
        filled = {column for column in rows if column.startswith("p_") and rows[column].notna().all()}
        assert filled == {f"p_{name}" for name in task.classes}
        assert len(rows) == 64 + 64
        loaded = load_run(result.out, row.run)
        assert loaded.classes == task.classes
        np.testing.assert_array_equal(loaded.variables["constants"]["standardize"]["mean"], task.mean)


def test_a_function_of_the_users_own_is_trained_and_loaded(own):
    _, result = own
    task = load_task("synthetic", 8)
    assert result.runs["val_loss"].nunique() == 4
    loaded = load_run(result.out, 3)
    assert loaded.model.act is swish
    table = pd.read_parquet(result.out / "predictions.parquet")
    table = table[table["run"] == 3]
    logits = loaded.model.apply(loaded.variables, task.images[table["example"]], train=False)
    expected = table[[f"p_{name}" for name in task.classes]].to_numpy()
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)


def test_another_function_under_the_same_name_is_another_sweep(own, monkeypatch):
    sweep, result = own
    monkeypatch.setitem(ACTIVATIONS, "mine", lambda x: x * jax.nn.sigmoid(1.7 * x))
    with pytest.raises(UserError, match="holds another sweep"):
        run_sweep(sweep, result.out, devices=1)


@pytest.mark.parametrize("after", [pytest.param(3.0, marks=pytest.mark.slow), 10.5])
def test_a_sweep_of_several_programs_goes_on_where_it_stopped(several, tmp_path, after):
    """Stopped in its first program, or in its second: the rows of the other are neither lost nor repeated."""
    sweep, result = several
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run_sweep(sweep, out, devices=1, display=Stopper(after))
    half = pd.read_parquet(out / "runs.parquet")
    assert half["run"].tolist() == list(range(8))
    assert (half["status"] == "running").any()
    again = run_sweep(sweep, out, devices=1)
    pd.testing.assert_frame_equal(
        again.runs.drop(columns="train_seconds"), result.runs.drop(columns="train_seconds"), check_exact=True
    )
    for table in ("curves", "class_curves", "per_class", "predictions"):
        one, other = (pd.read_parquet(folder / f"{table}.parquet") for folder in (out, result.out))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_tables_of_finished_programs_stay_while_a_resumed_sweep_goes_through_them(several, tmp_path):
    sweep, result = several
    out = shutil.copytree(result.out, tmp_path / "out")
    (out / "runs.parquet").unlink()  # finished, but one table is lost: all is gone through again
    seen = []

    class Watcher(Stopper):
        def stage(self, text):
            seen.append(set(pd.read_parquet(out / "predictions.parquet")["run"]))

    run_sweep(sweep, out, devices=1, display=Watcher(np.inf))
    assert len(seen) >= 2 and all(runs == set(range(8)) for runs in seen)


def test_patience_ends_a_run_and_only_that_run(tmp_path):
    base = dataclasses.replace(TINY, epochs=5, patience=2, select_by="val_accuracy")
    # With such a rate nothing ever changes: the first epoch stays the best.
    result = run_sweep(Sweep(base, axes={"lr": [1e-12, 0.3]}, seeds=2), tmp_path / "out", devices=1)
    curves = pd.read_parquet(tmp_path / "out" / "curves.parquet")
    epochs = curves.groupby("run")["epoch"].max()
    for run in (0, 1):
        assert (result.runs.loc[run, "best_epoch"], epochs[run]) == (1, 3)
        assert result.runs.loc[run, "status"] == "ok"
    for run in (2, 3):
        values = curves[curves["run"] == run]["val_accuracy"].to_numpy()
        best = int(result.runs.loc[run, "best_epoch"])
        assert values[best - 1] == values.max()
        assert epochs[run] == min(5, best + 2)
        assert best > 1
    assert result.runs["test_accuracy"].notna().all()


def test_when_every_lane_diverges_the_sweep_ends_and_says_so(tmp_path):
    result = run_sweep(Sweep(FLAT, axes={"lr": [1e5, 1e6]}, seeds=2), tmp_path / "out", devices=1)
    assert (result.runs["status"] == "diverged").all()
    assert result.runs["first_bad_step"].between(1, 7).all()
    assert result.runs["best_epoch"].isna().all()
    assert result.runs[FIGURES].isna().all(axis=None)
    names = ("curves", "per_class", "predictions")
    found = {name: pd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in names}
    assert found["curves"]["epoch"].tolist() == [1] * 4
    assert found["curves"]["val_loss"].isna().all()
    assert len(found["per_class"]) == len(found["predictions"]) == 0
    with pytest.raises(UserError, match="has no selected epoch"):
        load_run(tmp_path / "out", 0)
    before = contents(tmp_path / "out")
    assert run_sweep(Sweep(FLAT, axes={"lr": [1e5, 1e6]}, seeds=2), tmp_path / "out", devices=1).finished
    assert contents(tmp_path / "out") == before


def test_validation_figures_that_are_not_numbers_select_nothing(tmp_path, monkeypatch):
    """An update that overflows in the very last step shows in no training loss, only in the validation."""
    usual = SupervisedPhase.evaluate

    def evaluate(self, split, runs, best=False):
        logits = usual(self, split, runs, best)
        if not best and self.epoch == 2:
            logits[np.asarray(runs) == 1] = np.nan
        if not best and self.epoch == 1:
            logits[np.asarray(runs) == 2] = np.inf
        return logits

    monkeypatch.setattr(SupervisedPhase, "evaluate", evaluate)
    result = run_sweep(Sweep(TINY, axes={"lr": [0.1, 0.2]}, seeds=2), tmp_path / "out", devices=1)
    curves = pd.read_parquet(tmp_path / "out" / "curves.parquet").set_index(["run", "epoch"])
    assert result.runs["status"].tolist() == ["ok", "diverged", "ok", "ok"]
    assert result.runs["first_bad_step"].tolist() == [pd.NA, 24, pd.NA, pd.NA]
    assert result.runs["best_epoch"][1] in (1, 2)
    assert result.runs["best_epoch"][2] in (1, 3)
    assert np.isnan(curves.loc[(1, 3), "val_loss"])
    assert np.isnan(curves.loc[(2, 2), "val_loss"])
    assert np.isfinite(result.runs[FIGURES].to_numpy()).all()


def test_one_run_alone(tmp_path):
    result = run_sweep(Sweep(TINY, seeds=[11]), tmp_path / "out")
    assert result.runs[["run", "arm", "seed", "status"]].to_numpy().tolist() == [[0, "base", 11, "ok"]]


QUIET = """
import sys
import time
import jax
jax.config.update("jax_num_cpu_devices", 2)
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
base = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=32, epochs=3)
run_sweep(Sweep(base, seeds=2), sys.argv[1], devices=1)
load_run(sys.argv[1], run=1)
"""


@pytest.mark.slow
def test_a_quiet_sweep_says_nothing_at_all(tmp_path):
    """No log lines of Orbax, absl or XLA either."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", QUIET, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_signal_before_training_ends_at_once_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("fishnet.sweep.run.inputs.load_tasks", lambda *args: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped by SIGINT; nothing was lost") as stop:
        run_sweep(Sweep(TINY, seeds=1), tmp_path / "out")
    assert stop.value.exit_code == 130
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_during_validation_is_obeyed_between_calls_and_changes_no_number(tiny, tmp_path, monkeypatch):
    sweep, result = tiny
    usual, calls = SupervisedPhase.stop_if_asked, []

    def stop_if_asked(self):
        calls.append(sys._getframe(1).f_code.co_name)
        if calls[-1] == "call_groups" and not any(self.history.epochs):
            self.interrupt.number = self.interrupt.number or signal.SIGTERM
        usual(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped by SIGTERM; saved"):
        patch.setattr(SupervisedPhase, "stop_if_asked", stop_if_asked)
        run_sweep(sweep, tmp_path / "out", devices=1)
    assert calls[-1] == "call_groups"
    state = trained(tmp_path / "out")["history"]
    assert (state["steps"] == 8).all()
    assert (state["epochs"] == 0).all()
    again = run_sweep(sweep, tmp_path / "out", devices=1)
    pd.testing.assert_frame_equal(again.runs[FIGURES], result.runs[FIGURES], check_exact=True)


COMPILING = """
import signal, sys, threading
from fishnet.sweep import Recipe, Sweep, run_sweep
from fishnet.sweep.run.progress import Display

class Impatient(Display):
    def stage(self, text):
        if "compiling" in text:
            threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM]).start()

base = Recipe(task="synthetic", image_size=8, model="cnn", widths=(8, 16), batch_size=16)
try:
    run_sweep(Sweep(base, seeds=1), sys.argv[1], display=Impatient())
except Exception as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
def test_a_signal_while_the_compiler_is_at_work_is_obeyed(tmp_path):
    """Python cannot stop the compiler's threads; it must not wait for them either, nor crash on them."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COMPILING, str(tmp_path / "out")], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert time.monotonic() - began < 60
    assert sorted(contents(tmp_path / "out")) == [".lock", "sweep.json"]
