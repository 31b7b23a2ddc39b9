"""Metrics of a run that are derived from its curves, its classes and its predictions."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fishnet.data.corruption_spec import parse_modifiers, split_name
from fishnet.report.results import Results
from fishnet.stats import bias_variance
from fishnet.study.metrics import Metric, values_by_run, without_diverged


def drop_from_best(name: str, words: str, **settings: Any) -> Metric:
    """Drop of a column of `curves.parquet` from its highest to its last value: what further training cost.

    Args:
        name: of the column, such as `val_accuracy`.
        words: for headings.
        settings: other fields of `Metric`; less is better unless they say otherwise.
    """

    def of(results: Results) -> dict[int, float]:
        if not len(results.curves):
            return {}
        by_run = results.curves.sort_values("epoch").groupby("run")[name]
        return without_diverged(results, values_by_run(by_run.max() - by_run.last()))

    settings = {"larger_is_better": False} | settings
    return Metric(words, of, **settings)


def final_gap(first: str, second: str, words: str, **settings: Any) -> Metric:
    """Difference of two columns of `curves.parquet` after the last epoch, such as the generalization gap.

    Args:
        first: a column.
        second: the column that is subtracted.
        words: for headings.
        settings: other fields of `Metric`; less is better unless they say otherwise.
    """

    def of(results: Results) -> dict[int, float]:
        if not len(results.curves):
            return {}
        last = results.curves.sort_values("epoch").groupby("run").tail(1).set_index("run")
        return without_diverged(results, values_by_run(last[first] - last[second]))

    settings = {"larger_is_better": False} | settings
    return Metric(words, of, **settings)


def log10_metric(metric: Metric, words: str, **settings: Any) -> Metric:
    """Decimal logarithm of a positive metric: differences are factors, .1 is a factor of 1.26.

    Args:
        metric: values below 1e-12 count as 1e-12.
        words: for headings.
        settings: other fields of `Metric`; `diverged` is that of the metric, as a logarithm, unless given.
    """

    def of(results: Results) -> dict[int, float]:
        return {run: float(np.log10(max(value, 1e-12))) for run, value in metric.of(results).items()}

    worst = None if metric.diverged is None else float(np.log10(metric.diverged))
    return Metric(words, of, **{"larger_is_better": metric.larger_is_better, "diverged": worst} | settings)


def layer_ratio_metric(
    probe: str, of_layers: Callable[[Sequence[float]], float], words: str, magnitude: bool = True, **settings: Any
) -> Metric:
    """Decimal logarithm of a function of a probe's first values by layer, such as a ratio of two layers.

    Args:
        probe: its name in `probes.parquet`; positive.
        of_layers: `f(values in order of execution, of layers with a kernel) -> number`.
        words: for headings.
        magnitude: whether to take the absolute value: the number of decades from 1.
        settings: other fields of `Metric`.
    """

    def of(results: Results) -> dict[int, float]:
        table = results.probes
        if not len(table):
            return {}
        table = table[(table["probe"] == probe) & table["layer"].astype(str).str.match("dense_|conv_|head")]
        table = table[table["step"] == table.groupby("run")["step"].transform("min")].sort_values("index")
        found = {}
        for run, rows in iterate_runs(table):
            values = rows["value"]
            with np.errstate(divide="ignore", invalid="ignore"):
                value = np.log10(of_layers(values.astype(float).tolist()))
            if np.isfinite(value):
                found[run] = float(abs(value) if magnitude else value)
        return found

    return Metric(words, of, **settings)


def other_classes_metric(name: str, words: str, class_name: str, over: str = "min", **settings: Any) -> Metric:
    """Summary of a column of `per_class.parquet` over all classes but one.

    Args:
        name: of the column, such as `auc`.
        words: for headings.
        class_name: the class that is left out.
        over: "min", "mean" or "max" of the others.
        settings: other fields of `Metric`.
    """

    def of(results: Results) -> dict[int, float]:
        table = results.per_class
        if not len(table):
            return {}
        others = table[(table["class"] != class_name) & table[name].notna()]
        return values_by_run(others.groupby("run")[name].agg(over))

    return Metric(words, of, **settings)


def prediction_metric(
    function: Callable[[np.ndarray, np.ndarray], float], words: str, split: str = "test", **settings: Any
) -> Metric:
    """Function of a run's predictions.

    Args:
        function: `f(labels [n], probabilities [n, k]) -> number`.
        words: for headings.
        split: "test" or "val".
        settings: other fields of `Metric`.
    """

    def of(results: Results) -> dict[int, float]:
        found = predictions_by_run(results, split)
        return {run: float(function(labels, p)) for run, (labels, p) in found.items()}

    return Metric(words, of, **settings)


def bias_variance_metric(part: str, words: str, split: str = "test", **settings: Any) -> Metric:
    """Error, bias or variance over networks of one seed trained on different draws of the training images.

    Runs that differ only in the draw of `train=SHARE@DRAW` in their task belong together. Each of them gets the value
    of all of them, so that an arm of one draw stands for its network.

    Args:
        part: "error", "bias" or "variance" of `fishnet.stats.bias_variance`.
        words: for headings.
        split: "test" or "val".
        settings: other fields of `Metric`; less is better unless they say otherwise.
    """

    def of(results: Results) -> dict[int, float]:
        found = predictions_by_run(results, split)
        values = {}
        for runs in group_by_draw(results, found).values():
            if len(runs) > 1:
                labels = found[runs[0]][0]
                split_up = bias_variance(np.stack([found[run][1] for run in runs]), labels)
                values |= dict.fromkeys(runs, float(getattr(split_up, part)))
        return values

    settings = {"larger_is_better": False} | settings
    return Metric(words, of, **settings)


def predictions_by_run(results: Results, split: str = "test") -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Run -> labels [n] and probabilities [n, k] float64 of a split, in the order of the images."""
    table = results.predictions
    if not len(table):
        return {}
    found = {}
    for run, rows in iterate_runs(table[table["split"] == split]):
        rows = rows.sort_values("example").dropna(axis=1, how="all")
        columns = [name for name in rows if str(name).startswith("p_")]  # other tasks' classes are empty here
        found[run] = rows["label"].to_numpy(), rows[columns].to_numpy(np.float64)
    return found


def iterate_runs(table: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yields the runs of a table with their rows, in the order of the runs."""
    for run, rows in table.groupby("run"):
        yield int(str(run)), rows


def group_by_draw(results: Results, runs: Iterable[int]) -> dict[Hashable, list[int]]:
    """Groups runs that differ only in the draw of their training images, in the order of the runs."""
    groups: dict[Hashable, list[int]] = {}
    for run in sorted(runs):
        recipe = results.recipe(run)
        key = json.dumps(dict(recipe) | {"task": task_without_draw(recipe["task"])}, sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    return groups


def task_without_draw(task: str) -> tuple[str, tuple]:
    """Splits a task's name into parts, without the number of the draw of its training images."""
    base, text = split_name(task)
    modifiers = () if text is None else parse_modifiers(text)
    return base, tuple(repr(replace(m, draw=0) if m.key == "train" else m) for m in modifiers)
