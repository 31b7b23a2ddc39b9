"""Stopped at any moment and started again, a sweep ends with exactly the numbers of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fishnet.sweep import run_sweep
from tests.sweep.conftest import FIGURES

SCRIPT = """
import sys
from fishnet.sweep import Recipe, Sweep, run_sweep
from fishnet.sweep.run import cohort

cohort.CHECKPOINT_SECONDS = 0.0  # a checkpoint at every epoch
cohort.CALL_SECONDS = 0.02  # many small calls, so that a stop falls between any two of them
base = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=8, epochs=30, dropout=0.1)
sweep = Sweep(base, axes={"optimizer": ["momentum", "adam"], "norm": ["batch", "layer"]}, seeds=2)
try:
    run_sweep(sweep, sys.argv[1], lane_width=1)
except Exception as error:
    sys.exit(getattr(error, "exit_code", 99))
"""


def start(out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], env=os.environ | {"JAX_PLATFORMS": "cpu"})


def training(out: Path, process: subprocess.Popen) -> bool:
    """Waits until the first checkpoint is there; false when the process ended before."""
    folder = out / "checkpoints" / "cohort_0"
    while process.poll() is None:
        if folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir()):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert start(out).wait(timeout=300) == 0
    return out


def assert_same_results(one: Path, other: Path) -> None:
    a, b = pd.read_parquet(one / "runs.parquet"), pd.read_parquet(other / "runs.parquet")
    for name in [*FIGURES, "run", "arm", "seed", "status", "best_epoch", "first_bad_step", "params"]:
        pd.testing.assert_series_equal(a[name], b[name], check_exact=True)
    for table in ("curves", "class_curves", "per_class", "predictions"):
        a, b = pd.read_parquet(one / f"{table}.parquet"), pd.read_parquet(other / f"{table}.parquet")
        pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_three_kills_change_nothing(undisturbed, tmp_path):
    out, rng = tmp_path / "out", random.Random(1)
    killed = 0
    for _ in range(3):
        process = start(out)
        if training(out, process):
            time.sleep(rng.uniform(0, 0.6))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed == 3, "the sweep ended before it could be killed three times"
    assert start(out).wait(timeout=300) == 0
    assert_same_results(undisturbed, out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_at_once_and_the_sweep_goes_on(undisturbed, tmp_path, number, code):
    out = tmp_path / "out"
    process = start(out)
    assert training(out, process)
    sent = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert time.monotonic() - sent < 10
    assert (pd.read_parquet(out / "runs.parquet").status == "running").any()
    if number == signal.SIGTERM:  # both are handled alike; a process takes long to start
        assert start(out).wait(timeout=300) == 0
        assert_same_results(undisturbed, out)


def test_finished_sweep_changes_nothing(tiny):
    sweep, result = tiny
    before = {p: p.stat().st_mtime_ns for p in result.out.rglob("*") if p.is_file()}
    again = run_sweep(sweep, result.out)
    assert again.finished
    pd.testing.assert_frame_equal(again.runs, result.runs, check_exact=True)
    assert {p: p.stat().st_mtime_ns for p in result.out.rglob("*") if p.is_file()} == before
