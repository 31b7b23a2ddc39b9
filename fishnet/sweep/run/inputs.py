"""Loads the data of a sweep (tasks, trunks of earlier runs) and fingerprints them."""

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fishnet.checks.arguments import check_flag, check_type
from fishnet.data import Task, load_tasks
from fishnet.sweep.plan.backbones import Trunk, own_trunk
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.sweep import Run, Sweep
from fishnet.sweep.store.backbones import fingerprints as trunk_fingerprints
from fishnet.sweep.store.backbones import load_trunks


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


class Inputs:
    """Runs of a sweep and the data that they read, each loaded when it is first asked for.

    Args:
        sweep: what is run.
        data: where and how data are read.
    """

    def __init__(self, sweep: Sweep, data: DataOptions) -> None:
        self.sweep, self.data = sweep, data

    @cached_property
    def runs(self) -> list[Run]:
        """Runs with every `auto` resolved and with the trunk of their seed."""
        return [dataclasses.replace(run, recipe=own_trunk(resolve(run.recipe))) for run in self.sweep.runs()]

    @cached_property
    def tasks(self) -> dict[tuple[str, Any], Task]:
        """The tasks by name and image size."""
        wanted: dict[tuple[str, Any], None] = dict.fromkeys(
            (run.recipe.task, run.recipe.image_size) for run in self.runs
        )
        return load_tasks(wanted, self.data.data_dir, self.data.group_regex, self.data.strict)

    @cached_property
    def trunks(self) -> dict[str, Trunk]:
        """Variables of earlier runs that runs begin from, by the text in the field `trunk`."""
        return load_trunks(run.recipe for run in self.runs)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Digest of all that training sees of each task and trunk, as `sweep.json` keeps it."""
        found = {f"{name} at {size}": task.fingerprint for (name, size), task in self.tasks.items()}
        return found | trunk_fingerprints(self.trunks)
