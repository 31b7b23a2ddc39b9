"""What a sweep is made of, as `sweep.json` describes it, and the data that it reads, with their fingerprints."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fishnet.checks.arguments import check_flag, check_type
from fishnet.data import Task, load_tasks
from fishnet.host.names import shell_command
from fishnet.source_hash.digest import describe_source, hash_each
from fishnet.sweep.plan.networks import Trunk, own_trunk
from fishnet.sweep.plan.user_components import user_functions
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


def spec_hash(sweep: Sweep, data: DataOptions, lowering: str | None = None, lane_width: int | str | None = None) -> str:
    """The hash by which `sweep.json` identifies a sweep; arguments as for `run_sweep`."""
    return sweep.hash(hash_each(user_functions(sweep, lowering, lane_width)), data_options(data))


def data_options(data: DataOptions) -> dict[str, Any]:
    """Options of reading data that identify a sweep: those that are not the default."""
    return {k: v for k, v in dataclasses.asdict(data).items() if v and k != "data_dir"}


def describe(
    sweep: Sweep,
    data: DataOptions,
    functions: Mapping[str, Any] | None = None,
    digests: Mapping[str, str] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """`sweep.json` without what only planning tells.

    Args:
        sweep, data, command: as for `run_sweep`.
        functions: the components of the user's own, by name; None: those that the sweep names.
        digests: of these; None: they are hashed.
    """
    functions = user_functions(sweep) if functions is None else functions
    digests = hash_each(functions) if digests is None else digests
    options = data_options(data)
    content = sweep.spec()
    resolved = resolve(sweep.recipe)
    arms = [run for run in sweep.runs() if run.recipe.seed == sweep.seed_list[0]]
    content["recipe"] = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(resolved).items()}
    for name in {"lr", "image_size", "augment"} & {k for k in content["recipe"] if getattr(sweep.recipe, k) == "auto"}:
        if len({getattr(resolve(run.recipe), name) for run in arms}) > 1:
            content["recipe"][name] = "auto"  # differs from arm to arm: written out in `arms`
    del content["recipe"]["seed"]
    return content | {
        "arms": [written_out(run) for run in arms],
        "spec_hash": sweep.hash(digests, options),
        "functions": {name: describe_source(f, digests[name]) for name, f in functions.items()},
        "data_options": options,
        "command": command or shell_command(sys.argv),
    }


def written_out(run: Run) -> dict[str, Any]:
    """Values of an arm that may be "auto" in its recipe."""
    recipe = resolve(run.recipe)
    return {"arm": run.arm, "lr": recipe.lr, "image_size": recipe.image_size, "augment": recipe.augment}
