"""Reads regular files only, so that no pipe, device or socket can block a run, and writes files whole or not at all."""

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fishnet.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FLAGS = (  # a flag that the system lacks counts as 0; Windows alone has, and needs, O_BINARY
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHUNK = 2**20  # bytes
_ABANDONED = 24 * 3600  # seconds after which nobody is still writing a temporary file


def read_regular_file(path: str | os.PathLike, limit: int | None = None) -> bytes:
    """Reads a regular file, or a link to one; never blocks.

    What the path leads to is looked at before it is opened, for opening alone can make a device act, and once more
    when it is open, in case it was exchanged in between. Files of /proc say that they are regular, and some of them
    block or never end: the file is read in non-blocking mode and at most up to the limit, whatever size it states.

    Args:
        path: the file.
        limit: most bytes to read; None for no limit.

    Returns:
        The content.

    Raises:
        OSError: it is absent, a folder, no regular file, longer than `limit` (`errno.EFBIG`), or cannot be read;
            `strerror` says which.
    """
    descriptor, stated = _open(path, limit)
    try:
        chunks, size = [], 0
        while chunk := os.read(descriptor, max(_CHUNK, stated - size)):
            chunks.append(chunk)
            size += len(chunk)
            _check_size(size, limit)
    except BlockingIOError as error:
        raise OSError(error.errno, "nothing to read in it yet; copy what it holds to an ordinary file") from error
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def open_regular_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file, or a link to one, to be read in parts; checks as for `read_regular_file`.

    Args:
        path: the file.

    Raises:
        OSError: it is absent, a folder, no regular file, or cannot be opened.
    """
    return os.fdopen(_open(path, None)[0], "rb")


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object], make_folder: bool = False) -> None:
    """Writes a file so that others see either what was there before or all of it, whoever else writes it meanwhile.

    Args:
        path: of the file.
        content: its bytes, or what puts them into the open file that it is given.
        make_folder: whether the folder of the file is made where it is missing.

    Raises:
        UserError: the file cannot be written; an older one is left as it was, and nothing else is left behind.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary, file = _open_temporary(path)
        try:
            with file:
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _remove_abandoned(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"cannot write {path}: {reason}") from error


@contextmanager
def name_unwritable(path: Path) -> Iterator[None]:
    """Names the file or folder that could not be written while entered.

    Args:
        path: file or folder that is written, for errors that name none.

    Raises:
        UserError: an `OSError` came, as from a file where a folder has to be.
    """
    try:
        yield
    except OSError as error:
        at_fault = error.filename or path
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
        raise UserError(f"cannot write {at_fault}: {reason}") from error


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """Opens a new temporary file next to `path`, locked while it is open to show that its writer is alive."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
        file = open(temporary, "xb")  # noqa: SIM115 - the caller closes it
        if not _lock(file) or temporary.exists():  # else it was taken for abandoned before it was locked
            return temporary, file
        file.close()


def _lock(file: BinaryIO) -> bool:
    """Tries to lock a file; False where another process holds the lock or the system has none."""
    with suppress(OSError):
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _remove_abandoned(path: Path) -> None:
    """Removes temporary files of processes that were killed while they wrote `path`."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.part")
    with suppress(OSError):
        for name in filter(pattern.fullmatch, os.listdir(path.parent)):
            temporary = path.with_name(name)
            with suppress(OSError), open(temporary, "rb") as file:
                if _lock(file) or os.fstat(file.fileno()).st_mtime < time.time() - _ABANDONED:
                    temporary.unlink()


def _open(path: str | os.PathLike, limit: int | None) -> tuple[int, int]:
    """Opens a regular file; returns its descriptor and the size in bytes that it states."""
    _check_regular(os.stat(path), limit)
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        _check_regular(status, limit)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _check_regular(status: os.stat_result, limit: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    _check_size(status.st_size, limit)


def _check_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise OSError(errno.EFBIG, f"{size:,} bytes; the limit is {limit:,}")
