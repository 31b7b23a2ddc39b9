"""Task `folder:PATH`: a user's photographs, one sub-folder for each class."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fishnet.data.corruption_spec import folder_task
from fishnet.data.duplicates import describe_duplicates, find_duplicates
from fishnet.data.folder_cache import Decoded, decode_cached
from fishnet.data.folder_scan import class_folders, list_files, loose_files
from fishnet.data.group_regex import file_groups, parse_group_regex
from fishnet.data.images import KINDS, MIN_SIDE
from fishnet.data.splits import SPLITS, group_split, missing_classes
from fishnet.data.task import Task, make_task
from fishnet.errors import UserError
from fishnet.host.names import escape_name
from fishnet.host.paths import expand_home

_MEANING = {
    "unreadable": "no image, damaged, or not to be opened",
    "truncated": "the end of the file is missing",
    "tiny": f"a side under {MIN_SIDE} pixels",
    "oversized": "too many pixels or bytes",
}


def load_folder(
    path: str | os.PathLike, image_size: int = 32, group_regex: str | None = None, strict: bool = False
) -> Task:
    """Loads a folder of labeled photographs as a task.

    Each sub-folder is a class (its own sub-folders belong to it; what is hidden, Thumbs.db and the like are passed
    over). Names that cannot be shown as they are, are written as `names.escape_name` does. Photographs are prepared by
    `images.prepare_image` and kept in the user's cache until a file changes.

    The split is about 70/15/15 per class, decided by the SHA-256 of the files' content, so that it depends neither on
    names nor on the machine, and byte-identical files stay together as long as their class has 3 different ones.
    A class with 3 images or more has at least one in every split, one with 2 in train and test, one with 1 in train.
    With `group_regex` the unit is the group instead, whatever the classes in it.

    Args:
        path: the folder.
        image_size: s, the side of the prepared images in pixels.
        group_regex: searched in each file name (without folders); what its first group matches, or the whole of it
            where it has none, names what stays in one split.
        strict: refuse files that cannot be used instead of leaving them out with a note.

    Returns:
        a `Task` with images [n, s, s, 3], whose notes tell what was left out, which classes a split lacks, and
        duplicates across splits: the exact ones, and some of the near-copies (see `find_duplicates`).

    Raises:
        UserError: the folder is missing, has fewer than 2 classes, a class has no usable image, a file name does not
            match `group_regex`, no split is possible, or `strict` and a file cannot be used.
        UsageError: `group_regex` is no regular expression, matches an empty text or takes too long.
    """
    root = expand_home(path)
    pattern = parse_group_regex(group_regex)
    folders = class_folders(root)
    listed, passed_over = list_files(root, folders)
    decoded = decode_cached(root, listed, image_size)
    notes = _skipped(root, decoded, strict)
    if passed_over:
        notes.append(f"passed over, as hidden or made by the system: {_first(sorted(passed_over))}")
    if loose := loose_files(root):
        notes.append(f"not used, as they lie beside the class folders: {_first(loose)}")
    counts = np.bincount(decoded.labels, minlength=len(folders))
    for name, count in zip(folders, counts, strict=True):
        if not count:
            bad = [f"{file}: {reason}" for file, _, reason in decoded.skipped if file.startswith(f"{name}/")]
            raise UserError(f"{root}: class {name!r} has no usable image{_first(bad, ' (', ')')}")
    classes, files = tuple(map(escape_name, folders)), tuple(map(escape_name, decoded.files))
    notes += _alike(folders)
    if pattern is None:
        groups = _content_groups(decoded)
    else:
        groups = file_groups(pattern, decoded.files)
        notes.append(f"split by {len(set(groups)):,} groups from the file names ({group_regex})")
    splits = group_split(decoded.labels, groups)
    for split in SPLITS:
        if not len(splits[split]):
            unit = "images" if pattern is None else "groups"
            raise UserError(f"{root}: no {split} split can be made; at least one class needs 3 different {unit}")
    for split, names in missing_classes(decoded.labels, splits, classes).items():
        notes.append(f"too few {'images' if pattern is None else 'groups'} for a {split} image of {', '.join(names)}")
    duplicates = find_duplicates(decoded.images, decoded.labels, splits)
    notes += describe_duplicates(duplicates, files)
    if duplicates.across or duplicates.near:
        notes.append("duplicates across splits make test metrics too good; --group-regex keeps related files together")
    notes += decoded.notes
    return make_task(folder_task(path), decoded.images, decoded.labels, splits, classes, notes, files)


def check_folder(path: str | os.PathLike, group_regex: str | None = None) -> None:
    """Checks a folder by names alone, without opening a file; raises as `load_folder`."""
    parse_group_regex(group_regex)
    class_folders(expand_home(path))


def folder_classes(path: str | os.PathLike) -> tuple[str, ...]:
    """Names of the classes of a folder; raises as `load_folder`, as far as the names of sub-folders show."""
    return tuple(map(escape_name, class_folders(expand_home(path))))


def _alike(folders: Sequence[str]) -> list[str]:
    # Sub-folders whose names a reader, or another file system, takes for one.
    same = defaultdict(list)
    for name in folders:
        same[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    return [
        f"classes of nearly the same name: {', '.join(map(ascii, names))}; if they are one, put them into one folder"
        for names in same.values()
        if len(names) > 1
    ]


def _content_groups(decoded: Decoded) -> list[str]:
    # Copies stay together, unless too few different pictures would be left to have one in every split: a class of
    # three equal files is better split, with a note about the duplicates, than not tested.
    contents = defaultdict(set)
    for label, digest in zip(decoded.labels.tolist(), decoded.digests, strict=True):
        contents[label].add(digest)
    return [
        digest if len(contents[label]) >= 3 else f"{digest} {file}"
        for label, digest, file in zip(decoded.labels.tolist(), decoded.digests, decoded.files, strict=True)
    ]


def _skipped(root: Path, decoded: Decoded, strict: bool) -> list[str]:
    total = len(decoded.files) + len(decoded.skipped)
    if strict and decoded.skipped:
        bad = [f"{file} ({kind}: {reason})" for file, kind, reason in decoded.skipped]
        raise UserError(f"{root}: {len(bad)} of {total} files cannot be used{_first(bad, ': ')}")
    notes = []
    for kind in KINDS:
        bad = [f"{file} ({reason})" for file, k, reason in decoded.skipped if k == kind]
        if bad:
            notes.append(f"skipped {len(bad)} of {total} files as {kind}, {_MEANING[kind]}{_first(bad, ': ')}")
    return notes


def _first(names: Sequence[str], before: str = "", after: str = "") -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return before + ", ".join(names[:3]) + more + after if names else ""
