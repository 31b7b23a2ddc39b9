"""What is in a folder of photographs, seen from the outside: names, sizes and times, nothing decoded."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fishnet.errors import UsageError, UserError

IGNORED = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir")  # compared in lower case
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"}


class Listed(NamedTuple):
    """One file under the root."""

    file: str  # relative to the root, with slashes
    label: int
    size: int  # bytes
    stamp: tuple[int, int]  # times of last change of content and of anything, in ns


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the classes: the sub-folders of `root` in order, hidden ones left out.

    Raises:
        UserError: `root` is not a folder that can be read, holds fewer than 2 sub-folders or an empty one, or holds
            ready-made splits instead of classes.
    """
    if not root.exists():
        raise UserError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; it needs one sub-folder a class")
    names = sorted(entry.name for entry in _entries(root) if _is_folder(entry))
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise UserError(f"{root} needs at least 2 sub-folders, one a class; it has {found}")
    if {name.lower() for name in names} <= SPLIT_NAMES:
        raise UserError(
            f"{root} holds splits ({', '.join(names)}), not classes; name a folder with one sub-folder a class: "
            "the splits are made by fishnet"
        )
    for name in names:
        if next(_entries(root / name), None) is None:
            raise UserError(f"{root / name}: this class is empty")
    return tuple(names)


def list_files(root: Path, classes: tuple[str, ...]) -> list[Listed]:
    """Every file of every class, sub-folders included, in the order of class and path.

    Links are followed; a folder that is reached twice within a class, as in a loop of links, is read once.
    """
    listed = []
    for label, name in enumerate(classes):
        seen: set[tuple[int, int]] = set()
        for path in sorted(_walk(root / name, seen), key=lambda path: path.as_posix()):
            try:
                status = path.stat()
                size, stamp = status.st_size, (status.st_mtime_ns, status.st_ctime_ns)
            except OSError:  # a broken link; reported when it is opened
                size, stamp = -1, (0, 0)
            listed.append(Listed(path.relative_to(root).as_posix(), label, size, stamp))
    return listed


def loose_files(root: Path) -> list[str]:
    """The names of the files that lie in `root` itself, beside the classes, and so belong to none."""
    return sorted(entry.name for entry in _entries(root) if not _is_folder(entry))


def parse_group_regex(text: str | None) -> re.Pattern | None:
    """The compiled expression.

    Raises:
        UsageError: it is no regular expression, or has no group in parentheses.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except (re.error, TypeError) as error:
        raise UsageError(f"group regex {text!r} is not a regular expression: {error}") from error
    if not pattern.groups:
        raise UsageError(f"group regex {text!r} needs parentheses around the part that names the group")
    return pattern


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(_entries(folder), key=lambda entry: (entry.is_symlink(), entry.name)):
        if _is_folder(entry):
            yield from _walk(Path(entry.path), seen)
        else:
            yield Path(entry.path)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reported as a file that cannot be opened
        return False


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in IGNORED:
                    yield entry
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
