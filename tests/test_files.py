"""Only regular files are read, whatever the path leads to; files are written whole or not at all; nothing blocks."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from fishnet.errors import UserError
from fishnet.host import files
from fishnet.host.files import open_regular_file, read_regular_file, write_whole

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")


def test_what_is_opened_is_read_in_parts_and_seekable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    with open_regular_file(tmp_path / "file") as file:
        assert file.read(2) == b"ab" and file.seek(4) == 4 and file.read() == b"ef"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular_file(tmp_path / "pipe")


def refused(path: Path, text: str, number: int | None = None) -> None:
    with pytest.raises(OSError, match=text) as caught:
        read_regular_file(path, limit=1000)
    assert number in (None, caught.value.errno) and caught.value.strerror


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 1)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")
    assert read_regular_file(tmp_path / "link") == read_regular_file(str(tmp_path / "file"), len(content)) == content
    (tmp_path / "empty").touch()
    assert read_regular_file(tmp_path / "empty", 0) == b""


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    server.bind("socket")
    for name in ("pipe", "socket", "/dev/zero", "/dev/tty", "/dev/ptmx"):
        if not os.path.lexists(tmp_path / name):
            continue
        refused(tmp_path / name, "not a regular file")
        link = tmp_path / f"link to {Path(name).name}.jpg"
        link.symlink_to(tmp_path / name)
        refused(link, "not a regular file")
    server.close()
    (tmp_path / "x.jpg").mkdir()
    refused(tmp_path / "x.jpg", "a folder, not a file", errno.EISDIR)
    refused(tmp_path / "absent", "No such file", errno.ENOENT)
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    refused(tmp_path / "loop", "symbolic links", errno.ELOOP)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="this user may read everything")
def test_a_file_without_permission_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0)
    refused(tmp_path / "secret", "Permission denied", errno.EACCES)


def test_a_file_that_becomes_a_pipe_before_it_is_opened_does_not_block(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    before = os.stat(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "stat", lambda path: before)
    refused(tmp_path / "pipe", "not a regular file")


def test_a_file_that_is_called_regular_but_waits_does_not_block(tmp_path: Path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe")  # in the part of a file of /proc that waits for news
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    monkeypatch.setattr(stat, "S_ISREG", lambda mode: True)
    refused(tmp_path / "pipe", "nothing to read", errno.EAGAIN)
    os.close(writer)


def test_the_limit_holds_also_where_the_size_is_not_stated(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(1001))
    refused(tmp_path / "long", r"1,001 bytes; the limit is 1,000", errno.EFBIG)
    if os.path.exists("/proc/self/smaps"):
        assert os.stat("/proc/self/smaps").st_size == 0
        refused(Path("/proc/self/smaps"), "the limit is 1,000", errno.EFBIG)


def test_descriptors_are_closed(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "long").write_bytes(bytes(1001))
    opened, closed = [], []
    real_open, real_close = os.open, os.close
    monkeypatch.setattr(files.os, "open", lambda *args: opened.append(real_open(*args)) or opened[-1])
    monkeypatch.setattr(files.os, "close", lambda descriptor: closed.append(descriptor) or real_close(descriptor))
    refused(tmp_path / "long", "limit")
    read_regular_file(tmp_path / "long")
    assert len(opened) == 1 and opened == closed  # the first was refused by its size, before it was opened


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    write_whole(path, b"before")

    def fail(error: BaseException):
        def write(file):
            file.write(b"half")
            raise error

        return write

    with pytest.raises(UserError, match=f"cannot write {path}: No space left on device"):
        write_whole(path, fail(OSError(errno.ENOSPC, "a long story")))
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail(KeyboardInterrupt()))
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["runs.parquet"]


def test_two_writers_of_a_file_do_not_mix(tmp_path: Path) -> None:
    def write(file):
        file.write(b"a")
        write_whole(tmp_path / "file", b"of the other")  # meanwhile
        assert (tmp_path / "file").read_bytes() == b"of the other"
        file.write(b"b")

    write_whole(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == b"ab" and os.listdir(tmp_path) == ["file"]


def test_a_folder_is_made_only_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    with pytest.raises(UserError, match=f"cannot write {path}: No such file or directory"):
        write_whole(path, b"x")
    write_whole(path, b"x", make_folder=True)
    assert path.read_bytes() == b"x"
    with pytest.raises(UserError, match="File exists"):
        write_whole(path / "file", b"x", make_folder=True)


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    write_whole(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_killed_writers_left_is_removed_and_what_others_are_writing_is_not(tmp_path: Path) -> None:
    names = [".file.0123abcd.part", ".file.4567abcd.part", ".other.0123abcd.part", ".file.old.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with open(tmp_path / names[0], "rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        write_whole(tmp_path / "file", b"x")
        assert sorted(os.listdir(tmp_path)) == sorted([names[0], *names[2:], "file"])
    write_whole(tmp_path / "file", b"y")
    assert sorted(os.listdir(tmp_path)) == sorted([*names[2:], "file"])
