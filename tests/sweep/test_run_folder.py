"""The output folder: one sweep, one process at a time, and nothing changed by what is refused."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from fishnet.data import DataOptions
from fishnet.errors import UsageError, UserError
from fishnet.host.folder_lock import LOCK_FILE
from fishnet.sweep import Sweep, load_run, run_sweep
from fishnet.sweep.run.inputs import describe
from fishnet.sweep.store.folder import (
    changed_setting,
    check_same_sweep,
    locked,
    read_sweep_file,
    times,
    write_sweep_file,
)
from tests.sweep.conftest import TINY, assert_same_run, contents

HOLD = """
import sys, time
from pathlib import Path
from fishnet.sweep.store.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A folder that another live process holds, and that process."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield tmp_path / "out", process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_until_its_process_dies(holder):
    out, process = holder
    with pytest.raises(UserError, match=re.escape(f"{out} is in use by another process (process {process.pid})")):
        run_sweep(Sweep(TINY, seeds=1), out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with locked(out):
        pass


def test_a_lock_is_taken_once_and_given_back(tmp_path):
    out = tmp_path / "out"
    with locked(out):
        write_sweep_file(out, {"any": "thing"})
        with pytest.raises(UserError, match=re.escape(f"by another process (process {os.getpid()})")), locked(out):
            pass
    with locked(out):
        assert (out / LOCK_FILE).read_text() == f"process {os.getpid()}"
    assert (out / LOCK_FILE).read_text() == ""


def test_a_lock_whose_file_was_removed_meanwhile_is_not_a_lock(tmp_path, monkeypatch):
    """A holder that leaves nothing behind removes the file between another's opening and locking it."""
    import fcntl

    out, real, removed = tmp_path / "out", fcntl.flock, []

    def flock(file, operation):
        real(file, operation)
        if not removed:
            removed.append(True)
            (out / LOCK_FILE).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(out):
        assert (out / LOCK_FILE).exists()
        write_sweep_file(out, {})


def test_what_fails_before_it_is_planned_leaves_nothing_behind(tmp_path):
    too_large = Sweep(dataclasses.replace(TINY, batch_size=512), seeds=1)
    with pytest.raises(UserError, match="batch_size: 512"):
        run_sweep(too_large, tmp_path / "a" / "b" / "c")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="devices: 3 is not between 1 and the 2 visible here"):
        run_sweep(Sweep(TINY, seeds=1), tmp_path / "mine", devices=3)
    assert contents(tmp_path) == {"mine/notes.txt": b"keep"}


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "file" / "a" / "b"):
        with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'file'))} is not a folder"):
            run_sweep(Sweep(TINY, seeds=1), out)
    assert contents(tmp_path) == {"file": b"x"}


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(UserError, match="cannot write to /proc/fishnet"):
        run_sweep(Sweep(TINY, seeds=1), "/proc/fishnet")


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"recipe": {}', "null", "[]", "3", "{}", '{"recipe": 1, "axes": {}, "seeds": [], "spec_hash": ""}'],
)
def test_a_damaged_sweep_file_is_named_and_kept(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    for attempt in (lambda: run_sweep(Sweep(TINY, seeds=1), tmp_path), lambda: load_run(tmp_path)):
        with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'sweep.json'))} is damaged") as refusal:
            attempt()
        assert "\n" not in str(refusal.value)
    assert contents(tmp_path) == {"sweep.json": text.encode()}


def test_a_sweep_file_that_is_no_text_is_damaged(tmp_path):
    (tmp_path / "sweep.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is damaged"):
        read_sweep_file(tmp_path)


def test_the_folder_of_another_version_is_refused_with_the_reason(tiny, stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    content = read_sweep_file(out)
    later = content | {"format": content["format"] + 1, "versions": {"fishnet": "9.0"}, "seeds": {"written": "anew"}}
    (out / "sweep.json").write_text(json.dumps(later))
    before = contents(out)
    for attempt in (lambda: run_sweep(tiny[0], out, devices=1), lambda: load_run(out, 0)):
        with pytest.raises(
            UserError, match=r"was written by another version of fishnet \(9\.0, format 3; this one rea"
        ):
            attempt()
    assert contents(out) == before


@pytest.mark.parametrize("runs", [[3], [2, 2]])
def test_cohorts_of_another_version_are_refused(tiny, stopped, tmp_path, runs):
    """Where another version put other runs together, the arrays of its checkpoints are those of other runs."""
    out = shutil.copytree(stopped, tmp_path / "out")
    content = read_sweep_file(out)
    write_sweep_file(out, content | {"plan": [content["plan"][0] | {"runs": count} for count in runs]})
    before = contents(out)
    with pytest.raises(UserError, match="this sweep was planned by another version of fishnet: choose another --out"):
        run_sweep(tiny[0], out, devices=1)
    assert contents(out) == before


def test_checkpoints_without_their_sweep_are_not_taken_for_ones_own(stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    (out / "sweep.json").unlink()
    before = contents(out)
    with pytest.raises(UserError, match=r"holds checkpoints, .*, but no sweep\.json .* choose another --out"):
        run_sweep(Sweep(TINY, seeds=2), out)
    assert contents(out) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_stands_in_the_place_of_the_lock_is_named_and_left(tmp_path, make):
    make(tmp_path / LOCK_FILE)
    with pytest.raises(UserError, match=r"\.lock is not a regular file"), locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def replaced(sweep: Sweep, **changes) -> Sweep:
    return Sweep(dataclasses.replace(sweep.recipe, **changes), sweep.axes, sweep.seeds)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (lambda s: replaced(s, activation="elu"), "activation relu there, elu here"),
        (lambda s: replaced(s, widths=(8, 4)), "widths 8 there, 8-4 here"),
        (lambda s: Sweep(TINY, {"lr": [0.1, 0.2]}, s.seeds), "axis lr auto,0.1 there, 0.1,0.2 here"),
        (lambda s: Sweep(TINY, {}, s.seeds), "axis lr auto,0.1 there, absent here"),
        (lambda s: Sweep(TINY, s.axes | {"widths": [(4,)]}, s.seeds), "axis widths absent there, 4 here"),
        (lambda s: Sweep(TINY, s.axes, [0, 7]), "seeds 0,1 there, 0,7 here"),
    ],
)
def test_another_sweep_in_the_folder_is_refused_with_the_difference(tiny, changed, difference):
    sweep, result = tiny
    before = contents(result.out)
    with pytest.raises(UserError, match=re.escape(f"holds another sweep ({difference}): choose another --out")):
        run_sweep(changed(sweep), result.out)
    assert contents(result.out) == before


def test_other_data_options_are_a_difference(tiny):
    sweep, result = tiny
    with pytest.raises(UserError, match="strict absent there, True here"):
        check_same_sweep(result.out, read_sweep_file(result.out), describe(sweep, DataOptions(strict=True)))
    with pytest.raises(UsageError, match="strict would have no effect"):
        run_sweep(sweep, result.out, data=DataOptions(strict=True))


def test_changed_data_are_refused(tiny, stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    content = read_sweep_file(out)
    content["data"] = dict.fromkeys(content["data"], "another fingerprint")
    write_sweep_file(out, content)
    before = contents(out)
    with pytest.raises(UserError, match="the data of synthetic at 8 have changed"):
        run_sweep(tiny[0], out, devices=1)
    assert contents(out) == before


def test_a_lost_or_damaged_table_of_a_finished_sweep_is_made_again(tiny, tmp_path):
    sweep, result = tiny
    out = shutil.copytree(result.out, tmp_path / "out")
    (out / "runs.parquet").write_bytes(b"PAR1")
    (out / "curves.parquet").unlink()
    again = run_sweep(sweep, out, devices=1)
    pd.testing.assert_frame_equal(again.runs, result.runs, check_exact=True)
    for name in ("runs", "curves", "class_curves", "per_class", "predictions"):
        one, other = (pd.read_parquet(folder / f"{name}.parquet") for folder in (out, result.out))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_finished_sweep_is_read_while_another_process_holds_the_lock(tiny, tmp_path):
    sweep, result = tiny
    out = shutil.copytree(result.out, tmp_path / "out")
    with locked(out):
        again = run_sweep(sweep, out)
    assert again.finished
    assert not result.finished
    pd.testing.assert_frame_equal(again.runs, result.runs, check_exact=True)


def test_a_folder_killed_before_its_first_checkpoint_starts_from_the_beginning(tiny, tmp_path):
    sweep, result = tiny
    out = tmp_path / "out"
    out.mkdir()
    content = read_sweep_file(result.out) | {"finished": None}
    write_sweep_file(out, content)
    (out / LOCK_FILE).write_text("process 1")
    (out / ".runs.parquet.part").write_bytes(b"half")
    (out / "checkpoints" / "cohort_0" / "1.orbax-checkpoint-tmp").mkdir(parents=True)
    killed = time.time() - 1000
    os.utime(out / "sweep.json", (killed, killed))
    again = run_sweep(sweep, out)  # on as many devices as there are
    for run in range(4):
        assert_same_run(out, run, result.out, run)
    assert (again.runs.status == "ok").all()
    found = read_sweep_file(out)
    assert found["started"] == content["started"]
    assert 1000 <= found["paused"] < 1100


def test_pauses_are_from_the_last_file_of_a_session_to_the_next(tmp_path):
    assert times(tmp_path, None)["paused"] == 0
    write_sweep_file(tmp_path, {"started": "2030-01-01T00:00:00+00:00"})
    (tmp_path / "runs.parquet").write_bytes(b"")
    (tmp_path / LOCK_FILE).write_bytes(b"")  # of the session that begins
    now = time.time()
    os.utime(tmp_path / "sweep.json", (now - 5000, now - 5000))
    os.utime(tmp_path / "runs.parquet", (now - 100, now - 100))
    found = times(tmp_path, {"started": "2030-01-01T00:00:00+00:00", "paused": 10.0})
    assert found["started"] == "2030-01-01T00:00:00+00:00" and found["finished"] is None
    assert 110 <= found["paused"] < 170


def test_the_sweep_file_says_what_the_contract_asks(tiny):
    content = json.loads((tiny[1].out / "sweep.json").read_text())
    assert {"recipe", "axes", "seeds", "spec_hash", "programs", "plan", "versions", "device", "command"} <= set(content)
    assert content["programs"] == len(content["plan"]) == 1
    assert {"runs", "lane_width", "lowering", "devices"} <= set(content["plan"][0])
    assert (content["recipe"]["augment"], content["recipe"]["lr"]) == ("none", "auto")  # lr differs from arm to arm
    assert content["axes"] == {"lr": ["auto", 0.1]}
    assert [arm["lr"] for arm in content["arms"]] == [0.05, 0.1]
    assert content["classes"] == {"synthetic": ["horizontal", "falling", "upright", "rising"]}
    assert {"python", "jax", "flax", "orbax-checkpoint"} <= set(content["versions"])


def test_another_version_or_device_is_told_apart():
    begun = {"versions": {"jax": "0.10.1", "optax": "0.2.8"}, "device": "cpu x 2 (AMD EPYC)"}
    assert changed_setting(begun, begun | {"device": "cpu x 8 (AMD EPYC)"}) == ""
    now = {"versions": {"jax": "0.11.2", "optax": "0.2.8"}, "device": "NVIDIA H200 x 1"}
    assert changed_setting(begun, now) == "jax 0.10.1 (now 0.11.2), cpu (AMD EPYC) (now NVIDIA H200)"
    assert changed_setting({}, now) == ""


def test_a_sweep_file_that_says_the_same_is_not_touched(tmp_path):
    write_sweep_file(tmp_path, {"a": 1})
    before = (tmp_path / "sweep.json").stat().st_mtime_ns
    write_sweep_file(tmp_path, {"a": 1})
    assert (tmp_path / "sweep.json").stat().st_mtime_ns == before
    write_sweep_file(tmp_path, {"a": 2})
    assert json.loads((tmp_path / "sweep.json").read_text())["a"] == 2
