"""Optuna's trials as arms of sweeps: what it is told, and calls that are made again."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UsageError, UserError
from fishnet.sweep import Interrupted, Range
from tests.sweep.conftest import TINY

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")

from fishnet.contrib import optuna_study  # noqa: E402 - needs optuna
from fishnet.contrib.optuna_study import report_arm, study_sweeps  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)
BASE = dataclasses.replace(TINY, epochs=2)
SPACE = {"lr": Range(0.001, 0.3, log=True), "batch_size": [32], "patience": Range(0, 1)}
COMPLETE, PRUNED, FAIL, RUNNING = (
    getattr(optuna.trial.TrialState, name) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
)


def study_of(seed=None, storage=None, direction="minimize"):
    sampler = optuna.samplers.RandomSampler(seed)
    return optuna.create_study(
        sampler=sampler, storage=storage, study_name="fish", load_if_exists=True, direction=direction
    )


def sweeps(study, out, **options):
    options = {"space": SPACE, "seeds": 2, "batch": 3, "rounds": 2} | options
    return study_sweeps(study, BASE, out=out, devices=1, **options)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Two rounds of three trials with a seeded sampler, their results and folder."""
    out, study = tmp_path_factory.mktemp("studied"), study_of(0)
    return study, sweeps(study, out), out


def test_a_trial_is_told_the_mean_validation_figure_of_its_seeds_and_its_curve(studied):
    study, results, out = studied
    assert [trial.state for trial in study.trials] == [COMPLETE] * 6
    for trial in study.trials:
        result = results[trial.number // 3]
        assert result.out == out / f"round_00{trial.number // 3}"
        rows = result.runs[np.isclose(result.runs.lr, trial.params["lr"], rtol=1e-12)]
        assert len(rows) == 2
        assert trial.value == pytest.approx(rows.val_loss.mean(), rel=1e-12)
        curves = pd.read_parquet(result.out / "curves.parquet")
        means = curves[curves.run.isin(rows.run)].groupby("epoch").val_loss.mean()
        assert trial.intermediate_values == pytest.approx(means.to_dict())
    assert all(result.programs == 1 and len(result.runs) == 6 for result in results)


def test_the_same_proposals_are_told_again_from_their_folders(studied, monkeypatch):
    study, _, out = studied
    monkeypatch.setattr("fishnet.sweep.run.sweep.run_job", None)  # nothing may be trained
    again = study_of(0)
    assert all(result.finished for result in sweeps(again, out))
    assert [(t.params, t.value, t.intermediate_values) for t in again.trials] == [
        (t.params, t.value, t.intermediate_values) for t in study.trials
    ]
    assert sweeps(again, out) == []  # all are told
    with pytest.raises(UserError, match="round_000 holds other arms than this study proposes"):
        sweeps(study_of(1), out)


def test_a_stored_study_that_was_cut_off_goes_on(studied, tmp_path, monkeypatch):
    """Whoever goes on has another sampler and another batch: what was asked for is trained all the same."""
    storage, run = f"sqlite:///{tmp_path / 'study.db'}", optuna_study.run_sweep

    def cut_off(sweep, out, *arguments, **options):
        result = run(sweep, out, *arguments, **options)
        if out.name == "round_001":
            raise Interrupted(15, "saved")
        return result

    monkeypatch.setattr(optuna_study, "run_sweep", cut_off)
    with pytest.raises(Interrupted):
        sweeps(study_of(0, storage), tmp_path / "out")
    assert [trial.state for trial in study_of(1, storage).trials] == [COMPLETE] * 3 + [RUNNING] * 3
    monkeypatch.setattr(optuna_study, "run_sweep", run)
    (result,) = sweeps(study_of(1, storage), tmp_path / "out", batch=5)
    assert result.finished
    known = [(t.params, t.value, t.intermediate_values) for t in studied[0].trials]
    assert [(t.params, t.value, t.intermediate_values) for t in study_of(1, storage).trials] == known


def test_trials_that_ask_for_the_same_are_one_arm(tmp_path):
    study = study_of(0)
    (result,) = sweeps(study, tmp_path, space={"lr": [0.1, 0.01]}, seeds=1, batch=4, rounds=1)
    assert len(result.runs) == 2
    values = {trial.params["lr"]: set() for trial in study.trials}
    for trial in study.trials:
        values[trial.params["lr"]].add(trial.value)
    assert {lr: len(found) for lr, found in values.items()} == {"0.1": 1, "0.01": 1}


@pytest.mark.parametrize(
    ("status", "losses", "state", "value"),
    [
        (["ok", "ok"], [1.0, 3.0], COMPLETE, 2.0),
        (["ok", "diverged"], [1.0, np.nan], PRUNED, 4.0),  # its last intermediate value: Optuna's rule
        (["diverged", "diverged"], [1.0, 1.0], PRUNED, 4.0),
        (["ok", "ok"], [1.0, np.nan], FAIL, None),
    ],
)
def test_what_an_arm_that_ended_badly_is_told_as(status, losses, state, value):
    study = study_of()
    runs = pd.DataFrame({"run": [0, 1], "status": status, "val_loss": losses})
    curves = pd.DataFrame({"run": [0, 1, 0], "epoch": [1, 1, 2], "val_loss": [5.0, 7.0, 4.0]})
    report_arm(study, study.ask(), runs, curves, "val_loss")
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (state, value, {1: 6.0, 2: 4.0})


def test_trials_whose_arms_make_no_sense_are_told_as_failed(tmp_path):
    study = study_of()
    with pytest.raises(UsageError, match="dropout: '2' is not at least 0 and below 1"):
        sweeps(study, tmp_path / "out", space={"dropout": Range(0, 2)})
    assert [trial.state for trial in study.trials] == [FAIL] * 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "study", "message"),
    [
        ({"batch": 0}, {}, "batch: 0 is not at least 1"),
        ({"rounds": 0}, {}, "rounds: 0 is not at least 1"),
        ({"metric": "test_accuracy"}, {}, "unknown metric 'test_accuracy'"),
        ({"metric": "val_accuracy"}, {}, "needs a study with direction maximize, not minimize"),
        ({}, {"direction": "maximize"}, "metric val_loss needs a study with direction minimize, not maximize"),
        ({"space": {"lrr": [1.0]}}, {}, "did you mean 'lr'"),
        ({"space": {"seed": [1]}}, {}, "seed cannot be sampled"),
    ],
)
def test_what_cannot_be_studied_is_refused(tmp_path, options, study, message):
    study = study_of(**study)
    with pytest.raises(UsageError, match=message):
        sweeps(study, tmp_path, **options)
    assert not study.trials
