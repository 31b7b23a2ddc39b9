"""One walk for training and for `predict`: what it takes and what it passes over."""

import errno
import os
import time

import pytest

from experiments.predict import find_images
from fishnet.data.folder_scan import class_folders, list_files, walk
from fishnet.errors import UserError

TAKEN = ["a.png", "b", "c.txt", "sub/d.JPG", "sub/deep/e.webp", "linked/f.png", "looped/self.png"]
HIDDEN = [".ipynb_checkpoints/a.png", "@eaDir/a.png", "__MACOSX/._a.png", ".g.png", "sub/.cache/x.png"]
UNTOLD = ["Thumbs.db", "._a.png", ".DS_Store", "sub/desktop.ini"]


@pytest.fixture
def mixed(tmp_path):
    """A folder of two classes of which `cat` has everything."""
    root = tmp_path / "root"
    for name in (*TAKEN, *HIDDEN, *UNTOLD):
        path = root / "cat" / name
        if name.startswith("linked"):
            path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "dog").mkdir()
    (root / "dog" / "a.png").write_bytes(b"x")
    (root / "cat" / "linked").symlink_to(tmp_path / "linked")
    (root / "cat" / "looped" / "back").symlink_to(root / "cat")
    (root / "cat" / "looped" / "again").symlink_to(root / "cat" / "sub")
    return root


def test_prediction_takes_what_training_takes(mixed):
    listed, passed_over = list_files(mixed, class_folders(mixed))
    trained = [item.file for item in listed]
    assert trained == [*sorted(f"cat/{name}" for name in TAKEN), "dog/a.png"]
    found, problems = find_images([str(mixed)])
    assert [path.relative_to(mixed).as_posix() for path in found] == trained
    hidden = {f"cat/{name.split('/')[0]}" for name in HIDDEN if not name.startswith("sub")} | {"cat/sub/.cache"}
    assert set(passed_over) == hidden
    assert len(problems) == 4
    assert problems[-1] == f"{len(hidden) - 3} more files"
    assert all("hidden, or made by the system" in problem for problem in problems[:3])


def test_a_hidden_folder_that_is_named_is_looked_at(mixed):
    found, problems = find_images([str(mixed / "cat" / ".ipynb_checkpoints"), str(mixed / "cat" / ".g.png")])
    assert [path.name for path in found] == ["a.png", ".g.png"]
    assert problems == []


def test_loops_of_links_end_and_own_paths_come_first(tmp_path):
    for name in ("z", "m", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.png").write_bytes(b"x")
        for other in ("z", "m", "a"):
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
        (tmp_path / name / "self").symlink_to("self")
    files, passed_over = walk(tmp_path)
    assert passed_over == []
    photographs = [path.relative_to(tmp_path).as_posix() for path in files if path.name == "photo.png"]
    assert photographs == ["a/photo.png", "m/photo.png", "z/photo.png"]
    assert sum(path.name == "self" for path in files) == 3  # a file that cannot be opened


def test_folders_within_folders_without_end(tmp_path):
    here = tmp_path
    for _ in range(300):
        here = here / "deeper"
    here.mkdir(parents=True)
    (here / "photo.png").write_bytes(b"x")
    assert walk(tmp_path).files == [here / "photo.png"]


def test_more_files_than_can_be_held_are_refused(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    assert len(walk(tmp_path, 6).files) == 6
    with pytest.raises(UserError, match="holds more than 5 files"):
        walk(tmp_path, 5)


def test_many_files_are_listed_within_seconds(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5000):
            os.mknod(tmp_path / name / f"{i}.png")
    start = time.monotonic()
    assert len(list_files(tmp_path, class_folders(tmp_path))[0]) == 10_000
    assert time.monotonic() - start < 10


def test_a_folder_that_cannot_be_read_is_named(mixed, monkeypatch):
    scandir = os.scandir

    def refuse(path):  # as the system does, though not to root
        if os.fspath(path).endswith("sub"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder .*sub: Permission denied"):
        list_files(mixed, class_folders(mixed))
