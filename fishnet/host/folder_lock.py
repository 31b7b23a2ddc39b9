"""Locks of folders: one process at a time writes to a folder, and the lock of one that was killed is free again."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from fishnet.errors import UserError

LOCK_FILE = ".lock"
POLL_SECONDS = 0.1


class InUse(UserError):
    """Refusal because another live process holds the lock of a folder."""


@contextmanager
def locked(folder: Path, keep_with: str) -> Iterator[None]:
    """Makes a folder if need be and holds its lock, which the operating system frees when the process dies.

    Unless the file `keep_with` is in the folder at the end, the lock file and new folders that are empty are removed.

    Raises:
        InUse: another live process holds the lock.
        UserError: the folder cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _take_lock(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{file_in_the_way(folder)} is not a folder") from error
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    with file:
        try:
            yield
        finally:
            file.truncate(0)
            if not (folder / keep_with).exists():
                (folder / LOCK_FILE).unlink(missing_ok=True)
                with suppress(OSError):  # something else is in it by now
                    for path in made:
                        path.rmdir()


@contextmanager
def wait_for_lock(folder: Path, keep_with: str, seconds: float, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of a folder as `locked`; raises `InUse` where another process has held it for so many seconds."""
    began = time.monotonic()
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder, keep_with))
                break
            except InUse:
                if time.monotonic() - began >= seconds:
                    raise
            while_waiting()
            time.sleep(POLL_SECONDS)
        yield


def file_in_the_way(folder: Path) -> Path:
    """Part of a path that is there and is no folder."""
    return next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), folder)


def _take_lock(folder: Path) -> TextIO:
    """The locked file, which says who holds it."""
    path = folder / LOCK_FILE
    if path.exists() and not path.is_file():  # a pipe would be opened, and could not be written
        raise UserError(f"cannot lock {folder}: {path} is not a regular file")
    while True:
        file = open(path, "a+")  # noqa: SIM115 - held open for as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that leaves nothing behind removes the file: then this is the lock of nothing.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()}")
                file.flush()
                return file
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise InUse(f"{folder} is in use by another process{f' ({holder})' if holder else ''}") from error
        except OSError:
            file.close()
            raise
        file.close()
