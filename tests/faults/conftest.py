"""Processes that train and can be killed, and a comparison of what they leave behind."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from fishnet.sweep.store.checkpoint import Checkpoints
from tests.faults.driver import LONGEST

ROOT = Path(__file__).parents[2]
TABLES = ("runs", "curves", "class_curves", "per_class", "predictions", "pretrain_curves")


def start(out: Path, *options: str, programs: Path | str) -> subprocess.Popen:
    """A process of `tests.faults.driver`.

    Args:
        out: its folder.
        options: of the driver.
        programs: where compiled programs are kept.
    """
    settings = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(programs)}
    words = [sys.executable, "-m", "tests.faults.driver", str(out), *options]
    return subprocess.Popen(
        words, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen, code: int = 0) -> tuple[list[str], str]:
    """Waits for a process that has to end with `code`; returns the lines of its output, and its complaints."""
    text, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode == code, complaints
    return text.splitlines(), complaints


def trained(out: Path) -> dict[str, dict]:
    """The newest checkpoint of every cohort, without what the clock says."""
    found = {}
    for folder in sorted((out / "checkpoints").iterdir()):
        tree = Checkpoints(folder).restore(warn=pytest.fail)
        tree["history"].pop("seconds")
        found[folder.name] = tree
    return found


def assert_same(one: Path, other: Path) -> None:
    """Tables, weights, optimizer states and histories of two folders are equal bit for bit, and so are their files."""
    for name in TABLES:
        files = [folder / f"{name}.parquet" for folder in (one, other)]
        if any(file.exists() for file in files):
            a, b = (pd.read_parquet(file).drop(columns="train_seconds", errors="ignore") for file in files)
            pd.testing.assert_frame_equal(a, b, check_exact=True)
    mine, theirs = trained(one), trained(other)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert leftovers(one) == leftovers(other)


def leftovers(out: Path) -> list[str]:
    """Names of the files of a folder, without those in the checkpoints: nothing half-written may stay."""
    return sorted(path.name for path in [*out.iterdir(), *(out / "checkpoints").iterdir()])


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """A folder for compiled programs, filled by the undisturbed sweeps, so that later starts are quick."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, programs):
    """`of(name)`: the folder of a sweep of the driver that nothing happened to, and how many events it had."""
    known = {}

    def of(name: str) -> tuple[Path, int]:
        if name not in known:
            out = tmp_path_factory.mktemp(f"undisturbed_{name}") / "out"
            lines, _ = finished(start(out, "--sweep", name, programs=programs))
            known[name] = out, int(lines[-1].removeprefix("events: "))
        return known[name]

    return of
