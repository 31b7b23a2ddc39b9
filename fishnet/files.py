"""Reading a file that the user named: regular files only, so that no pipe, device or socket can block a run."""

import errno
import os
import stat
from typing import BinaryIO

_FLAGS = (  # a flag that the system lacks counts as 0; Windows alone has, and needs, O_BINARY
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHUNK = 2**20  # bytes


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
    """Opens a regular file, or a link to one, for reading what is to be read in parts; as `read_regular_file`.

    Args:
        path: the file.

    Raises:
        OSError: it is absent, a folder, no regular file, or cannot be opened.
    """
    return os.fdopen(_open(path, None)[0], "rb")


def _open(path: str | os.PathLike, limit: int | None) -> tuple[int, int]:
    """The descriptor of a regular file, and the size in bytes that it states."""
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
