"""Never overwrites a file that another program wrote."""

import os
from pathlib import Path

from fishnet.errors import UserError


def check_own_file(flag: str, path: Path, starts: tuple[str, ...], make_folder: bool = False) -> None:
    """Refuses a file that cannot be written, or would take the place of something else, before any work is done.

    Args:
        flag: by which the user has named it, or its folder.
        path: of the file.
        starts: of what the command writes there; a file that is empty or begins with one of them is its own.
        make_folder: whether the command makes the folder if need be.

    Raises:
        UserError: with the reason.
    """
    folder = path.parent
    while make_folder and not os.path.lexists(folder):
        folder = folder.parent
    if path.is_dir():
        reason = "is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is not a folder"
    elif path.exists() and not path.is_file():
        reason = "is no regular file"
    elif not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK | os.R_OK)):
        reason = "is not writable"
    elif path.exists() and not _begins(path, starts):
        reason = "it is there, and was not written by this command"
    else:
        return
    raise UserError(f"{flag}: cannot write {path}: {reason}")


def _begins(path: Path, starts: tuple[str, ...]) -> bool:
    known = [start.encode() for start in starts]
    with path.open("rb") as file:
        found = file.read(max(map(len, known)))
    return not found or any(found.startswith(start) for start in known)
