"""Inputs of a sweep: its description, as `sweep.json` has it, and the data that it reads, with their fingerprints."""

import dataclasses
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

from fishnet.data import DataOptions, Task, load_tasks
from fishnet.errors import UsageError, UserError
from fishnet.host.names import quote_command
from fishnet.source_hash.digest import describe_source, hash_each
from fishnet.sweep.plan.networks import Trunk, own_trunk
from fishnet.sweep.plan.user_components import user_functions
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.sweep import Run, Sweep
from fishnet.sweep.spec.trunk import parse_trunk
from fishnet.sweep.store.checkpoint import digest
from fishnet.sweep.store.load import load_run


class Inputs:
    """Runs of a sweep and the data that they read, each loaded when it is first asked for."""

    def __init__(self, sweep: Sweep, data: DataOptions) -> None:
        self.sweep, self.data = sweep, data

    @cached_property
    def runs(self) -> list[Run]:
        """Runs with every `auto` resolved and with the trunk of their seed."""
        return [dataclasses.replace(run, recipe=own_trunk(resolve(run.recipe))) for run in self.sweep.runs()]

    @cached_property
    def tasks(self) -> dict[tuple[str, Any], Task]:
        """Tasks by name and image size."""
        wanted: dict[tuple[str, Any], None] = dict.fromkeys(
            (run.recipe.task, run.recipe.image_size) for run in self.runs
        )
        return load_tasks(wanted, self.data.data_dir, self.data.group_regex, self.data.strict)

    @cached_property
    def trunks(self) -> dict[str, Trunk]:
        """Variables of earlier runs that runs begin from, by the text in the field `trunk`."""
        texts = dict.fromkeys(run.recipe.trunk for run in self.runs)
        return {text: load_trunk(text) for text in texts if text != "none"}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Digest of all that training sees of each task and trunk, as `sweep.json` keeps it."""
        found = {f"{name} at {size}": task.fingerprint for (name, size), task in self.tasks.items()}
        return found | {f"trunk {text}": digest(trunk) for text, trunk in self.trunks.items()}


def load_trunk(text: str) -> Trunk:
    """Loads the variables of the run that a recipe's `trunk` names; raises as `load_run`."""
    try:
        variables = load_run(*parse_trunk(text)).variables
    except UserError as error:
        kind = UsageError if isinstance(error, UsageError) else UserError
        raise kind(f"trunk: {error}") from error
    return {name: jax.tree.map(np.asarray, variables.get(name, {})) for name in ("params", "batch_stats")}


def spec_hash(sweep: Sweep, data: DataOptions, lowering: str | None = None, lane_width: int | str | None = None) -> str:
    """Hash by which `sweep.json` identifies a sweep; arguments as for `run_sweep`."""
    return sweep.hash(hash_each(user_functions(sweep, lowering, lane_width)), data.identity())


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
        functions: components of the user's own, by name; None: those that the sweep names.
        digests: of these; None: they are hashed.
    """
    functions = user_functions(sweep) if functions is None else functions
    digests = hash_each(functions) if digests is None else digests
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
        "spec_hash": sweep.hash(digests, data.identity()),
        "functions": {name: describe_source(f, digests[name]) for name, f in functions.items()},
        "data_options": data.identity(),
        "command": command or quote_command(sys.argv),
    }


def written_out(run: Run) -> dict[str, Any]:
    """Values of an arm that may be "auto" in its recipe."""
    recipe = resolve(run.recipe)
    return {"arm": run.arm, "lr": recipe.lr, "image_size": recipe.image_size, "augment": recipe.augment}
