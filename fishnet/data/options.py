"""Options of reading data."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from fishnet.checks.arguments import check_flag, check_type


@dataclass(frozen=True)
class DataOptions:
    """Options of reading data: the same for all tasks of a sweep."""

    data_dir: str | os.PathLike | None = None  # folder with the MNIST files
    group_regex: str | None = None  # what it (or its first group) finds in photos' names keeps these in one split
    strict: bool = False  # refuse unreadable photos instead of skipping them

    def __post_init__(self) -> None:
        check_type("data_dir", self.data_dir, (str, os.PathLike, type(None)), "the path of a folder, or None")
        check_type("group_regex", self.group_regex, (str, type(None)), "a regular expression as a text, or None")
        check_flag("strict", self.strict)

    def identity(self) -> dict[str, Any]:
        """Options that change what is read: those that are not the default, wherever the files are."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v and k != "data_dir"}
