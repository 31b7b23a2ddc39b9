"""Contrasts: arms of a trial compared with a control by one metric, and their verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fishnet.lookup import unknown_name
from fishnet.stats import Bounds, Comparison, compare
from fishnet.study.metrics import Metric
from fishnet.study.trials import Trial

FEWEST_IMAGES = 5  # of a class in the test split, below which nothing is said of that class


@dataclass(frozen=True)
class Contrast:
    """Arms of one trial compared with a control by one metric: one family of verdicts.

    Args:
        name: by which claims refer to it.
        title: over its table, a phrase.
        trial: the trial's name.
        metric: what is compared.
        control: the arm that the others are compared with; None: the trial's first.
        arms: those compared; None: all others of the trial.
        test: see `fishnet.stats.compare`.
        requires: arm -> other arms without whose runs its metric has no value: whoever trains more of it trains these.
    """

    name: str
    title: str
    trial: str
    metric: Metric
    control: str | None = None
    arms: tuple[str, ...] | None = None
    test: str = "sign-flip"
    requires: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
            raise unknown_name("arm", label, self.rows)
        return self.rows[label]

    def best_arm(self, among: Iterable[str] | None = None) -> str:
        """The arm with the best mean: of all but the control, or of those named."""
        choose = max if self.contrast.metric.larger_is_better else min
        return choose(list(self.rows)[1:] if among is None else among, key=lambda label: self.row(label).mean)

    def mean_text(self, label: str) -> str:
        """`.74 [.70, .78]`: the mean over the seeds with its 95 % interval, for this arm alone."""
        row, digits = self.row(label), self.contrast.metric.digits
        low, high = row.interval
        return f"{row.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def difference_text(self, label: str) -> str:
        """`+.052 [+.031, +.073], better, 8 seeds`: the difference to the control with its own 95 % interval.

        The verdict is that of the simultaneous interval. That is not shown here: Holm's ends at 0 wherever an arm is
        told from 0 and another is not, which says nothing of how large the difference is.
        """
        row, digits = self.row(label), self.contrast.metric.digits
        low, high = row.difference_interval
        verdict = self.problem or row.verdict
        if label in self.same:
            verdict = "the same runs"
        words = f"{row.difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}], {verdict}, {row.n} seeds"
        return words + f", {self.missing_text(label)}" * bool(row.diverged)

    def missing_text(self, label: str) -> str:
        """`2 diverged`: how many runs of an arm count as bad ones; empty for none."""
        number = self.row(label).diverged
        return f"{number:,} {'without a value' if label in self.finished else 'diverged'}" if number else ""


def evaluate_contrast(contrast: Contrast, trial: Trial, alpha: float | None = None, verdicts: bool = True) -> Evidence:
    """Compares the arms of a contrast.

    Args:
        contrast: what is compared.
        trial: its trial.
        alpha: family-wise error of the verdicts; None: .05.
        verdicts: False: figures without verdicts, as of a smoke test.

    Raises:
        UsageError: a control or an arm that the trial does not have.
    """
    values = trial.by_seed(contrast.metric)
    control = contrast.control or trial.labels[0]
    labels = contrast.arms or tuple(label for label in trial.labels if label != control)
    for label in (control, *labels):
        if label not in values:
            raise unknown_name("arm", label, values)
    metric = contrast.metric
    compared = {label: values[label] for label in (control, *labels)}
    rows = compare(
        compared,
        control,
        margin=metric.margin,
        alpha=alpha,
        larger_is_better=metric.larger_is_better,
        diverged=_worst(metric, compared) if metric.diverged is None else metric.diverged,
        test=contrast.test,
    )
    if metric.within is not None:
        rows = {label: _within(row, *metric.within) for label, row in rows.items()}
    problem = _few_images(metric.of_class, trial) if verdicts else "no verdict: a smoke test"
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


def _worst(metric: Metric, values: Mapping[str, Sequence[float]]) -> float:
    """The worst value of all runs; 0 where there is none."""
    found = [value for of in values.values() for value in of if np.isfinite(value)]
    return (min if metric.larger_is_better else max)(found, default=0.0)


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
