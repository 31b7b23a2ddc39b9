"""From the tables of a sweep to verdicts: what is measured on each run, and which arms are compared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from fishnet.lookup import unknown
from fishnet.report.results import Results
from fishnet.stats import Bounds, Comparison, compare

FEWEST_IMAGES = 5  # of a class in the test split, below which nothing is said of that class
FRACTIONS = ("accuracy", "auc", "f1", "ece")  # how names of figures between 0 and 1 end


@dataclass(frozen=True)
class Look:
    """A finished sweep whose arms have labels."""

    results: Results
    labels: tuple[str, ...]  # of its arms
    places: tuple[int, ...] | None = None  # of these arms in the sweep: two labels may name one; None: in its order

    @property
    def seeds(self) -> int:
        """How many there are of each arm."""
        return len(self.results.sweep["seeds"])

    def runs(self, label: str) -> list[int]:
        """The runs of an arm, seed by seed; none of an arm that is not in this look."""
        if label not in self.labels:
            return []
        place = self.labels.index(label)
        first = (place if self.places is None else self.places[place]) * self.seeds
        return list(range(first, first + self.seeds))


@dataclass(frozen=True)
class Trial:
    """Arms over seeds: a sweep, and further ones with later seeds of the arms that were not decided by then.

    Args:
        name: within its experiment.
        looks: each with the control; an arm that is missing in one is missing in those after it.
    """

    name: str
    looks: tuple[Look, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Of all arms; the first is the control unless a contrast says otherwise."""
        return self.looks[0].labels

    def runs(self, label: str) -> list[list[int]]:
        """The runs of an arm, [look][seed]."""
        return [look.runs(label) for look in self.looks]

    def by_seed(self, measure: "Measure") -> dict[str, list[float]]:
        """label -> values [seed], NaN where a run has none; shorter for arms that later looks leave out."""
        values: dict[str, list[float]] = {label: [] for label in self.labels}
        for look in self.looks:
            of = measure.of(look.results)
            for label in look.labels:
                values[label] += [of.get(run, np.nan) for run in look.runs(label)]
        return values


@dataclass(frozen=True)
class Measure:
    """A figure of a run.

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


def column(name: str, words: str, **settings: Any) -> Measure:
    """A column of `runs.parquet` as a measure: figures at the epoch that validation chose.

    Args:
        name: of the column, such as `test_accuracy`.
        words: for headings.
        settings: other fields of `Measure`.
    """

    def of(results: Results) -> dict[int, float]:
        return _by_run(results.runs[results.runs["status"] != "diverged"], name)

    settings = _fraction(name) | {"column": name} | settings
    return Measure(words, of, **settings)


def _fraction(name: str) -> dict[str, Any]:
    """Settings of a column whose values lie between 0 and 1."""
    return {"within": (0.0, 1.0)} if name.endswith(FRACTIONS) else {}


def at_end(name: str, words: str, **settings: Any) -> Measure:
    """A column of `curves.parquet` after the last epoch as a measure: what training itself reached."""

    def of(results: Results) -> dict[int, float]:
        last = _rows(results.curves, lambda table: table.sort_values("epoch").groupby("run").tail(1))
        return without_diverged(results, _by_run(last, name))

    return Measure(words, of, **_fraction(name) | settings)


def until(name: str, level: float, words: str, falling: bool = True, **settings: Any) -> Measure:
    """The epoch after which a column of `curves.parquet` first passes a level: how fast training gets there.

    A run that never does, or diverges before it does, counts as one epoch more than the longest run has: it is later
    than all that do, by an amount that nobody knows.

    Args:
        name: of the column, such as `train_loss`.
        level: to be passed.
        words: for headings.
        falling: whether below it; otherwise above it.
        settings: other fields of `Measure`; less is better.
    """

    def of(results: Results) -> dict[int, float]:
        table = results.curves
        if not len(table):
            return {}
        values = table[name].astype(float)
        passed = table[values < level if falling else values > level]
        never = dict.fromkeys(table["run"].unique(), float(table["epoch"].max() + 1))
        return never | values_by_run(passed.groupby("run")["epoch"].min())

    return Measure(words, of, larger_is_better=False, **settings)


def class_column(name: str, words: str, class_name: str, **settings: Any) -> Measure:
    """A column of `per_class.parquet` (test split) for one class as a measure."""

    def of(results: Results) -> dict[int, float]:
        return _by_run(_rows(results.per_class, lambda table: table[table["class"] == class_name]), name)

    settings = _fraction(name) | {"of_class": class_name} | settings
    return Measure(words, of, **settings)


def probed(
    figure: str, words: str, layer: str | None = None, when: str = "last", over: str = "mean", **settings: Any
) -> Measure:
    """A figure of `probes.parquet` as a measure.

    Args:
        figure: its name, such as `dead_units`.
        words: for headings.
        layer: the layer, site or class that is looked at; None: all of them, summed up by `over`.
        when: "first" or "last" measurement of the run, or "mean" of all.
        over: "mean", "max" or "min" of the layers.
        settings: other fields of `Measure`.
    """

    def of(results: Results) -> dict[int, float]:
        found = measured(results.probes, figure, layer, when, over)
        return found if when == "first" else without_diverged(results, found)

    return Measure(words, of, **settings)


def measured(
    probes: pd.DataFrame, figure: str, layer: str | None = None, when: str = "last", over: str = "mean"
) -> dict[int, float]:
    """One value a run from the table of probes; arguments as for `probed`. Runs without the figure are left out."""
    if not len(probes):
        return {}
    table = probes[probes["probe"] == figure]
    if layer is not None:
        table = table[(table["layer"] == layer) | (table["class"] == layer)]
    table = table[np.isfinite(table["value"].astype(float))]
    if when != "mean":
        chosen = table.groupby("run")["step"].transform("max" if when == "last" else "min")
        table = table[table["step"] == chosen]
    by_step = table.groupby(["run", "step"])["value"].agg(over)
    return values_by_run(by_step.groupby("run").mean())


def without_diverged(results: Results, values: Mapping[int, float]) -> dict[int, float]:
    """The values of runs that did not diverge: what one has measured until then says nothing of how it ended."""
    gone = set(results.runs.loc[results.runs["status"] == "diverged", "run"]) if len(results.runs) else set()
    return {run: value for run, value in values.items() if run not in gone}


def _rows(table: pd.DataFrame, choose: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Some rows of a table that may be missing."""
    return choose(table) if len(table) else table


def values_by_run(values: pd.Series) -> dict[int, float]:
    """Run -> value, of a column whose index is the runs."""
    return {int(run): float(value) for run, value in zip(values.index, values, strict=True)}


def _by_run(table: pd.DataFrame, name: str) -> dict[int, float]:
    return dict(zip(table["run"], table[name].astype(float), strict=True)) if len(table) else {}


@dataclass(frozen=True)
class Contrast:
    """Arms of one trial compared with a control by one measure: one family of verdicts.

    Args:
        name: by which claims refer to it.
        title: over its table, a phrase.
        trial: the trial's name.
        measure: what is compared.
        control: the arm that the others are compared with; None: the trial's first.
        arms: those compared; None: all others of the trial.
        test: see `fishnet.stats.compare`.
        beside: arm -> other arms without whose runs its measure has no value: whoever trains more of it trains these.
    """

    name: str
    title: str
    trial: str
    measure: Measure
    control: str | None = None
    arms: tuple[str, ...] | None = None
    test: str = "sign-flip"
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """A contrast with its verdicts."""

    contrast: Contrast
    rows: Mapping[str, Comparison]  # by label, the control first; where there is a problem all are undecided
    problem: str = ""  # why there are no verdicts, in place of them
    same: frozenset[str] = frozenset()  # arms whose runs are those of the control
    finished: frozenset[str] = frozenset()  # arms of which a run without a value has not diverged

    def row(self, label: str) -> Comparison:
        """The comparison of one arm.

        Raises:
            UsageError: there is no such arm.
        """
        if label not in self.rows:
            raise unknown("arm", label, self.rows)
        return self.rows[label]

    def foremost(self, among: Iterable[str] | None = None) -> str:
        """The arm with the best mean: of all but the control, or of those named."""
        choose = max if self.contrast.measure.larger_is_better else min
        return choose(list(self.rows)[1:] if among is None else among, key=lambda label: self.row(label).mean)

    def level(self, label: str) -> str:
        """`.74 [.70, .78]`: the mean over the seeds with its 95 % interval, for this arm alone."""
        row, digits = self.row(label), self.contrast.measure.digits
        low, high = row.interval
        return f"{row.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def phrase(self, label: str) -> str:
        """`+.052 [+.031, +.073], better, 8 seeds`: the difference to the control with its own 95 % interval.

        The verdict is that of the simultaneous interval. That is not shown here: Holm's ends at 0 wherever an arm is
        told from 0 and another is not, which says nothing of how large the difference is.
        """
        row, digits = self.row(label), self.contrast.measure.digits
        low, high = row.difference_interval
        verdict = self.problem or row.verdict
        if label in self.same:
            verdict = "the same runs"
        words = f"{row.difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}], {verdict}, {row.n} seeds"
        return words + f", {self.missing(label)}" * bool(row.diverged)

    def missing(self, label: str) -> str:
        """`2 diverged`: how many runs of an arm count as bad ones; empty for none."""
        number = self.row(label).diverged
        return f"{number:,} {'without a value' if label in self.finished else 'diverged'}" if number else ""


def weigh(contrast: Contrast, trial: Trial, alpha: float | None = None, verdicts: bool = True) -> Evidence:
    """Compares the arms of a contrast.

    Args:
        contrast: what is compared.
        trial: its trial.
        alpha: family-wise error of the verdicts; None: .05.
        verdicts: False: figures without verdicts, as of a smoke test.

    Raises:
        UsageError: a control or an arm that the trial does not have.
    """
    values = trial.by_seed(contrast.measure)
    control = contrast.control or trial.labels[0]
    labels = contrast.arms or tuple(label for label in trial.labels if label != control)
    for label in (control, *labels):
        if label not in values:
            raise unknown("arm", label, values)
    measure = contrast.measure
    compared = {label: values[label] for label in (control, *labels)}
    rows = compare(
        compared,
        control,
        margin=measure.margin,
        alpha=alpha,
        larger_is_better=measure.larger_is_better,
        diverged=_worst(measure, compared) if measure.diverged is None else measure.diverged,
        test=contrast.test,
    )
    if measure.within is not None:
        rows = {label: _within(row, *measure.within) for label, row in rows.items()}
    problem = _few_images(measure.of_class, trial) if verdicts else "no verdict: a smoke test"
    if problem:
        rows = {label: row if label == control else replace(row, verdict="undecided") for label, row in rows.items()}
    return Evidence(
        contrast,
        rows,
        problem,
        same=frozenset(label for label in labels if trial.runs(label) == trial.runs(control)),
        finished=frozenset(label for label in (control, *labels) if _valueless(trial, label, values[label])),
    )


def _valueless(trial: Trial, label: str, values: Sequence[float]) -> bool:
    """Whether a run of an arm has no value and has not diverged."""
    runs = [(look, run) for look in trial.looks for run in look.runs(label)]
    missing = [(look, run) for (look, run), value in zip(runs, values, strict=True) if not np.isfinite(value)]
    return any((look.results.runs.set_index("run")["status"].get(run) != "diverged") for look, run in missing)


def _worst(measure: Measure, values: Mapping[str, Sequence[float]]) -> float:
    """The worst value of all runs; 0 where there is none."""
    found = [value for of in values.values() for value in of if np.isfinite(value)]
    return (min if measure.larger_is_better else max)(found, default=0.0)


def _few_images(class_name: str, trial: Trial) -> str:
    """Why there is no verdict on a class; empty where it has test images enough, or where all classes are meant."""
    table = trial.looks[0].results.per_class
    if not class_name or not len(table):
        return ""
    support = int(table[table["class"] == class_name]["support"].min())
    return f"no verdict: {support} test images of {class_name}" if support < FEWEST_IMAGES else ""


def _within(row: Comparison, low: float, high: float) -> Comparison:
    """A comparison whose intervals end where values and their differences do; open ones stay open."""

    def cut(ends: Bounds[float], low: float, high: float) -> Bounds[float]:
        first, last = (min(max(end, low), high) if np.isfinite(end) else end for end in ends)
        return Bounds(first, last)

    most = high - low
    return replace(
        row,
        interval=cut(row.interval, low, high),
        difference_interval=cut(row.difference_interval, -most, most),
        simultaneous_interval=cut(row.simultaneous_interval, -most, most),
    )
