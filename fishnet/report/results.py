"""Results of a sweep: its output folder read back, and summarized by arm."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fishnet.checks.arguments import as_folder
from fishnet.checks.value_types import format_value
from fishnet.errors import UserError
from fishnet.host.names import escape_text
from fishnet.host.parquet import BadTable, read_table
from fishnet.report.write_again import rewrite_hint
from fishnet.stats import Interval, interval, t_interval
from fishnet.sweep.spec.field_parsing import shown_value
from fishnet.sweep.spec.search_space import Choices, Range, domain_from
from fishnet.sweep.spec.sweep import arm_name
from fishnet.sweep.store.finished import check_checkpoints
from fishnet.sweep.store.folder import SWEEP_FILE, read_sweep_file

METRICS = ("loss", "accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "ece")
RANK_BY = "val_accuracy"  # validation chooses; test is only reported
TABLES = ("curves", "class_curves", "per_class", "predictions", "probes")


@dataclass(frozen=True)
class Arm:
    """Arm: one combination of axis and sampled values, summarized over its seeds."""

    name: str
    values: Mapping[str, str]  # axis -> value as `shown_value`
    runs: tuple[int, ...]  # those that did not diverge, best first by validation
    seeds: int
    diverged: int
    metrics: Mapping[str, Interval]  # "val_accuracy", ...: over `runs`


@dataclass(frozen=True)
class Results:
    """The tables of one output folder. Tables that are missing are empty."""

    out: Path
    sweep: Mapping[str, Any]  # sweep.json
    runs: pd.DataFrame
    curves: pd.DataFrame
    per_class: pd.DataFrame
    predictions: pd.DataFrame
    probes: pd.DataFrame = field(default_factory=pd.DataFrame)
    class_curves: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def axes(self) -> dict[str, list[str]]:
        """Fields that differ between arms -> values as `shown_value`: axes first, then sampled fields."""
        values = dict(self.sweep["axes"])
        values |= {name: [point[name] for point in self.draws] for name in self.sampled}
        return {name: list(dict.fromkeys(map(shown_value, values))) for name, values in values.items()}

    @cached_property
    def sampled(self) -> dict[str, Range | Choices]:
        """Domains of the sampled fields."""
        space = (self.sweep.get("samples") or {}).get("space", {})
        return {name: domain_from(name, spec) for name, spec in space.items()}

    @cached_property
    def listed(self) -> bool:
        """Whether the arms were listed one by one, neither drawn nor crossed."""
        given = bool(self.sampled) and "method" not in self.sweep["samples"] and not self.sweep["axes"]
        return given and all(isinstance(domain, Choices) for domain in self.sampled.values())

    @property
    def draws(self) -> list[dict[str, Any]]:
        """The drawn values of each draw; one draw of nothing where nothing is sampled."""
        return (self.sweep.get("samples") or {}).get("draws", [{}])

    @cached_property
    def points(self) -> dict[str, dict[str, Any]]:
        """The values by which each arm differs from the others, by its name, in the order of the sweep."""
        axes = self.sweep["axes"]
        grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        points = [chosen | draw for chosen, draw in itertools.product(grid, self.draws)]
        return {arm_name(point): point for point in points}

    @cached_property
    def arms(self) -> list[Arm]:
        """Every arm, in the order of the sweep."""
        return [
            self._arm(name, {axis: shown_value(value) for axis, value in point.items()})
            for name, point in self.points.items()
        ]

    def label(self, name: str) -> str:
        """Label of the arm `name` on the page: for listed arms only what differs from the recipe.

        `loss=focal` and `the recipe` of `loss=focal lr=0.1 widths=8` and `loss=cross_entropy lr=0.1 widths=8`, where
        the recipe has the latter's values; `task with train=0.5, without noise` of a task planted otherwise.
        """
        if not self.listed:
            return escape_text(name)
        shared = self.sweep["recipe"]
        own = {n: v for n, v in self.points[name].items() if format_value(v) != format_value(shared[n])}
        words = [_planted_otherwise(own.pop("task"), shared["task"])] if "task" in own else []
        return escape_text(" ".join([arm_name(own)] * bool(own) + words)) or "the recipe"

    @property
    def headings(self) -> list[str]:
        """Headings of the columns that identify an arm in a table."""
        return ["arm"] if self.listed else list(self.axes)

    def cells(self, arm: Arm) -> list[str]:
        """Cells of the columns that identify an arm."""
        return [self.label(arm.name)] if self.listed else list(arm.values.values())

    @cached_property
    def ranked(self) -> list[Arm]:
        """The arms from best to worst mean validation accuracy, ties to the lower mean validation loss; those with a
        diverged run come after those without."""

        def rank(arm: Arm) -> tuple[bool, float, float]:
            return arm.diverged > 0, -_or_lowest(arm.metrics[RANK_BY].mean), arm.metrics["val_loss"].mean

        return sorted(self.arms, key=rank)

    @property
    def best(self) -> Arm | None:
        """The arm with the best mean validation accuracy, if any has one."""
        return next((arm for arm in self.ranked if arm.runs), None)

    @property
    def worst(self) -> Arm | None:
        """The arm with the lowest mean validation accuracy among those with a run that did not diverge."""
        arms = [arm for arm in self.arms if not np.isnan(arm.metrics[RANK_BY].mean)]
        return min(arms, key=lambda arm: arm.metrics[RANK_BY].mean, default=None)

    @property
    def best_run(self) -> int | None:
        """The run with the best validation accuracy of all; ties go to the lower validation loss."""
        order = self._by_validation(self.runs[self.runs["status"] != "diverged"])
        return order[0] if order else None

    @property
    def shown_run(self) -> int | None:
        """The best run of those whose predictions were kept: all of a small sweep, two an arm of a large one."""
        kept = set() if self.predictions.empty else set(self.predictions["run"])
        order = self._by_validation(self.runs[self.runs["status"] != "diverged"])
        return next((run for run in order if run in kept), None)

    def row(self, run: int) -> pd.Series:
        """The row of `runs` of one run."""
        return self.runs.loc[self.runs["run"] == run].iloc[0]

    def curve(self, arm: Arm, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Epochs [e], and mean and half-width [e] of a column of `curves` over the arm's runs."""
        if self.curves.empty or column not in self.curves:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        mine = self.curves[self.curves["run"].isin(arm.runs)]
        table = mine.pivot(index="run", columns="epoch", values=column).astype(float)
        mean, half, _ = t_interval(table.to_numpy().reshape(len(table.index), len(table.columns)), axis=0)
        return table.columns.to_numpy(), mean, half

    def classes_of(self, run: int) -> list[str]:
        """The classes of a run, in the order of its labels."""
        if not self.per_class.empty and (mine := self.per_class[self.per_class["run"] == run]["class"].tolist()):
            return mine
        return list(self.sweep.get("classes", {}).get(self.recipe(run)["task"], ()))

    def recipe(self, run: int) -> dict[str, Any]:
        """The recipe of one run as plain values, `auto` written out."""
        row = self.row(run)
        written_out = next((arm for arm in self.sweep.get("arms", ()) if arm["arm"] == row["arm"]), {})
        own = self.points[row["arm"]] | {name: value for name, value in written_out.items() if name != "arm"}
        return dict(self.sweep["recipe"]) | own | {"seed": int(row["seed"])}

    def test_predictions(self, run: int) -> pd.DataFrame:
        """The rows of `predictions` of one run on the test split; empty when they were not kept."""
        if self.predictions.empty:
            return self.predictions
        return self.predictions[(self.predictions["run"] == run) & (self.predictions["split"] == "test")]

    def confusion(self, run: int) -> np.ndarray | None:
        """Test images [true class, guess] of one run; None when its predictions were not kept."""
        table, classes = self.test_predictions(run), self.classes_of(run)
        columns = [f"p_{name}" for name in classes]
        if table.empty or not set(columns) <= set(table.columns):
            return None
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (table["label"].to_numpy(), table[columns].to_numpy(float).argmax(1)), 1)
        return counts

    def _arm(self, name: str, values: dict[str, str]) -> Arm:
        rows = self.runs[self.runs["arm"] == name]
        fine = rows[rows["status"] != "diverged"]
        columns = [f"{split}_{metric}" for split in ("val", "test") for metric in METRICS]
        metrics = {column: interval(fine[column].to_numpy(float)) for column in columns}
        return Arm(name, values, tuple(self._by_validation(fine)), len(rows), len(rows) - len(fine), metrics)

    @staticmethod
    def _by_validation(rows: pd.DataFrame) -> list[int]:
        known = rows[rows[RANK_BY].notna()]
        return known.sort_values([RANK_BY, "val_loss", "run"], ascending=[False, True, True])["run"].tolist()


def _planted_otherwise(task: str, other: str) -> str:
    """Describes how a task differs from another if only its corruptions differ."""
    name, parts = _parts(task)
    other_name, others = _parts(other)
    kinds, other_kinds = ([part.partition("=")[0] for part in found] for found in (parts, others))
    more, less = [part for part in parts if part not in others], []
    for part, kind in zip(others, other_kinds, strict=True):
        replaced = kinds.count(kind) == other_kinds.count(kind) == 1
        if part not in parts and not replaced:
            less.append(part if kind in kinds else kind)
    if name != other_name or not (more or less):
        return f"task={task}"
    less = list(dict.fromkeys(less))
    return "task " + ", ".join([f"with {'&'.join(more)}"] * bool(more) + [f"without {'&'.join(less)}"] * bool(less))


def _parts(task: str) -> tuple[str, list[str]]:
    name, _, planted = task.partition("?")
    return name, planted.split("&") if planted else []


def load_results(out: str | Path, tables: Sequence[str] = TABLES) -> Results:
    """Reads the results in an output folder.

    Args:
        out: the folder.
        tables: the ones that are needed beside that of the runs.

    Raises:
        UserError: the folder holds no sweep, or one of its files is not as the sweep wrote it.
    """
    out = as_folder("out", out)
    sweep = read_sweep_file(out)
    if sweep is None:
        raise UserError(f"{out} holds no sweep: {SWEEP_FILE} is missing")
    if not (out / "runs.parquet").exists() and not sweep.get("finished"):
        raise UserError(f"{out} holds no results yet: runs.parquet is missing")
    digests = sweep.get("tables", {})
    try:
        found = {
            name: read_table(path, {"sweep": sweep["spec_hash"]}, digests.get(name))
            for name in ("runs", *tables)
            if (path := out / f"{name}.parquet").exists() or name in digests
        }
    except BadTable as error:
        if sweep["recipe"] and sweep.get("finished"):
            check_checkpoints(out, sweep, error)
        raise UserError(f"{error}: {rewrite_hint(out, sweep)}") from error
    return Results(out, sweep, **{name: found.get(name, pd.DataFrame()) for name in ("runs", *TABLES)})


def _or_lowest(value: float) -> float:
    return -np.inf if np.isnan(value) else value
