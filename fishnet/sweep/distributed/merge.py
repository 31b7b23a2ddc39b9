"""Merges the shards of a sweep into the tables and checkpoints that one process would have left."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from fishnet.host.parquet import read_table, write_table
from fishnet.sweep.distributed.assignment import parse_assignment
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.distributed.shard_folders import clear_shards
from fishnet.sweep.spec.history import History, lane_steps
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.folder import write_sweep_file
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
    cohorts = [sorted(chain.from_iterable(shards)) for shards in parse_assignment(content)]
    folders = [shard.folder(out) for shard in Shard(1, content["shards"]).siblings()]
    owner = {"sweep": content["spec_hash"]}
    tables = merge_tables(folders, cohorts, owner)
    written = {name: write_table(out / f"{name}.parquet", table, owner) for name, table in tables.items()}
    finish_sweep(out, content, merge_checkpoints(out, cohorts, content["spec_hash"], warn), written)
    return tables["runs"]


def finish_sweep(
    out: Path, content: Mapping[str, Any], histories: Sequence[History], tables: Mapping[str, str]
) -> None:
    """Marks a sweep as finished, with the digests of its tables, and removes the folders of shards."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    write_sweep_file(out, {**content, "steps": lane_steps(histories), "tables": tables, "finished": finished})
    clear_shards(out)


def merge_tables(
    folders: Sequence[Path], cohorts: Sequence[Sequence[int]], owner: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """Every table of a sweep, its rows in the order in which one process writes them.

    Args:
        folders: of the shards, of which those without runs have no tables.
        cohorts: numbers of the runs of each.
        owner: of the tables, as for `read_table`.
    """
    tables = {}
    for name in (*TABLES, *PRETRAINING, *PROBING):
        paths = [folder / f"{name}.parquet" for folder in folders]
        parts = [read_table(path, owner) for path in paths if path.exists()]
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


def merge_checkpoints(
    out: Path, cohorts: Sequence[Sequence[int]], spec_hash: str, warn: Callable[[str], None]
) -> list[History]:
    """Saves one checkpoint a cohort, of all its runs in their order; returns the histories of the cohorts."""
    histories = []
    for number, runs in enumerate(cohorts):
        store = CheckpointStore(out, out, f"cohort_{number}", runs, spec_hash)
        restored: Any = store.restore(None, warn)
        histories.append(History.of(restored.tree["history"]))
        store.save(restored.tree)
        store.finish()
    return histories
