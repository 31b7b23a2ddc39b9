"""The Parquet files of a sweep: brought up to date and written as its cohorts are trained."""

from pathlib import Path

import numpy as np
import pandas as pd

from fishnet.sweep import records
from fishnet.sweep.cohort import CohortRunner
from fishnet.sweep.grid import Sweep
from fishnet.sweep.history import SUMMARY, History
from fishnet.sweep.plan import Cohort

TABLES = ("runs", "curves", "class_curves", "per_class", "predictions")
PRETRAINING = ("pretrain_curves",)  # only where some run pretrains
PREDICTIONS_FOR_ALL = 200  # runs; beyond it the best and worst run of each arm


class Tables:
    """The Parquet files of a sweep, put together from its cohorts."""

    def __init__(self, out: Path, sweep: Sweep, cohorts: list[Cohort]) -> None:
        self.out, self.sweep = out, sweep
        self.names = TABLES + (PRETRAINING if any(cohort.objectives for cohort in cohorts) else ())
        self.parts: list[dict[str, pd.DataFrame]] = [self._so_far(cohort) for cohort in cohorts]

    def _so_far(self, cohort: Cohort) -> dict[str, pd.DataFrame]:
        """What an earlier session wrote of a cohort, so that its rows stay while other cohorts are trained."""
        runs, history = cohort.runs, History.empty(len(cohort.runs), cohort.epochs, len(cohort.task.classes))
        nothing = np.full((len(runs), len(SUMMARY)), np.nan)
        part = {"runs": records.runs_table(runs, self.sweep.varied, history, cohort.params, nothing)}
        for name in self.names:
            try:
                table = pd.read_parquet(self.out / f"{name}.parquet")
                rows = table[table["run"].isin([run.index for run in runs])]
            except (OSError, ValueError, KeyError):  # none yet, or damaged: training fills it again
                continue
            if len(rows):
                part[name] = rows.reset_index(drop=True)
        return part

    def update(self, number: int, runner: CohortRunner) -> None:
        """Writes all tables with the present state of one cohort."""
        runs, history, task = runner.cohort.runs, runner.history, runner.cohort.task
        self.parts[number] |= {
            "runs": records.runs_table(runs, self.sweep.varied, history, runner.cohort.params, runner.test),
            "curves": records.curves_table(runs, history),
            "pretrain_curves": records.pretrain_curves_table(runs, history),
            "class_curves": records.class_curves_table(runs, history, task.classes),
        }
        nothing = np.zeros((0, 0, len(task.classes)), np.float32)
        self.parts[number].setdefault("per_class", records.per_class_table([], task, nothing))
        self.parts[number].setdefault("predictions", records.predictions_table([], task, "test", nothing))
        self.write()

    def finish(self, number: int, runner: CohortRunner) -> None:
        """Evaluates the test split of one cohort and writes all tables."""
        logits = runner.finish()
        runs, task = runner.cohort.runs, runner.cohort.task
        selected = np.flatnonzero(runner.history.best_epoch)
        index = np.asarray([run.index for run in runs])
        self.parts[number]["per_class"] = records.per_class_table(index[selected], task, logits[selected])
        shown = selected if len(self.sweep.runs()) <= PREDICTIONS_FOR_ALL else extremes(runner)
        parts = [records.predictions_table(index[shown], task, "test", logits[shown])]
        if len(shown):
            validation = runner.test_logits("val", shown)
            parts.insert(0, records.predictions_table(index[shown], task, "val", validation))
        self.parts[number]["predictions"] = pd.concat(parts, ignore_index=True)
        self.update(number, runner)

    def runs(self) -> pd.DataFrame:
        """All runs so far."""
        return self._joined("runs").sort_values("run", ignore_index=True)

    def write(self) -> None:
        """Writes every table, each whole or not at all."""
        for name in self.names:
            table = self.runs() if name == "runs" else self._joined(name)
            records.write_table(self.out / f"{name}.parquet", table)

    def _joined(self, name: str) -> pd.DataFrame:
        parts = [part[name] for part in self.parts if name in part]
        full = [part for part in parts if len(part)]
        return pd.concat(full, ignore_index=True) if full else parts[0]


def extremes(runner: CohortRunner) -> np.ndarray:
    """The best and the worst run of each arm by validation accuracy, ties by loss, as the report ranks them."""
    keep = []
    table = records.runs_table(runner.cohort.runs, {}, runner.history, runner.cohort.params, runner.test)
    table = table[table.best_epoch.notna()].sort_values(["val_accuracy", "val_loss"], ascending=[False, True])
    for _, rows in table.groupby("arm"):
        keep += [rows.index[0], rows.index[-1]]
    return np.unique(np.asarray(keep, np.int64))
