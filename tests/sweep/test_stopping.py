"""Arms that end early: the rules by hand, and sweeps whose survivors know nothing of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UsageError
from fishnet.sweep import Interrupted, Stopping, Sweep, run_sweep
from fishnet.sweep.spec.history import CURVES, RUNNING, STOPPED, History
from fishnet.sweep.spec.stopping import ArmStopper, parse_target
from tests.sweep.conftest import TINY, Stopper, assert_same_run

LOSS = CURVES.index("val_loss")


def history_of(losses: list[list[float]], epochs: int = 9) -> History:
    """Runs that have these validation losses, epoch by epoch."""
    history = History.empty(len(losses), epochs, 2)
    for run, values in enumerate(losses):
        history.curves[run, : len(values), LOSS] = values
        history.epochs[run] = len(values)
    return history


def stopped(stopping: Stopping, losses: list[list[float]], arms: list[str] | None = None, referee=None) -> list[int]:
    history = history_of(losses)
    names = arms or [f"arm {run}" for run in range(len(losses))]
    (referee or ArmStopper(stopping, "val_loss")).judge(names, history, [9] * len(losses))
    return np.flatnonzero(history.status == STOPPED).tolist()


def test_of_the_arms_at_a_rung_one_in_eta_goes_on():
    losses = [[5.0], [1.0], [4.0], [2.0], [3.0], [6.0], [7.0]]
    assert stopped(Stopping(halving=3), losses) == [0, 2, 5, 6]
    assert stopped(Stopping(halving=7), losses) == [0, 2, 3, 4, 5, 6]
    assert stopped(Stopping(halving=3, first=2), losses) == []


@pytest.mark.parametrize(("first", "eta", "rungs"), [(1, 2, [1, 2, 4, 8]), (2, 3, [2, 6, 18]), (3, 3, [3, 9])])
def test_rungs_are_powers_of_eta(first, eta, rungs):
    stopping = Stopping(halving=eta, first=first)
    assert [e for e in range(1, 20) if stopping.is_rung(e)][: len(rungs)] == rungs


def test_equals_are_not_ended_by_each_other():
    assert stopped(Stopping(halving=2), [[1.0], [1.0], [1.0]]) == []
    assert stopped(Stopping(median=True), [[1.0], [1.0], [1.0]]) == []


def test_an_arm_is_the_mean_of_its_seeds_and_ends_as_a_whole():
    losses, arms = [[1.0], [9.0], [4.0], [4.0]], ["a", "a", "b", "b"]
    assert stopped(Stopping(halving=2), losses, arms) == [0, 1]


def test_a_seed_without_a_metric_does_not_count():
    assert stopped(Stopping(halving=2), [[1.0], [np.nan], [4.0], [4.0]], ["a", "a", "b", "b"]) == [2, 3]


def test_the_median_is_of_the_others_mean_metrics():
    # The best so far of the first, 4, against means of 3.5, 5 and 7.
    losses = [[6.0, 4.0], [4.0, 3.0], [6.0, 4.0], [9.0, 5.0]]
    assert stopped(Stopping(median=True), losses) == []
    assert stopped(Stopping(median=True), [[6.0, 5.1], *losses[1:]]) == [0]
    assert stopped(Stopping(median=True, first=3), [[6.0, 5.1], *losses[1:]]) == []


def test_later_programs_are_compared_with_all_that_came_before():
    stopping = Stopping(halving=2)
    referee = ArmStopper(stopping, "val_loss")
    assert stopped(stopping, [[1.0], [2.0]], ["a", "b"], referee) == [1]
    assert stopped(stopping, [[3.0], [4.0]], ["c", "d"], referee) == [0, 1]
    assert stopped(stopping, [[0.5]], ["e"], referee) == []


@pytest.mark.parametrize(
    ("target", "values", "ends"),
    [("val_loss<=2", [3.0, 2.0], True), ("val_loss<=1.9", [3.0, 2.0], False), ("val_loss >= 3", [3.0, 2.0], True)],
)
def test_an_arm_ends_when_its_target_is_reached(target, values, ends):
    assert stopped(Stopping(target=target), [values]) == ([0] if ends else [])


def test_the_last_epoch_is_nobodys_to_end():
    history = history_of([[1.0], [2.0]], epochs=1)
    ArmStopper(Stopping(halving=2, target="val_loss<=5"), "val_loss").judge(["a", "b"], history, [1, 1])
    assert (history.status == RUNNING).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"halving": 1}, "neither 0"),
        ({"halving": -2}, "neither 0"),
        ({"first": 0}, "at least 1 epoch"),
        ({"target": "val_accuracy"}, "is not METRIC>=X"),
        ({"target": "val_accuracy>=much"}, "is not METRIC>=X"),
        ({"target": "accuracy>=0.8"}, "unknown target metric 'accuracy'"),
        ({"target": "val_loss<=nan"}, "is not METRIC>=X"),
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Stopping(**arguments)


def test_arms_must_be_compared_by_one_metric():
    with pytest.raises(UsageError, match="one metric"):
        Sweep(TINY, {"select_by": ["val_loss", "val_accuracy"]}, 1, Stopping(halving=2))


def test_a_target_says_what_it_wants():
    assert parse_target("val_ece <= 1e-2") == ("val_ece", False, 0.01)


def test_what_ends_arms_is_part_of_what_a_sweep_is_and_nothing_else_is_changed():
    plain = Sweep(TINY, {"lr": [0.1, 0.2]})
    assert plain.hash() == Sweep(TINY, {"lr": [0.1, 0.2]}, stopping=Stopping()).hash()
    assert plain.hash() != Sweep(TINY, {"lr": [0.1, 0.2]}, stopping=Stopping(median=True)).hash()


AXES = {"lr": [0.001, 0.01, 0.03, 0.1, 0.2, 0.3]}
BASE = dataclasses.replace(TINY, epochs=5, optimizer="sgd")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_sweep(Sweep(BASE, AXES, 1), tmp_path_factory.mktemp("whole") / "out", devices=1)


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    sweep = Sweep(BASE, AXES, 1, Stopping(halving=2))
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("halved") / "out", devices=1)


def test_survivors_equal_those_of_the_whole_sweep_bit_for_bit(whole, halved):
    table = halved[1].runs
    assert table.status.tolist().count("ok") == 1
    assert set(table.status) == {"ok", "stopped"}
    (survivor,) = table.run[table.status == "ok"]
    assert_same_run(halved[1].out, survivor, whole.out, survivor)


def test_the_stopped_have_the_figures_of_their_best_epoch_so_far(whole, halved):
    full, curves = (pd.read_parquet(out / "curves.parquet") for out in (whole.out, halved[1].out))
    done = curves.groupby("run").epoch.max()
    assert sorted(done) == [1, 1, 1, 2, 4, 5]  # six, three, two, one
    same = curves.merge(full, on=["run", "epoch"], suffixes=("", "_whole"))
    assert len(same) == len(curves)
    np.testing.assert_array_equal(same.val_loss, same.val_loss_whole)
    assert halved[1].runs.test_accuracy.notna().all()


def test_a_halved_sweep_that_was_stopped_goes_on_to_the_same_end(halved, tmp_path, monkeypatch):
    sweep, result = halved
    monkeypatch.setattr("fishnet.sweep.run.phase.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "out", devices=1, display=Stopper(20.0))
    again = run_sweep(sweep, tmp_path / "out", devices=1)
    assert again.runs.status.tolist() == result.runs.status.tolist()
    for run in range(len(again.runs)):
        assert_same_run(again.out, run, result.out, run)
