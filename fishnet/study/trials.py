"""Trials: the arms of an experiment over seeds, from one or more finished sweeps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fishnet.report.results import Results

if TYPE_CHECKING:
    from fishnet.study.metrics import Metric


@dataclass(frozen=True)
class Look:
    """A finished sweep whose arms have labels."""

    results: Results
    labels: tuple[str, ...]  # of its arms
    places: tuple[int, ...] | None = None  # of these arms in the sweep: two labels may name one; None: in its order

    @property
    def seeds(self) -> int:
        """Number of seeds of each arm."""
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
    """Arms over seeds: a sweep, and later sweeps with further seeds of the arms that were undecided.

    Args:
        name: within its experiment.
        looks: each with the control; an arm that is missing in one is missing in those after it.
    """

    name: str
    looks: tuple[Look, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all arms; the first is the control unless a contrast names another."""
        return self.looks[0].labels

    def runs(self, label: str) -> list[list[int]]:
        """The runs of an arm, [look][seed]."""
        return [look.runs(label) for look in self.looks]

    def by_seed(self, metric: "Metric") -> dict[str, list[float]]:
        """Values of a metric: label -> values [seed], NaN where a run has none; shorter for arms of fewer looks."""
        values: dict[str, list[float]] = {label: [] for label in self.labels}
        for look in self.looks:
            of = metric.of(look.results)
            for label in look.labels:
                values[label] += [of.get(run, np.nan) for run in look.runs(label)]
        return values
