"""Sweeps with the compiled kernels for CPU."""

import dataclasses
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UserError
from fishnet.nn import conv_implementations
from fishnet.nn.conv_implementations import default_lowering
from fishnet.nn.cpu import library
from fishnet.nn.cpu.compiler import Unavailable
from fishnet.sweep import Recipe, Sweep, load_run, run_sweep
from fishnet.sweep.run import planning
from fishnet.sweep.run.progress import Display
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


@pytest.mark.slow
def test_instruction_sets_train_the_same_bits(kernels, tmp_path):
    """Whole runs, by the same XLA, in a process for each variant."""
    names = [name for name in library.CHOICES if name.startswith("avx")]
    for name in names:
        try:
            library.choose_variant(name)
        except Unavailable as reason:
            pytest.skip(str(reason))
        words = "--task synthetic --image-size 16 --model resnet --widths 8-24 --depth 1 --epochs 2 --seeds 1 --quiet"
        axes = ["--axis", "activation=relu,gelu", "--axis", "norm=batch,group", "--out", str(tmp_path / name)]
        command = [sys.executable, "-m", "experiments.ablation", *words.split(), *axes]
        subprocess.run(command, env=os.environ | {library.VARIABLE: name}, check=True, capture_output=True)
        assert planned_lowerings(tmp_path / name) == ["cpu_kernels"]
    assert_same_results(*(tmp_path / name for name in names))


def test_a_loaded_network_needs_no_kernels(swept):
    run = load_run(swept.out, run=1)
    assert not run.model.fused
    assert np.isfinite(run.model.apply(run.variables, np.zeros((1, 8, 8, 3), np.uint8), train=False)).all()


class Notes(Display):
    """Keeps the notes of the plan."""

    def __init__(self):
        self.shown = []

    def plan(self, view):
        self.shown += view["notes"]


@contextmanager
def without_kernels(monkeypatch, variable="auto"):
    """As on a machine that has no compiler, with this value of the variable."""
    with monkeypatch.context() as patch:
        patch.setattr(library, "_OUTCOMES", {variable: "there is no C++ compiler here"})
        patch.setenv(library.VARIABLE, variable)
        yield


def planned_lowerings(out: Path) -> list[str]:
    return [cohort["lowering"] for cohort in json.loads((out / "sweep.json").read_text())["plan"]]


def test_they_are_the_default_where_they_can_be_had(swept, tmp_path):
    assert default_lowering("cpu") == "cpu_kernels" and default_lowering("gpu") == "native"
    run_sweep(SWEEP, tmp_path / "out")
    assert planned_lowerings(tmp_path / "out") == ["cpu_kernels"]
    assert_same_results(swept.out, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "notes"),
    [
        (
            "auto",
            ["training would be 1.7 to 3 times faster with fishnet's compiled kernels: there is no C++ compiler here"],
        ),
        ("off", []),  # the user knows
    ],
)
def test_without_them_a_sweep_trains_all_the_same(kernels, tmp_path, monkeypatch, variable, notes):
    sweep, display = dataclasses.replace(SWEEP, axes={}, seeds=1), Notes()
    with without_kernels(monkeypatch, variable), pytest.raises(UserError, match="stopped by SIGTERM"):
        run_sweep(sweep, tmp_path / "out", display=Stopper(1.0))
    with without_kernels(monkeypatch, variable):
        run_sweep(sweep, tmp_path / "undisturbed", display=display)
    assert display.shown == notes and planned_lowerings(tmp_path / "undisturbed") == ["winograd"]
    run_sweep(sweep, tmp_path / "out")  # goes on as it began, also where they can be had by now
    assert planned_lowerings(tmp_path / "out") == ["winograd"]
    assert_same_results(tmp_path / "undisturbed", tmp_path / "out")


def test_nothing_is_compiled_for_networks_without_convolutions(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "missing_kernels", lambda note: pytest.fail("compiled"))
    monkeypatch.setattr(conv_implementations, "missing_kernels", lambda: pytest.fail("compiled"))
    mlp = dataclasses.replace(BASE, model="mlp", epochs=1)
    run_sweep(Sweep(mlp, seeds=1), tmp_path / "out")
    assert planned_lowerings(tmp_path / "out") == ["winograd"]


def test_what_cannot_be_had_is_refused_and_nothing_written(tmp_path, monkeypatch):
    with (
        without_kernels(monkeypatch),
        pytest.raises(UserError, match="cpu_kernels cannot be used: there is no C\\+\\+ compiler here"),
    ):
        run_sweep(SWEEP, tmp_path / "out", lowering="cpu_kernels")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_with_its_kernels_or_not_at_all(swept, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="stopped by SIGTERM"):
        run_sweep(SWEEP, out, lowering="cpu_kernels", display=Stopper(2.0))
    with (
        without_kernels(monkeypatch),
        pytest.raises(UserError, match=r"cannot be used: there is no C\+\+ compiler here"),
    ):
        run_sweep(SWEEP, out)
    run_sweep(SWEEP, out)
    assert_same_results(swept.out, out)
