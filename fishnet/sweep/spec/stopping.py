"""Arms that a sweep ends before their last epoch: successive halving, the median rule, a target that is reached."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fishnet.checks.arguments import check_flag, check_text, check_whole_number
from fishnet.checks.value_types import parse_number
from fishnet.errors import UsageError
from fishnet.lookup import unknown_name
from fishnet.sweep.spec.history import CURVES, LOWER_IS_BETTER, RUNNING, STOPPED, History

TARGETS = tuple(name for name in CURVES if name.startswith(("val_", "train_")))


@dataclass(frozen=True)
class Stopping:
    """When arms end early. An arm's metric is the mean over its seeds, and what is compared is its best so far.

    Args:
        halving: eta of successive halving: of the arms that came to a rung, one in so many goes on. 0: no rungs. Rungs
            are after `first`, `first` eta, `first` eta^2 ... epochs. Arms of programs that are trained later are
            compared with all arms that came to the rung before them (asynchronous halving).
        median: whether an arm ends whose best metric so far is worse than the median of the other arms' mean metric up
            to the same epoch.
        first: epochs before anything ends by comparison.
        target: METRIC>=X or METRIC<=X, a column of curves.parquet: an arm ends that has reached it. Empty: none.

    Raises:
        UsageError: numbers out of range, or a target that is not of that form.

    Source: Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943; Li et al. 2020 (asynchronous),
    https://arxiv.org/abs/1810.05934; Golovin et al. 2017 (median rule), https://doi.org/10.1145/3097983.3098043
    """

    halving: int = 0
    median: bool = False
    first: int = 1
    target: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "halving", check_whole_number("halving", self.halving))
        object.__setattr__(self, "first", check_whole_number("first rung", self.first))
        check_flag("median", self.median)
        check_text("target", self.target, "a text such as val_accuracy>=0.8")
        if self.halving < 0 or self.halving == 1:
            raise UsageError(f"halving: {self.halving} is neither 0 (none) nor at least 2")
        if self.first < 1:
            raise UsageError(f"first rung: {self.first} is not at least 1 epoch")
        if self.target:
            parse_target(self.target)

    def __bool__(self) -> bool:
        return bool(self.halving or self.median or self.target)

    def spec(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def is_rung(self, epochs: int) -> bool:
        """Tells whether a rung of the halving is after so many epochs."""
        if not self.halving:
            return False
        rung = self.first
        while rung < epochs:
            rung *= self.halving
        return rung == epochs


def parse_target(text: str) -> tuple[str, bool, float]:
    """`val_accuracy>=0.8` as its column, whether higher is asked for, and the number.

    Raises:
        UsageError: it is not of that form, or there is no such column.
    """
    found = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
    try:
        name, sign, number = found.groups() if found else ("", "", "")
        value = parse_number(number)
    except ValueError:
        raise UsageError(f"target: {text!r} is not METRIC>=X or METRIC<=X, as in val_accuracy>=0.8") from None
    if name not in TARGETS:
        raise unknown_name("target metric", name, TARGETS)
    higher = sign == ">="
    if (higher and value > (math.inf if name.endswith("loss") else 1)) or (not higher and value < 0):
        raise UsageError(f"target: {text!r} is beyond any {name}: it could never end an arm")
    return name, higher, value


class ArmStopper:
    """Ends arms of a sweep by the rules of a `Stopping`, cohort after cohort; arms are compared by `select_by`."""

    def __init__(self, stopping: Stopping, select_by: str) -> None:
        self.stopping, self.select_by = stopping, select_by
        self.means: dict[str, np.ndarray] = {}  # arm -> its mean metric by epoch, higher is better

    def learn(self, arms: Sequence[str], history: History) -> None:
        """Takes in what the arms of a cohort have reached, given the arm of each run."""
        for name, rows in rows_of(arms).items():
            self.means[name] = mean_metric(history.curves[rows], self.select_by, self.select_by in LOWER_IS_BETTER)

    def judge(self, arms: Sequence[str], history: History, planned: Sequence[int]) -> None:
        """Marks the runs as stopped, in place, whose arm ends after the epoch that all active ones have just finished.

        `arms` and `planned` hold each run's arm and the number of epochs after which it ends anyway.
        """
        self.learn(arms, history)
        for name, rows in rows_of(arms).items():
            active = rows[history.status[rows] == RUNNING]
            if not len(active):
                continue
            epochs = int(history.epochs[active].max())
            if epochs < planned[active[0]] and (
                self.reached(history.curves[active], epochs) or self.behind(name, epochs)
            ):
                history.status[active] = STOPPED

    def reached(self, curves: np.ndarray, epochs: int) -> bool:
        """Tells whether an arm whose runs have the curves [run, epoch, metric] has reached the target."""
        if not self.stopping.target:
            return False
        name, higher, value = parse_target(self.stopping.target)
        best = best_so_far(mean_metric(curves, name, lower=not higher))[epochs - 1]
        return bool(best >= (value if higher else -value))

    def behind(self, arm: str, epochs: int) -> bool:
        """Tells whether an arm is not good enough after so many epochs to go on."""
        stopping, own = self.stopping, best_so_far(self.means[arm])[epochs - 1]
        others = [m[:epochs] for name, m in self.means.items() if name != arm and np.isfinite(m[:epochs]).all()]
        if epochs < stopping.first or not others:
            return False
        if stopping.median and own < np.median([metric.mean() for metric in others]):
            return True
        better = sum(metric.max() > own for metric in others)
        return stopping.is_rung(epochs) and better >= math.ceil((len(others) + 1) / stopping.halving)


def rows_of(arms: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Arm -> the positions of its runs."""
    return {name: np.flatnonzero(np.asarray(arms) == name) for name in dict.fromkeys(arms)}


def mean_metric(curves: np.ndarray, name: str, lower: bool) -> np.ndarray:
    """The mean over runs of a metric by epoch, [epoch], negated where lower is better; NaN where no run has one."""
    values = curves[:, :, CURVES.index(name)]
    there = np.isfinite(values)
    total, count = np.where(there, values, 0).sum(0), there.sum(0)
    with np.errstate(invalid="ignore"):
        mean = total / np.where(count, count, np.nan)
    return -mean if lower else mean


def best_so_far(metric: np.ndarray) -> np.ndarray:
    """The running maximum of a metric by epoch; -inf until it is first defined."""
    return np.maximum.accumulate(np.where(np.isfinite(metric), metric, -np.inf))
