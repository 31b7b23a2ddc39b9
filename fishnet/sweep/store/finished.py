"""Finds a finished sweep and verifies its tables."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fishnet.errors import UserError
from fishnet.host.parquet import BadTable, read_bytes, read_table
from fishnet.sweep.store.checkpoint_store import CHECKPOINTS
from fishnet.sweep.store.folder import SWEEP_FILE, check_same_order, check_same_sweep, read_sweep_file
from fishnet.sweep.store.tables import PRETRAINING, TABLES


@dataclass(frozen=True)
class Result:
    """Result of a sweep."""

    runs: pd.DataFrame  # as runs.parquet
    out: Path
    programs: int  # compiled training programs
    finished: bool  # whether the sweep had been finished before, and nothing was done
    missing: tuple[str, ...] = ()  # shards to come, without which there are no tables of the whole sweep; in words


def finished_before(
    out: Path, content: Mapping[str, Any], fingerprints: Callable[[], Mapping[str, str]]
) -> Result | None:
    """Result of a sweep that an earlier call finished; None where there is something left to do.

    That is also so where a table is missing or damaged: the checkpoints have what was in it.

    Args:
        out: the output folder.
        content: `sweep.json` of the sweep that is asked for.
        fingerprints: gives those of the data, which are only read where the sweep is finished.

    Raises:
        UserError: the folder holds another sweep, or one of other data, or checkpoints and no sweep that they belong
            to, or a damaged table and no checkpoints.
    """
    found = read_sweep_file(out)
    if found is None:
        check_no_sweep(out)
        return None
    check_same_sweep(out, found, content)
    if found["finished"]:
        check_data(out, found, fingerprints())
        problem = bad_table(out, found)
        if problem is None:
            runs = read_table(out / "runs.parquet", {"sweep": found["spec_hash"]})
            return Result(runs, out, found["programs"], finished=True)
        check_checkpoints(out, found, problem)
    check_same_order(out, found, content)
    return None


def check_no_sweep(out: Path) -> None:
    """Refuses a folder without `sweep.json` that holds what a sweep would write: it is not of this sweep."""
    tables = [f"{name}.parquet" for name in (*TABLES, *PRETRAINING, "probes")]
    there = [name for name in (CHECKPOINTS, *tables, "report.html", "figures") if os.path.lexists(out / name)]
    if there:
        raise UserError(
            f"{out} holds {', '.join(there)}, but no {SWEEP_FILE} that they belong to: a sweep would write in their "
            "place, so choose another --out"
        )


def bad_table(out: Path, found: Mapping[str, Any]) -> BadTable | None:
    """Problem with the first table of a finished sweep that is not as the sweep wrote it; None: all are."""
    for name, sha256 in found["tables"].items():
        try:
            read_bytes(out / f"{name}.parquet", sha256)
        except BadTable as error:
            return error
    return None


def check_checkpoints(out: Path, found: Mapping[str, Any], problem: BadTable) -> None:
    """Refuses to write the tables of a finished sweep again where the checkpoints that have their content are gone."""
    for number in range(found["programs"]):
        folder = out / CHECKPOINTS / f"cohort_{number}"
        if not (folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())):
            raise UserError(
                f"{problem}, and {folder} has no checkpoint to write it again from: both are lost; train the sweep "
                "again into another folder (--out)"
            )


def check_data(out: Path, found: Mapping[str, Any], fingerprints: Mapping[str, str]) -> None:
    """Refuses the folder of a sweep, finished or not, whose data had other fingerprints than they have now."""
    for name, fingerprint in fingerprints.items():
        if found["data"].get(name) != fingerprint:
            raise UserError(f"the data of {name} have changed since the sweep of {out} was begun: choose another --out")
