"""Pretraining inside a sweep: lanes equal their solo runs, and go on where they were stopped."""

import dataclasses
import signal

import numpy as np
import pandas as pd
import pytest

from fishnet.sweep import Interrupted, Sweep, run_sweep
from fishnet.sweep.run import phase
from fishnet.sweep.run.progress import Display
from tests.sweep.conftest import TINY, assert_same_run, trained

BASE = dataclasses.replace(TINY, epochs=1, pretrain_epochs=2)
AXES = {"pretrain": ["none", "autoencoder"], "pretrain_epochs": [2, 3], "activation": ["relu", "elu"]}


class Stages(Display):
    """Remembers what is said to be done, and sends this process a signal at one of them."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.stop_at, self.seen = stop_at, []

    def stage(self, text: str) -> None:
        self.seen.append(text)
        if text == self.stop_at:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    display = Stages()
    sweep = Sweep(BASE, axes=AXES, seeds=1)
    return sweep, run_sweep(sweep, tmp_path_factory.mktemp("pretrained") / "out", display=display), display


@pytest.mark.slow
def test_runs_without_pretraining_are_as_they_were(pretrained, tmp_path):
    sweep, result, _ = pretrained
    alone = run_sweep(Sweep(dataclasses.replace(BASE, pretrain_epochs=10, activation="elu"), seeds=1), tmp_path / "out")
    for run, values in enumerate(sweep.arms()):
        if values["pretrain"] == "none" and values["activation"] == "elu":
            a, b = trained(result.out)["lanes"]["params"], trained(alone.out)["lanes"]["params"]
            np.testing.assert_array_equal(a["dense_0"]["kernel"][run], b["dense_0"]["kernel"][0])


@pytest.mark.slow
def test_a_pretrained_lane_equals_its_solo_run_bit_for_bit(pretrained, tmp_path):
    sweep, result, _ = pretrained
    run = next(r for r in sweep.runs() if r.values["pretrain"] == "autoencoder" and r.recipe.pretrain_epochs == 3)
    alone = run_sweep(Sweep(run.recipe, seeds=[0]), tmp_path / "out", devices=1)
    assert_same_run(result.out, run.index, alone.out, 0)


def test_curves_of_pretraining(pretrained):
    sweep, result, display = pretrained
    curves = pd.read_parquet(result.out / "pretrain_curves.parquet")
    expected = [
        (r.index, e + 1) for r in sweep.runs() if r.recipe.pretrain != "none" for e in range(r.recipe.pretrain_epochs)
    ]
    assert list(zip(curves["run"], curves["epoch"], strict=True)) == expected
    loss = curves.set_index(["run", "epoch"])["loss"]
    assert all(loss[run][epochs] < loss[run][1] for run, epochs in loss.groupby("run").size().items())
    assert curves["solved"].isna().all()  # an autoencoder has nothing to get right or wrong
    assert "pretraining: autoencoder, epoch 3 of 3" in display.seen
    assert not list((result.out / "checkpoints").glob("*autoencoder*"))


def test_a_stopped_pretraining_goes_on(pretrained, tmp_path, monkeypatch):
    sweep, result, _ = pretrained
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "out", display=Stages("pretraining: autoencoder, epoch 2 of 3"))
    again = Stages()
    run_sweep(sweep, tmp_path / "out", display=again)
    assert "pretraining: autoencoder, epoch 1 of 3" not in again.seen
    assert "pretraining: autoencoder, epoch 3 of 3" in again.seen
    for run in range(len(sweep.runs())):
        assert_same_run(result.out, run, tmp_path / "out", run)


@pytest.mark.slow
def test_a_run_that_diverges_in_pretraining_says_so(tmp_path):
    recipe = dataclasses.replace(BASE, pretrain="autoencoder", norm="none", activation="identity", pretrain_epochs=1)
    result = run_sweep(Sweep(recipe, axes={"pretrain_lr": [1e-6, 1e6]}, seeds=1), tmp_path / "out", devices=1)
    assert list(result.runs["status"]) == ["ok", "diverged"]
    assert result.runs["first_bad_step"][1] == 0
