"""A full disk or a folder that cannot be written: one clear line, what was there is kept, the same command goes on."""

import os
import subprocess

import pandas as pd
import pytest

from fishnet.sweep import load_run
from tests.faults.conftest import assert_same, finished, start
from tests.faults.driver import BALLOON

pytestmark = pytest.mark.fault
MIB = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * MIB}", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("leave", [0, 8_000, 60_000], ids=["nothing is left", "a table fits", "the tables fit"])
def test_a_disk_that_fills_up_costs_nothing_but_time(small_disk, undisturbed, programs, tmp_path, monkeypatch, leave):
    """Full after the third epoch, in the middle of tables or of a checkpoint; goes on once there is room again."""
    whole, _ = undisturbed("short")
    out = small_disk / "out"
    _, complaints = finished(start(out, "--sweep", "short", "--fill", str(leave), programs=programs), code=1)
    assert complaints.count("\n") == 1, complaints
    assert "No space left on device" in complaints or "RESOURCE_EXHAUSTED" in complaints
    assert f"{out}" in complaints
    runs = pd.read_parquet(out / "runs.parquet")
    assert runs.status.eq("running").all() and runs.best_epoch.notna().all()
    assert load_run(out, 0).run == 0  # an earlier checkpoint can be read
    _, complaints = finished(start(out, "--sweep", "short", programs=programs), code=1)  # still full
    assert complaints.count("\n") == 1, complaints
    (small_disk / BALLOON).unlink()
    finished(start(out, "--sweep", "short", programs=programs))
    assert_same(out, whole)


@pytest.mark.parametrize("limit", [200, 3_000, 9_000])
def test_files_that_may_not_grow_are_like_a_full_disk(undisturbed, programs, tmp_path, limit):
    """RLIMIT_FSIZE, which holds for root as well and for every library."""
    whole, _ = undisturbed("short")
    out = tmp_path / "out"
    _, complaints = finished(start(out, "--sweep", "short", "--limit", str(limit), programs=programs), code=1)
    assert complaints.count("\n") == 1, complaints
    assert "cannot write" in complaints and str(out) in complaints
    assert len(pd.read_parquet(out / "runs.parquet")) == 4
    load_run(out, 0)
    finished(start(out, "--sweep", "short", programs=programs))
    assert_same(out, whole)
