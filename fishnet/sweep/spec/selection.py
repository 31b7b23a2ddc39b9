"""Which metrics are defined on the splits of a task: a run cannot be selected by one that is undefined."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fishnet.data import Task
from fishnet.errors import UsageError
from fishnet.metrics.classification import undefined_metrics
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.stopping import Stopping, parse_target

SPLIT_NAMES = {"val": "validation", "test": "test"}


def check_selection(recipes: Iterable[Recipe], tasks: Mapping[tuple[str, int], Task], stopping: Stopping) -> None:
    """Refuses to select, stop or compare by a figure that is undefined in every epoch.

    Args:
        recipes: without `auto`, one a run.
        tasks: by (task, image size).
        stopping: the rules by which arms end early.

    Raises:
        UsageError: with the classes that the validation split holds, and those that it lacks.
    """
    target = [("target", parse_target(stopping.target)[0])] if stopping.target else []
    asked = {(r.task, r.image_size, *by) for r in recipes for by in [("select_by", r.select_by), *target]}
    for name, size, option, figure in sorted(asked):
        task = tasks[name, size]
        split, _, metric = figure.partition("_")
        if split == "val" and metric in undefined_metrics(split_labels(task, split), len(task.classes)):
            raise UsageError(f"{option}: {figure} is undefined in every epoch: {split_text(task, split)}")


def selection_notes(tasks: Iterable[Task]) -> Iterator[str]:
    """Notes about metrics that no run can have on these splits."""
    for task in tasks:
        for split in SPLIT_NAMES:
            names = undefined_metrics(split_labels(task, split), len(task.classes))
            if names:
                figures = ", ".join(f"{split}_{name}" for name in names)
                yield f"{figures}: undefined, since {split_text(task, split)}"


def split_labels(task: Task, split: str) -> np.ndarray:
    """The labels [n] of a split."""
    return np.asarray(task.labels)[task.splits[split]]


def split_text(task: Task, split: str) -> str:
    """Which classes a split holds and which it lacks, in words."""
    there = np.bincount(split_labels(task, split), minlength=len(task.classes)) > 0
    held, missing = ([name for name, own in zip(task.classes, there, strict=True) if own == is_there]
                     for is_there in (True, False))  # fmt: skip
    lacks = f" and none of {', '.join(missing)}" if missing else ""
    return f"the {SPLIT_NAMES[split]} split of {task.name} holds images of {', '.join(held)} only{lacks}"
