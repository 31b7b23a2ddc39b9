"""Metrics of a run: numbers read from the tables of a sweep, one a run, with what comparisons need to know of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fishnet.report.results import Results

FRACTIONS = ("accuracy", "auc", "f1", "ece")  # how names of figures between 0 and 1 end


@dataclass(frozen=True)
class Metric:
    """Metric of a run, with what comparisons need to know of it.

    Args:
        name: in words, for headings: "test accuracy".
        of: `f(results) -> {run: value}`; a run that diverged or has no such figure is left out.
        larger_is_better: False for losses and times.
        margin: differences below this do not matter; None: no equivalence is claimed.
        diverged: what a run without the figure counts as: the value of the worst possible run, such as chance; None:
            the worst value of the runs that it is compared with.
        digits: after the point in tables.
        within: the smallest and the largest value that there can be, at which intervals end; None: any. A bootstrap-t
            interval over seeds of which one has collapsed may reach far beyond.
        of_class: the class whose test images alone it looks at; empty: all of them.
        column: of `runs.parquet`, if it is one.
    """

    name: str
    of: Callable[[Results], dict[int, float]]
    larger_is_better: bool = True
    margin: float | None = None
    diverged: float | None = None
    digits: int = 3
    within: tuple[float, float] | None = None
    of_class: str = ""
    column: str = ""


def column_metric(name: str, words: str, **settings: Any) -> Metric:
    """Metric from a column of `runs.parquet`: values at the epoch selected by validation.

    Args:
        name: of the column, such as `test_accuracy`.
        words: for headings.
        settings: other fields of `Metric`.
    """

    def of(results: Results) -> dict[int, float]:
        return _by_run(results.runs[results.runs["status"] != "diverged"], name)

    settings = _fraction(name) | {"column": name} | settings
    return Metric(words, of, **settings)


def _fraction(name: str) -> dict[str, Any]:
    """Settings of a column whose values lie between 0 and 1."""
    return {"within": (0.0, 1.0)} if name.endswith(FRACTIONS) else {}


def final_metric(name: str, words: str, **settings: Any) -> Metric:
    """Metric from a column of `curves.parquet` after the last epoch."""

    def of(results: Results) -> dict[int, float]:
        last = _rows(results.curves, lambda table: table.sort_values("epoch").groupby("run").tail(1))
        return without_diverged(results, _by_run(last, name))

    return Metric(words, of, **_fraction(name) | settings)


def epochs_until(name: str, level: float, words: str, falling: bool = True, **settings: Any) -> Metric:
    """Number of epochs until a column of `curves.parquet` first passes a level.

    A run that never does, or diverges before it does, counts as one epoch more than the longest run has: it is later
    than all that do, by an amount that nobody knows.

    Args:
        name: of the column, such as `train_loss`.
        level: to be passed.
        words: for headings.
        falling: whether below it; otherwise above it.
        settings: other fields of `Metric`; less is better.
    """

    def of(results: Results) -> dict[int, float]:
        table = results.curves
        if not len(table):
            return {}
        values = table[name].astype(float)
        passed = table[values < level if falling else values > level]
        never = dict.fromkeys(table["run"].unique(), float(table["epoch"].max() + 1))
        return never | values_by_run(passed.groupby("run")["epoch"].min())

    return Metric(words, of, larger_is_better=False, **settings)


def class_metric(name: str, words: str, class_name: str, **settings: Any) -> Metric:
    """Metric from a column of `per_class.parquet` (test split) for one class."""

    def of(results: Results) -> dict[int, float]:
        return _by_run(_rows(results.per_class, lambda table: table[table["class"] == class_name]), name)

    settings = _fraction(name) | {"of_class": class_name} | settings
    return Metric(words, of, **settings)


def probe_metric(
    probe: str, words: str, layer: str | None = None, when: str = "last", over: str = "mean", **settings: Any
) -> Metric:
    """Metric from a probe of `probes.parquet`.

    Args:
        probe: its name, such as `dead_units`.
        words: for headings.
        layer: the layer, site or class that is looked at; None: all of them, summed up by `over`.
        when: "first" or "last" measurement of the run, or "mean" of all.
        over: "mean", "max" or "min" of the layers.
        settings: other fields of `Metric`.
    """

    def of(results: Results) -> dict[int, float]:
        found = probe_values(results.probes, probe, layer, when, over)
        return found if when == "first" else without_diverged(results, found)

    return Metric(words, of, **settings)


def probe_values(
    probes: pd.DataFrame, probe: str, layer: str | None = None, when: str = "last", over: str = "mean"
) -> dict[int, float]:
    """Reads one value a run from the table of probes, as `probe_metric` describes; runs without one are left out."""
    if not len(probes):
        return {}
    table = probes[probes["probe"] == probe]
    if layer is not None:
        table = table[(table["layer"] == layer) | (table["class"] == layer)]
    table = table[np.isfinite(table["value"].astype(float))]
    if when != "mean":
        chosen = table.groupby("run")["step"].transform("max" if when == "last" else "min")
        table = table[table["step"] == chosen]
    by_step = table.groupby(["run", "step"])["value"].agg(over)
    return values_by_run(by_step.groupby("run").mean())


def without_diverged(results: Results, values: Mapping[int, float]) -> dict[int, float]:
    """Drops the values of diverged runs: what they measured earlier says nothing about how they ended."""
    gone = set(results.runs.loc[results.runs["status"] == "diverged", "run"]) if len(results.runs) else set()
    return {run: value for run, value in values.items() if run not in gone}


def _rows(table: pd.DataFrame, choose: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Chooses rows of a table that may be empty."""
    return choose(table) if len(table) else table


def values_by_run(values: pd.Series) -> dict[int, float]:
    """Converts a column indexed by run to run -> value."""
    return {int(run): float(value) for run, value in zip(values.index, values, strict=True)}


def _by_run(table: pd.DataFrame, name: str) -> dict[int, float]:
    return dict(zip(table["run"], table[name].astype(float), strict=True)) if len(table) else {}
