"""Merges the shards of a sweep into the tables and checkpoints that one process would have left."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fishnet.sweep.distributed.assignment import parse_assignment
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.distributed.shard_folders import clear_shards
from fishnet.sweep.spec.history import History, lane_steps
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.folder import write_sweep_file
from fishnet.sweep.store.parquet import read_table, write_table
from fishnet.sweep.store.tables import PREDICTIONS_FOR_ALL, PRETRAINING, PROBING, TABLES, extremes, in_order, joined


def merge_shards(out: Path, content: Mapping[str, Any], warn: Callable[[str], None]) -> pd.DataFrame:
    """Merges finished shards, marks the sweep as finished and removes the folders of the shards.

    Args:
        out: the output folder, in which nobody else is at work.
        content: its `sweep.json`.
        warn: told of every damaged checkpoint that was passed over.

    Returns:
        The table of runs.

    Raises:
        UserError: a table of a shard is missing or damaged.
    """
    assigned, spec_hash = parse_assignment(content), content["spec_hash"]
    cohorts = [sorted(run for runs in of for run in runs) for of in assigned]
    folders = [shard.folder(out) for shard in Shard(1, content["shards"]).siblings()]
    tables = merge_tables(folders, cohorts, spec_hash)
    written = {name: write_table(out / f"{name}.parquet", table, spec_hash) for name, table in tables.items()}
    histories = merge_checkpoints(out, cohorts, spec_hash, warn)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    steps = {"steps": lane_steps(histories), "tables": written, "finished": finished}
    write_sweep_file(out, {**content, **steps})
    clear_shards(out)
    return tables["runs"]


def merge_tables(folders: Sequence[Path], cohorts: Sequence[Sequence[int]], spec_hash: str) -> dict[str, pd.DataFrame]:
    """Every table of a sweep, its rows in the order in which one process writes them.

    Args:
        folders: of the shards.
        cohorts: the numbers of the runs of each.
        spec_hash: of the sweep.
    """
    found = {name: read_all(folders, name, spec_hash) for name in (*TABLES, *PRETRAINING, *PROBING)}
    tables = {}
    for name, parts in found.items():
        if parts:
            of_cohorts = [in_order([part[part.run.isin(runs)] for part in parts]) for runs in cohorts]
            tables[name] = joined(of_cohorts)
    tables["runs"] = tables["runs"].sort_values("run", ignore_index=True)
    if len(tables["runs"]) > PREDICTIONS_FOR_ALL:
        predictions = tables["predictions"]
        of_cohorts = [tables["runs"][tables["runs"].run.isin(runs)] for runs in cohorts]
        shown = [run for runs in of_cohorts for run in extremes(runs)]
        tables["predictions"] = predictions[predictions.run.isin(shown)].reset_index(drop=True)
    return tables


def read_all(folders: Sequence[Path], name: str, spec_hash: str) -> list[pd.DataFrame]:
    """A table of all shards that have it; a shard without runs has none.

    Raises:
        BadTable: one is damaged, or of another sweep.
    """
    return [
        read_table(folder / f"{name}.parquet", spec_hash) for folder in folders if (folder / f"{name}.parquet").exists()
    ]


def merge_checkpoints(
    out: Path, cohorts: Sequence[Sequence[int]], spec_hash: str, warn: Callable[[str], None]
) -> list[History]:
    """Saves one checkpoint a cohort, of all its runs in their order; returns the histories of the cohorts.

    Args:
        out, warn: as for `merge_shards`.
        cohorts, spec_hash: as for `merge_tables`.
    """
    histories = []
    for number, runs in enumerate(cohorts):
        store = CheckpointStore(out, out, f"cohort_{number}", runs, spec_hash)
        restored: Any = store.restore(None, warn)
        histories.append(History.of(restored.tree["history"]))
        store.save(restored.tree)
        store.finish()
    return histories
