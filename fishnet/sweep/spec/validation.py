"""Refuses a sweep that cannot work, or an option that would have no effect, before any data is read.

Every check raises a `UsageError` that repeats what was asked for and says what is valid.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fishnet.checks.value_types import format_value
from fishnet.data import Task, check_task
from fishnet.data.corruption_spec import parse_classes, split_name, task_folder
from fishnet.errors import UsageError
from fishnet.host.numbers import counted
from fishnet.host.paths import is_within
from fishnet.metrics.classification import undefined_metrics
from fishnet.sweep.spec.combinations import check_recipe
from fishnet.sweep.spec.recipe import FIELDS, Recipe
from fishnet.sweep.spec.stopping import Stopping, parse_target
from fishnet.sweep.spec.sweep import Sweep

# An epoch of a run has about half a kilobyte of curves in memory, for 15 classes: a gigabyte for all.
MOST_EPOCHS = 2**21
READS_FILES = "mnist"  # the task that reads files of a data folder
SPLIT_NAMES = {"val": "validation", "test": "test"}


def check_sweep(
    sweep: Sweep, data_dir: str | os.PathLike | None = None, group_regex: str | None = None, strict: bool = False
) -> None:
    """Checks every run's recipe and its task, and that everything that was asked for has an effect.

    Raises:
        UsageError: a name, value or combination that makes no sense; the message repeats it and lists valid ones.
        UserError: a task whose files are missing.
    """
    fixed = {name: [getattr(sweep.recipe, name)] for name in FIELDS}
    drawn = {name: domain.ends for name, domain in sweep.samples.space.items()}
    for name, values in [*fixed.items(), *sweep.axes.items(), *drawn.items()]:
        for value in values:
            FIELDS[name].check(value)
    recipes = [dataclasses.replace(sweep.recipe, **arm) for arm in sweep.arms()]
    runs, epochs = len(recipes) * len(sweep.seed_list), max(recipe.epochs for recipe in recipes)
    if runs * epochs > MOST_EPOCHS:
        raise UsageError(
            f"{runs:,} runs of up to {epochs:,} epochs are more than the {MOST_EPOCHS:,} epochs that a sweep can hold"
        )
    for recipe in recipes:
        check_recipe(recipe)
    tasks = [(recipe.task, None if recipe.image_size == "auto" else recipe.image_size) for recipe in recipes]
    classes = {key: check_task(*key, data_dir=data_dir, group_regex=group_regex) for key in dict.fromkeys(tasks)}
    check_uses(recipes)
    check_stopping(sweep)
    check_data_options(sweep, data_dir, strict)
    for recipe, key in zip(recipes, tasks, strict=True):
        if (names := classes[key]) is not None and recipe.hard_classes != "none":
            parse_classes(recipe.hard_classes, names)


def check_uses(recipes: Sequence[Recipe]) -> None:
    """Refuses a field that was set and that no recipe of the arms makes use of."""
    for name, field in FIELDS.items():
        if field.used_by is None:
            continue
        changed = [recipe for recipe in recipes if getattr(recipe, name) != field.default]
        if changed and not any(map(field.used_by.holds, changed)):
            value, needed = format_value(getattr(changed[0], name)), field.used_by.words()
            raise UsageError(f"{name}: {value!r} would have no effect in any run: it is used only with {needed}")


def check_stopping(sweep: Sweep) -> None:
    """Refuses rules that could not end any arm before its last epoch."""
    stopping, longest = sweep.stopping, max(sweep.varied.get("epochs", [sweep.recipe.epochs]))
    rules = [name for name, given in (("halving", stopping.halving), ("median", stopping.median)) if given]
    useless = f"{' and '.join(rules)} stopping would have no effect"
    if rules and len(sweep.arms()) == 1:
        raise UsageError(f"{useless}: it compares arms, and there is one")
    if rules and stopping.first >= longest:
        raise UsageError(
            f"{useless}: the first rung, after {counted(stopping.first, 'epoch')}, is not before the last of "
            f"{counted(longest, 'epoch')}"
        )
    if stopping.target and longest == 1:
        raise UsageError(f"target {stopping.target!r} would have no effect: the arms have one epoch")


def check_lowering(sweep: Sweep, lowering: str | None) -> None:
    """Refuses a lowering of convolutions where all networks are mlps."""
    if lowering is not None and not has_convolutions(sweep):
        raise UsageError(f"lowering {lowering} would have no effect: an mlp has no convolutions")


def has_convolutions(sweep: Sweep) -> bool:
    """Tells whether any network of a sweep has convolutions: a model other than an mlp, or what pretrains it."""
    models, pretrain = (sweep.varied.get(name, [getattr(sweep.recipe, name)]) for name in ("model", "pretrain"))
    return set(models) != {"mlp"} or set(pretrain) != {"none"}


def check_data_options(sweep: Sweep, data_dir: str | os.PathLike | None = None, strict: bool = False) -> None:
    """Refuses options for data that none of the tasks reads: they would change a folder's name, or nothing."""
    kinds = {split_name(task)[0].split(":")[0] for task in sweep.varied.get("task", [sweep.recipe.task])}
    if data_dir is not None and READS_FILES not in kinds:
        raise UsageError(
            f"the data folder {data_dir} would have no effect: it belongs to the task {READS_FILES}; "
            "a folder of photographs is a task of its own, folder:PATH"
        )
    if strict and "folder" not in kinds:
        raise UsageError("strict would have no effect: it belongs to the tasks folder:PATH, whose files may be bad")


def check_out(sweep: Sweep, out: str | Path) -> None:
    """Refuses an output folder within a folder of photographs, whose files or class it would be, and the reverse."""
    tasks = {sweep.recipe.task, *sweep.varied.get("task", ())}
    for folder in filter(None, map(task_folder, sorted(tasks))):
        if is_within(out, folder) or any(is_within(out, link) for link in links_in(folder)):
            raise UsageError(
                f"the output folder {out} is within the photographs of {folder}, where the next run would take it for "
                "a class: choose an --out elsewhere"
            )
        if is_within(folder, out):
            raise UsageError(f"the photographs of {folder} are within the output folder {out}: choose another --out")


def links_in(folder: str) -> list[str]:
    """Links in a folder; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_symlink()]
    except OSError:  # a task whose folder is missing or cannot be read is refused elsewhere, with the reason
        return []


# --- when the data are there ---


def check_selection(recipes: Iterable[Recipe], tasks: Mapping[tuple[str, Any], Task], stopping: Stopping) -> None:
    """Refuses to select, stop or compare by a metric that is undefined in every epoch.

    Args:
        recipes: without `auto`, one a run.
        tasks: by (task, image size).
        stopping: the rules by which arms end early.
    """
    target = [("target", parse_target(stopping.target)[0])] if stopping.target else []
    asked = {(r.task, r.image_size, *by) for r in recipes for by in [("select_by", r.select_by), *target]}
    for name, size, option, column in sorted(asked):
        task = tasks[name, size]
        split, _, metric = column.partition("_")
        if split == "val" and metric in undefined_metrics(split_labels(task, split), len(task.classes)):
            raise UsageError(f"{option}: {column} is undefined in every epoch: {split_text(task, split)}")


def selection_notes(tasks: Iterable[Task]) -> Iterator[str]:
    """Notes about metrics that no run can have on these splits."""
    for task in tasks:
        for split in SPLIT_NAMES:
            names = undefined_metrics(split_labels(task, split), len(task.classes))
            if names:
                columns = ", ".join(f"{split}_{name}" for name in names)
                yield f"{columns}: undefined, since {split_text(task, split)}"


def split_labels(task: Task, split: str) -> np.ndarray:
    """Labels [n] of a split."""
    return np.asarray(task.labels)[task.splits[split]]


def split_text(task: Task, split: str) -> str:
    """Classes that a split holds and lacks, in words."""
    counts = np.bincount(split_labels(task, split), minlength=len(task.classes))
    held = ", ".join(name for name, count in zip(task.classes, counts, strict=True) if count)
    missing = ", ".join(name for name, count in zip(task.classes, counts, strict=True) if not count)
    lacks = f" and none of {missing}" if missing else ""
    return f"the {SPLIT_NAMES[split]} split of {task.name} holds images of {held} only{lacks}"
