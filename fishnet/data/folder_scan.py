"""Scan of a folder of photographs: names, sizes and times, without decoding."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fishnet.data.split_names import look_like_splits
from fishnet.errors import UserError
from fishnet.host.names import quote_word

IGNORED = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir")  # compared in lower case
NEVER_MENTIONED = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".ds_store", ".localized")  # never a photograph
MOST_FILES = 2_000_000  # in a folder: all images are held in memory


class Listed(NamedTuple):
    """File under the root folder."""

    file: str  # relative to the root, with slashes
    label: int
    size: int  # bytes
    stamp: tuple[int, int]  # times of last change of content and of anything, in ns


class Walked(NamedTuple):
    """Files that a walk through a folder found, and those that it skipped."""

    files: list[Path]  # in the order of their paths
    passed_over: list[Path]  # hidden, or made by the system; what never is a photograph is not told


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the classes: the sub-folders of `root` in order, without hidden ones.

    Raises:
        UserError: `root` is not a folder that can be read, holds fewer than 2 sub-folders or an empty one, or holds
            ready-made splits instead of classes.
    """
    if not os.path.exists(root):  # pathlib would fail where a name is too long to be one
        raise UserError(f"{root}: no such folder")
    if not os.path.isdir(root):
        raise UserError(f"{root} is not a folder; it needs one sub-folder a class")
    names = sorted(entry.name for entry in _entries(root)[0] if _is_folder(entry))
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise UserError(f"{root} needs at least 2 sub-folders, one a class; it has {found}")
    if splits := look_like_splits(names):
        largest = next((name for name, kind in splits.items() if kind == "train"), next(iter(splits)))
        raise UserError(
            f"{root} holds splits, as it seems ({', '.join(splits)}), not classes: fishnet makes the splits itself, so "
            f"name one that has a sub-folder a class, as in --task {quote_word(f'folder:{root / largest}')}; or rename "
            "them, if they are classes"
        )
    for name in names:
        if not _entries(root / name)[0]:
            raise UserError(f"{root / name}: this class is empty")
    return tuple(names)


def list_files(root: Path, classes: Sequence[str]) -> tuple[list[Listed], list[str]]:
    """Lists every file of every class, sub-folders included, by class and path; and the files that were skipped.

    Args:
        root: the folder.
        classes: its sub-folders, from `class_folders`.

    Returns:
        The files, and the paths relative to `root` of skipped files, in `root` itself too.
    """
    listed, passed_over = [], [path.name for path in _entries(root)[1]]
    for label, name in enumerate(classes):
        files, passed = walk(root / name, MOST_FILES - len(listed))
        passed_over += [path.relative_to(root).as_posix() for path in passed]
        for path in files:
            try:
                status = path.stat()
                size, stamp = status.st_size, (status.st_mtime_ns, status.st_ctime_ns)
            except OSError:  # a broken link; reported when it is opened
                size, stamp = -1, (0, 0)
            listed.append(Listed(path.relative_to(root).as_posix(), label, size, stamp))
    return listed, passed_over


def walk(folder: Path, most: int = MOST_FILES) -> Walked:
    """Walks through a folder and its sub-folders, and lists all files but hidden ones and those of the system.

    Links are followed; a folder that is reached twice, as in a loop of links, is read once, by its own path if that is
    in the folder.

    Args:
        folder: where to begin; it may itself be hidden.
        most: files.

    Raises:
        UserError: a folder cannot be read, or there are more files.
    """
    files, passed_over, seen = [], [], set()
    folders, links = [folder], []
    while folders or links:
        here = folders.pop() if folders else links.pop()
        if (identity := _identity(here)) in seen:
            continue
        seen.add(identity)
        entries, passed = _entries(here)
        passed_over += passed
        for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            else:
                files.append(Path(entry.path))
        if len(files) > most:
            raise UserError(f"{folder} holds more than {most:,} files: is it the folder that you meant?")
    return Walked(sorted(files, key=lambda path: path.as_posix()), sorted(passed_over))


def loose_files(root: Path) -> list[str]:
    """Names of the files in `root` itself, which belong to no class."""
    return sorted(entry.name for entry in _entries(root)[0] if not _is_folder(entry))


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reported as a file that cannot be opened
        return False


def _entries(folder: Path) -> tuple[list[os.DirEntry], list[Path]]:
    # What a walk looks at, and what it passes over.
    entries, passed_over = [], []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                name = entry.name.lower()
                if not name.startswith(".") and name not in IGNORED:
                    entries.append(entry)
                elif not name.startswith("._") and name not in NEVER_MENTIONED:
                    passed_over.append(Path(entry.path))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    return entries, passed_over
