"""The Parquet files of a sweep: brought up to date and written as its cohorts are trained."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from fishnet.host.parquet import BadTable, read_table, write_table
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.spec.history import SUMMARY, History
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.store import records

TABLES = ("runs", "curves", "class_curves", "per_class", "predictions")
PRETRAINING = ("pretrain_curves",)  # only where some run pretrains
PROBING = ("probes",)  # only where some run is probed
PREDICTIONS_FOR_ALL = 200  # runs; beyond it the best and worst run of each arm


class Tables:
    """Parquet files of a sweep, or of a shard of it, put together from its cohorts.

    Args:
        out: the folder to write to.
        sweep, spec_hash: what is run.
        cohorts: whose runs the tables are to hold.
        earlier: the folder with the tables of an earlier session.
    """

    def __init__(self, out: Path, sweep: Sweep, cohorts: list[Cohort], spec_hash: str, earlier: Path) -> None:
        self.out, self.sweep, self.cohorts, self.spec_hash, self.earlier = out, sweep, cohorts, spec_hash, earlier
        self.written: dict[str, str] = {}  # table -> sha256 of its file
        self.names = TABLES + (PRETRAINING if any(cohort.objectives for cohort in cohorts) else ())
        self.names += PROBING if any(map(records.has_measures, cohorts)) else ()
        self.parts: list[dict[str, pd.DataFrame]] = [self._so_far(cohort) for cohort in cohorts]

    def _so_far(self, cohort: Cohort) -> dict[str, pd.DataFrame]:
        """Tables of a cohort from an earlier session, so that its rows stay while other cohorts are trained."""
        runs = [run.index for run in cohort.runs]
        history = History.empty(len(runs), cohort.epochs, len(cohort.task.classes))
        part = {"runs": self._runs_table(cohort, history, np.full((len(runs), len(SUMMARY)), np.nan))}
        for name in self.names:
            rows = rows_from(self.earlier, name, runs, self.spec_hash)
            if rows is not None and len(rows):
                part[name] = rows
        return part

    def update(self, number: int, history: History, test: np.ndarray) -> None:
        """Writes all tables with the present history of cohort `number` and its test metrics [run, len(SUMMARY)]."""
        cohort = self.cohorts[number]
        runs, task = cohort.runs, cohort.task
        self.parts[number] |= {
            "runs": self._runs_table(cohort, history, test),
            "curves": records.curves_table(runs, history),
            "pretrain_curves": records.pretrain_curves_table(runs, history),
            "class_curves": records.class_curves_table(runs, history, task.classes),
        }
        if records.has_measures(cohort):
            self.parts[number]["probes"] = records.probes_table(cohort, history)
        nothing = np.zeros((0, 0, len(task.classes)), np.float32)
        self.parts[number].setdefault("per_class", records.per_class_table([], task, nothing))
        self.parts[number].setdefault("predictions", records.predictions_table([], task, "test", nothing))
        self.write()

    def finish(
        self,
        number: int,
        history: History,
        test: np.ndarray,
        logits: np.ndarray,
        validate: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Writes all tables with the test results of one cohort.

        Args:
            number, history, test: as for `update`.
            logits: [run, image, class] on the test split.
            validate: gives the logits of some runs on the validation split at their best epochs.
        """
        cohort, selected = self.cohorts[number], np.flatnonzero(history.best_epoch)
        task = cohort.task
        index = np.asarray([run.index for run in cohort.runs])
        self.parts[number]["per_class"] = records.per_class_table(index[selected], task, logits[selected])
        shown = selected
        if len(self.sweep.runs()) > PREDICTIONS_FOR_ALL:
            shown = np.flatnonzero(np.isin(index, extremes(self._runs_table(cohort, history, test))))
        parts = [records.predictions_table(index[shown], task, "test", logits[shown])]
        if len(shown):
            parts.insert(0, records.predictions_table(index[shown], task, "val", validate(shown)))
        self.parts[number]["predictions"] = pd.concat(parts, ignore_index=True)
        self.update(number, history, test)

    def runs(self) -> pd.DataFrame:
        """All runs so far."""
        return self._joined("runs").sort_values("run", ignore_index=True)

    def write(self) -> None:
        """Writes every table of which there is something, each whole or not at all."""
        for name in [name for name in self.names if any(name in part for part in self.parts)]:
            table = self.runs() if name == "runs" else self._joined(name)
            self.written[name] = write_table(self.out / f"{name}.parquet", table, {"sweep": self.spec_hash})

    def _runs_table(self, cohort: Cohort, history: History, test: np.ndarray) -> pd.DataFrame:
        failures = records.failure_columns(history, cohort)
        return records.runs_table(cohort.runs, self.sweep.varied, history, cohort.params, test, failures)

    def _joined(self, name: str) -> pd.DataFrame:
        return joined([part[name] for part in self.parts if name in part])


def extremes(table: pd.DataFrame) -> list[int]:
    """Numbers of the best and the worst run of each arm, by validation accuracy, ties by loss."""
    table = table[table.best_epoch.notna()].sort_values(["val_accuracy", "val_loss"], ascending=[False, True])
    return table.groupby("arm").run.agg(["first", "last"]).to_numpy().ravel().tolist()


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other; an empty one, whose columns may be of other types, only where there is nothing else."""
    full = [table for table in tables if len(table)]
    return pd.concat(full, ignore_index=True) if full else tables[0]


def in_order(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables of one cohort below each other: split by split where they tell them apart, run by run."""
    table = joined(tables)
    split = table["split"] == "test" if "split" in table else np.zeros(len(table), bool)
    return table.iloc[np.lexsort([table.run, split])].reset_index(drop=True)


def rows_from(folder: Path, name: str, runs: Iterable[int], spec_hash: str) -> pd.DataFrame | None:
    """Rows of some runs in a table of a folder; None where there is no such table, or none of this sweep."""
    try:
        table = read_table(folder / f"{name}.parquet", {"sweep": spec_hash})
    except BadTable:  # training fills it again
        return None
    return table[table["run"].isin(list(runs))].reset_index(drop=True)
