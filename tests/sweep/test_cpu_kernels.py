"""Sweeps with the compiled kernels for CPU."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UserError
from fishnet.nn.cpu import library
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from tests.sweep.conftest import Stopper, assert_same_results, assert_same_run

BASE = Recipe(task="synthetic", image_size=8, model="cnn", widths=(8,), batch_size=32, epochs=2)
SWEEP = Sweep(BASE, axes={"activation": ["relu", "elu"], "norm": ["none", "batch"]}, seeds=1)


@pytest.fixture(scope="module")
def swept(kernels, tmp_path_factory):
    return run_sweep(SWEEP, tmp_path_factory.mktemp("kernels") / "out", lowering="cpu_kernels")


@pytest.mark.slow
def test_a_lane_equals_its_solo_run_and_other_lowerings_nearly(swept, tmp_path):
    chosen = SWEEP.runs()[3]
    solo = Sweep(dataclasses.replace(chosen.recipe, seed=0), seeds=[chosen.recipe.seed])
    run_sweep(solo, tmp_path / "alone", lowering="cpu_kernels", devices=1)
    assert_same_run(swept.out, 3, tmp_path / "alone", 0)
    run_sweep(solo, tmp_path / "other", lowering="gemm", devices=1)
    losses = [pd.read_parquet(tmp_path / name / "curves.parquet")["train_loss"] for name in ("alone", "other")]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_a_loaded_network_needs_no_kernels(swept):
    run = load_run(swept.out, run=1)
    assert not run.model.fused
    assert np.isfinite(run.model.apply(run.variables, np.zeros((1, 8, 8, 3), np.uint8), train=False)).all()


def test_what_cannot_be_had_is_refused_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "_OUTCOMES", {"auto": "there is no C++ compiler here"})
    monkeypatch.delenv(library.VARIABLE, raising=False)
    with pytest.raises(UserError, match="cpu_kernels cannot be used: there is no C\\+\\+ compiler here"):
        run_sweep(SWEEP, tmp_path / "out", lowering="cpu_kernels")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_with_its_kernels_or_not_at_all(swept, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="stopped by SIGTERM"):
        run_sweep(SWEEP, out, lowering="cpu_kernels", display=Stopper(2.0))
    with monkeypatch.context() as patch:
        patch.setattr(library, "_OUTCOMES", {"auto": "there is no C++ compiler here"})
        patch.delenv(library.VARIABLE, raising=False)
        with pytest.raises(UserError, match=r"cpu_kernels cannot be used: there is no C\+\+ compiler here"):
            run_sweep(SWEEP, out)
    run_sweep(SWEEP, out)
    assert_same_results(swept.out, out)
