"""Normalizes paths that the user types."""

import os
from pathlib import Path

from fishnet.errors import UserError


def home_folder() -> Path | None:
    """Home folder of the user; None for a user id that the system does not know."""
    found = os.path.expanduser("~")
    return Path(found) if os.environ.get("HOME") != "" and os.path.isabs(found) else None


def expand_home(path: str | os.PathLike) -> Path:
    """Replaces `~` and `~name` at the start of a path by the home folder.

    Raises:
        UserError: there is no such home folder.
    """
    text = os.fspath(path)
    start = text.partition("/")[0]
    if not start.startswith("~"):
        return Path(text)
    known = home_folder() is not None if start == "~" else os.path.expanduser(start) != start
    if not known:
        raise UserError(f"{text}: no home folder is known for {start}; write the path in full, or ./{text}")
    return Path(os.path.expanduser(text))


def resolve_path(path: str | os.PathLike) -> str:
    """Resolves a path to its absolute form, without links, `..`, doubled or trailing slashes.

    Raises:
        UserError: there is no such home folder, the working folder is gone, or the path holds a NUL.
    """
    try:
        return os.path.realpath(expand_home(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{os.fspath(path)!r} is no path: {error}") from error


def links_in(folder: str) -> list[str]:
    """Lists the links in a folder; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_symlink()]
    except OSError:
        return []


def is_within(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a path is a folder or lies in it, links followed; neither need exist."""
    inner, outer = resolve_path(path), resolve_path(folder)
    return os.path.commonpath([inner, outer]) == outer
