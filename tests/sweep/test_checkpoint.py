"""Checkpoints come back bit for bit, or not at all: a damaged one is told from a sound one."""

import json
import os
import random
import shutil
import warnings

import jax
import numpy as np
import pandas as pd
import pytest

from fishnet.errors import UserError
from fishnet.sweep import Sweep, load_run, run_sweep
from fishnet.sweep.store import checkpoint
from fishnet.sweep.store.checkpoint import FORMAT, Checkpoints, digest, identity
from tests.sweep.conftest import FIGURES, TINY, Stopper, assert_same_run, contents


def tree(number: int) -> dict:
    """A state as the runner has it: nested dictionaries of arrays, some empty."""
    kernel = np.full((3, 40, 5), number / 7, np.float32)
    return {
        "lanes": {"kernel": kernel, "none": {}, "counts": np.arange(3, dtype=np.int32)},
        "history": {"curves": np.array([np.nan, -np.inf, number]), "status": np.array([2, 0, 1], np.int8)},
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder after four saves."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoints") / "cohort_0")
    for number in range(1, 5):
        checkpoints.save(tree(number))
    checkpoints.finish()
    return checkpoints.folder


def restored(folder) -> tuple[dict | None, list[str]]:
    told = []
    return Checkpoints(folder).restore(told.append), told


def assert_tree(found: dict, number: int) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(tree(number))
    jax.tree.map(np.testing.assert_array_equal, found, tree(number))
    assert all(a.dtype == b.dtype for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree(number)), strict=True))


def test_the_last_two_are_kept_and_the_newest_comes_back_bit_for_bit(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["3", "4"]
    found, told = restored(saved)
    assert_tree(found, 4)
    assert not told


@pytest.mark.parametrize("name", ["kernel", "status"])
def test_a_digest_covers_paths_shapes_types_and_every_bit(name):
    def changed(change) -> str:
        other = tree(1)
        part = other["lanes"] if name in other["lanes"] else other["history"]
        part.update(change(part))
        return digest(other)

    def next_bit(part):
        flat = np.array(part[name]).view(np.uint8)
        flat.flat[-1] ^= 1
        return {name: flat.view(part[name].dtype).reshape(part[name].shape)}

    digests = {
        digest(tree(1)),
        changed(lambda part: {"renamed": part.pop(name)}),
        changed(lambda part: {name: part[name][None]}),
        changed(lambda part: {name: part[name].view(np.uint8)}),
        changed(next_bit),
    }
    assert len(digests) == 5
    assert digest(tree(1)) == digest(tree(1))


def damage(folder, what: str) -> None:
    """Damages one checkpoint as a full disk, a bad block or a careless person would."""
    data = max((path for path in folder.glob("state/d/*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    if what == "truncated":
        data.write_bytes(content[: len(content) // 2])
    elif what == "flipped":
        content[len(content) // 2] ^= 4
        data.write_bytes(content)
    elif what == "lost":
        data.unlink()
    elif what == "no digest":
        (folder / "digest" / "metadata").write_text("")
    elif what == "another digest":
        path = folder / "digest" / "metadata"
        path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
    elif what == "empty":
        shutil.rmtree(folder)
        folder.mkdir()


DAMAGES = ["truncated", "flipped", "lost", "no digest", "another digest", "empty"]


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(saved, tmp_path, capfd, what):
    folder = shutil.copytree(saved, tmp_path / "cohort_0")
    damage(folder / "4", what)
    found, told = restored(folder)
    assert_tree(found, 3)
    assert len(told) == 1
    assert told[0].startswith(f"checkpoint {folder / '4'} is damaged and was passed over: ")
    assert "\n" not in told[0]
    checkpoints = Checkpoints(folder)  # and it is no obstacle to what follows
    checkpoints.save(tree(9))
    checkpoints.finish()
    assert_tree(restored(folder)[0], 9)
    assert capfd.readouterr().err == ""


def test_when_all_are_damaged_it_says_so_in_one_line(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "cohort_0")
    for number in "34":
        damage(folder / number, "truncated")
    with pytest.raises(UserError, match=f"no checkpoint in {folder} can be read; remove that folder"):
        restored(folder)


def test_no_checkpoint_is_not_a_damaged_one(tmp_path):
    assert restored(tmp_path / "nowhere") == (None, [])
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()  # killed while it was written
    assert restored(tmp_path) == (None, [])


@pytest.mark.parametrize("how", ["cut", "flip", "lose"])
def test_whichever_file_is_damaged_what_comes_back_is_sound(saved, tmp_path, how):
    """Every file of the newest checkpoint in turn: its state comes back as it was saved, or the one before."""
    rng = random.Random(2)
    files = [path.relative_to(saved) for path in sorted((saved / "4").rglob("*")) if path.is_file()]
    passed_over = 0
    for number, file in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        content = bytearray((folder / file).read_bytes())
        if how == "flip" and content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (folder / file).write_bytes(content[: len(content) // 2] if how == "cut" else content)
        if how == "lose":
            (folder / file).unlink()
        found, told = restored(folder)
        assert_tree(found, 3 if told else 4)
        passed_over += len(told)
    assert passed_over >= 2


OF = identity("a hash", "cohort_0")


@pytest.mark.parametrize("other", [identity("another hash", "cohort_0"), identity("a hash", "cohort_0_gan"), None])
def test_a_checkpoint_of_something_else_is_passed_over_though_its_arrays_fit(tmp_path, other):
    for of, number in ((OF, 1), (other, 2)):
        checkpoints = Checkpoints(tmp_path, of)
        checkpoints.save(tree(number))
        checkpoints.finish()
    told = []
    assert_tree(Checkpoints(tmp_path, OF).restore(told.append), 1)
    assert [text.partition(": ")[2] for text in told] == ["it is of another sweep or of another part of it"]
    assert_tree(Checkpoints(tmp_path).restore(told.append), 2)


@pytest.mark.parametrize("number", [FORMAT + 1, 1])
def test_a_checkpoint_of_another_version_is_refused_with_the_reason(saved, tmp_path, monkeypatch, number):
    """Not passed over: what the other version has trained since the one before would be lost."""
    folder = shutil.copytree(saved, tmp_path / "cohort_0")
    path = folder / "4" / "digest" / "metadata"
    if number == 1:
        path.write_text('{"sha256": "0", "format": 1}')
    else:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FORMAT", number)
            patch.setattr(checkpoint, "versions", lambda: {"fishnet": "9.0"})
            path.write_text(json.dumps(checkpoint.record("0", None)))
    version = "an early one" if number == 1 else "9.0"
    with pytest.raises(UserError, match=rf"4 was written by another version of fishnet \({version}, checkpoint format"):
        restored(folder)
    path.write_text(path.read_text().replace(f'"format": {number}', '"format": 7'))  # that would be damage
    assert_tree(restored(folder)[0], 3)


def test_a_sweep_does_not_train_on_from_anothers_checkpoint(tiny, stopped, tmp_path):
    """Of the same shapes, so that only what it is of tells them apart."""
    out = shutil.copytree(stopped, tmp_path / "out")
    other = Sweep(TINY, axes={"lr": ["auto", 0.3]}, seeds=2)
    foreign = run_sweep(other, tmp_path / "other", devices=1).out / "checkpoints" / "cohort_0"
    (newest,) = foreign.iterdir()
    shutil.copytree(newest, out / "checkpoints" / "cohort_0" / "99")
    display = Stopper(after=np.inf)
    run_sweep(tiny[0], out, devices=1, display=display)
    assert any("99 is damaged and was passed over: it is of another sweep" in text for text in display.warnings)
    for run in range(4):
        assert_same_run(out, run, tiny[1].out, run)


def test_a_save_that_the_clock_cut_short_is_made_again(tmp_path, monkeypatch):
    """Orbax takes a clock set forward for a save that takes too long."""
    usual, jumps = checkpoint.ocp.CheckpointManager.wait_until_finished, []

    def wait(manager):
        if jumps:
            raise TimeoutError(jumps.pop())
        usual(manager)

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "wait_until_finished", wait)
    checkpoints = Checkpoints(tmp_path / "cohort_0")
    checkpoints.save(tree(1))
    jumps.append("timed out")
    checkpoints.save(tree(2))
    jumps.append("timed out")
    checkpoints.finish()
    assert not jumps
    found, told = restored(tmp_path / "cohort_0")
    assert_tree(found, 2)
    assert not told


def test_a_save_that_is_cut_short_again_says_so(tmp_path, monkeypatch):
    def wait(manager):
        raise TimeoutError("timed out")

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "wait_until_finished", wait)
    with pytest.raises(UserError, match=r"cannot write a checkpoint to .*: timed out"):
        Checkpoints(tmp_path / "cohort_0").save(tree(1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"cannot write a checkpoint to {tmp_path}"):
        Checkpoints(tmp_path / "file" / "cohort_0").save(tree(1))


@pytest.mark.parametrize(("what", "devices"), [("truncated", 1), ("empty", 2)])
def test_a_sweep_goes_on_from_the_checkpoint_before_a_damaged_one(tiny, stopped, tmp_path, what, devices):
    out = shutil.copytree(stopped, tmp_path / "out")
    newest = max((out / "checkpoints" / "cohort_0").iterdir(), key=lambda path: int(path.name))
    damage(newest, what)
    with pytest.warns(UserWarning, match=f"checkpoint {newest} is damaged"):
        load_run(out, 0)
    display = Stopper(after=np.inf)
    again = run_sweep(tiny[0], out, devices=devices, display=display)
    assert [text for text in display.warnings if str(newest) in text]
    for run in range(4):
        assert_same_run(out, run, tiny[1].out, run)
    pd.testing.assert_frame_equal(again.runs[FIGURES], tiny[1].runs[FIGURES], check_exact=True)


def test_a_sweep_without_a_sound_checkpoint_stops_and_leaves_everything_as_it_was(tiny, stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "out")
    for folder in (out / "checkpoints" / "cohort_0").iterdir():
        damage(folder, "truncated")
    before = contents(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for attempt in (lambda: run_sweep(tiny[0], out, devices=1), lambda: load_run(out, 0)):
            with pytest.raises(UserError, match=r"no checkpoint in .*cohort_0 can be read"):
                attempt()
    assert contents(out) == before


@pytest.mark.parametrize("name", [b"[a]", b"back\\slash", b"gs:", b"no \xff text", b"a\n'\"#%20?*{}|$(x)"], ids=repr)
def test_a_folder_may_be_called_anything(tmp_path, name):
    folder = tmp_path / os.fsdecode(name) / "cohort_0"
    saved = Checkpoints(folder)
    saved.save({"a": np.arange(3)})
    saved.finish()
    found = Checkpoints(folder).restore(warn=pytest.fail)
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == [os.fsdecode(name)]  # nothing was written elsewhere
