"""Files under the user's cache folder, and writing any file whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from fishnet.data.paths import home


def cache_dir() -> Path | None:
    """`$XDG_CACHE_HOME/fishnet`, or `~/.cache/fishnet` where that variable is unset; not created here.

    Returns:
        The folder; None where the variable is unset and this user has no home folder: whatever is kept there is then
        done without, which `no_place` says.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG standard has relative ones ignored
        return Path(base) / "fishnet"
    place = home()
    return None if place is None else place / ".cache" / "fishnet"


def no_place(what: str) -> str:
    """A note that something, in the plural, cannot be kept."""
    return f"{what} are not kept for the next time: this user has no home folder (set XDG_CACHE_HOME to a folder)"


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file so that other processes see either nothing, the old one or all of it.

    Args:
        path: where it will be; its folder is created.
        write: puts the content into the open file that it is given.

    Raises:
        OSError: the folder cannot be written to; whatever `write` raises. Neither leaves anything behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; a shared cache or package must be readable
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
