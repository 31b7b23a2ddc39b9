"""Further figures of a run, beside those of `evidence`: what its curves, its classes and its predictions come to."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fishnet.data.corruption_spec import parse_modifiers, split_name
from fishnet.report.results import Results
from fishnet.stats import bias_variance
from fishnet.study.contrasts import Measure, values_by_run, without_diverged


def fallen(name: str, words: str, **settings: Any) -> Measure:
    """By how much a column of `curves.parquet` ends below its highest value: what training on has cost.

    Args:
        name: of the column, such as `val_accuracy`.
        words: for headings.
        settings: other fields of `Measure`; less is better unless they say otherwise.
    """

    def of(results: Results) -> dict[int, float]:
        if not len(results.curves):
            return {}
        by_run = results.curves.sort_values("epoch").groupby("run")[name]
        return without_diverged(results, values_by_run(by_run.max() - by_run.last()))

    settings = {"larger_is_better": False} | settings
    return Measure(words, of, **settings)


def apart_at_end(first: str, second: str, words: str, **settings: Any) -> Measure:
    """The difference of two columns of `curves.parquet` after the last epoch, such as of training and validation.

    Args:
        first: a column.
        second: the one that is taken from it.
        words: for headings.
        settings: other fields of `Measure`; less is better unless they say otherwise.
    """

    def of(results: Results) -> dict[int, float]:
        if not len(results.curves):
            return {}
        last = results.curves.sort_values("epoch").groupby("run").tail(1).set_index("run")
        return without_diverged(results, values_by_run(last[first] - last[second]))

    settings = {"larger_is_better": False} | settings
    return Measure(words, of, **settings)


def logarithm(measure: Measure, words: str, **settings: Any) -> Measure:
    """The decimal logarithm of a measure that is positive: differences are factors, .1 being one of 1.26.

    Args:
        measure: whose values below 1e-12 count as that.
        words: for headings.
        settings: other fields of `Measure`; `diverged` is that of the measure, as a logarithm, unless given.
    """

    def of(results: Results) -> dict[int, float]:
        return {run: float(np.log10(max(value, 1e-12))) for run, value in measure.of(results).items()}

    worst = None if measure.diverged is None else float(np.log10(measure.diverged))
    return Measure(words, of, **{"larger_is_better": measure.larger_is_better, "diverged": worst} | settings)


def decades(
    figure: str, of_layers: Callable[[Sequence[float]], float], words: str, magnitude: bool = True, **settings: Any
) -> Measure:
    """The decimal logarithm of something made of a figure's first values layer by layer, such as a ratio of two.

    Args:
        figure: of `probes.parquet`, positive.
        of_layers: `f(values in order of execution, of layers with a kernel) -> number`.
        words: for headings.
        magnitude: how many decades it is from 1, above or below; otherwise with its sign.
        settings: other fields of `Measure`.
    """

    def of(results: Results) -> dict[int, float]:
        table = results.probes
        if not len(table):
            return {}
        table = table[(table["probe"] == figure) & table["layer"].astype(str).str.match("dense_|conv_|head")]
        table = table[table["step"] == table.groupby("run")["step"].transform("min")].sort_values("index")
        found = {}
        for run, rows in iterate_runs(table):
            values = rows["value"]
            with np.errstate(divide="ignore", invalid="ignore"):
                value = np.log10(of_layers(values.astype(float).tolist()))
            if np.isfinite(value):
                found[run] = float(abs(value) if magnitude else value)
        return found

    return Measure(words, of, **settings)


def other_classes(name: str, words: str, class_name: str, over: str = "min", **settings: Any) -> Measure:
    """A column of `per_class.parquet` over all classes but one.

    Args:
        name: of the column, such as `auc`.
        words: for headings.
        class_name: the class that is left out.
        over: "min", "mean" or "max" of the others.
        settings: other fields of `Measure`.
    """

    def of(results: Results) -> dict[int, float]:
        table = results.per_class
        if not len(table):
            return {}
        others = table[(table["class"] != class_name) & table[name].notna()]
        return values_by_run(others.groupby("run")[name].agg(over))

    return Measure(words, of, **settings)


def predicted(
    function: Callable[[np.ndarray, np.ndarray], float], words: str, split: str = "test", **settings: Any
) -> Measure:
    """What a function makes of a run's predictions.

    Args:
        function: `f(labels [n], probabilities [n, k]) -> number`.
        words: for headings.
        split: "test" or "val".
        settings: other fields of `Measure`.
    """

    def of(results: Results) -> dict[int, float]:
        found = answers(results, split)
        return {run: float(function(labels, p)) for run, (labels, p) in found.items()}

    return Measure(words, of, **settings)


def over_sets(part: str, words: str, split: str = "test", **settings: Any) -> Measure:
    """Error, bias or variance of the networks of one seed that learned different draws of the training images.

    Runs that differ in nothing but the draw of `train=SHARE@DRAW` in their task are the draws of one network; each of
    them has the figure of all of them, so that an arm of one draw stands for its network.

    Args:
        part: "error", "bias" or "variance" of `fishnet.stats.bias_variance`.
        words: for headings.
        split: "test" or "val".
        settings: other fields of `Measure`; less is better unless they say otherwise.
    """

    def of(results: Results) -> dict[int, float]:
        found = answers(results, split)
        values = {}
        for runs in draws_of(results, found).values():
            if len(runs) > 1:
                labels = found[runs[0]][0]
                split_up = bias_variance(np.stack([found[run][1] for run in runs]), labels)
                values |= dict.fromkeys(runs, float(getattr(split_up, part)))
        return values

    settings = {"larger_is_better": False} | settings
    return Measure(words, of, **settings)


def answers(results: Results, split: str = "test") -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """run -> labels [n] and probabilities [n, k] float64 of a split, in the order of the images."""
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
    """Runs of a table and their rows, in the order of the runs."""
    for run, rows in table.groupby("run"):
        yield int(str(run)), rows


def draws_of(results: Results, runs: Iterable[int]) -> dict[Hashable, list[int]]:
    """Runs by everything that determines them but the draw of their training images, in the order of the runs."""
    groups: dict[Hashable, list[int]] = {}
    for run in sorted(runs):
        recipe = results.recipe(run)
        key = json.dumps(dict(recipe) | {"task": undrawn(recipe["task"])}, sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    return groups


def undrawn(task: str) -> tuple[str, tuple]:
    """A task's name in parts, without the number of the draw of its training images."""
    base, text = split_name(task)
    modifiers = () if text is None else parse_modifiers(text)
    return base, tuple(repr(replace(m, draw=0) if m.key == "train" else m) for m in modifiers)
