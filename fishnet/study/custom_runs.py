"""Custom runs: trained by an experiment's own function, stored in the tables of a sweep."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fishnet.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from fishnet.study.question import QuestionArgs
    from fishnet.study.trials import Look, Trial
    from fishnet.sweep.run.progress import Display

Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # table -> rows
CUSTOM_TABLES = ("runs", "curves", "probes")


@dataclass(frozen=True)
class CustomRuns:
    """Plan whose runs are trained by a function, instead of a sweep.

    Args:
        name: of the trial.
        run: `f(fields, seed) -> {"runs": [row], "curves": rows, "probes": rows}`, one run. `runs` has one row with
            `status` (ok or diverged) and any figures; the others are as in a sweep's folder and may be missing. The
            numbers of runs, the arm, the seed and the seconds are added here.
        arms: label -> fields for `run`; the first is the control.
        seeds: in the full size.
        sizes: size -> what differs from the full one: `seeds`, `arms` (labels that stay) and fields.
        first_seed: seeds count from here.
        device: on which it runs, in words.
    """

    name: str
    run: Callable[[Mapping[str, Any], int], Rows]
    arms: Mapping[str, Mapping[str, Any]]
    seeds: int = 8
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first_seed: int = 0
    device: str = "NumPy on the CPU"

    def settled(self, trials: Mapping[str, "Trial"]) -> "CustomRuns":
        """Returns the plan itself: its arms depend on no other trial."""
        return self

    def labels(self, size: str) -> tuple[str, ...]:
        """The arms of a size."""
        return tuple(self.sizes.get(size, {}).get("arms", self.arms))

    def seeds_from(self, size: str, done: int = 0) -> range:
        """Seeds of a look, after the first `done` seeds."""
        first = self.first_seed + done
        return range(first, first + self.sizes.get(size, {}).get("seeds", self.seeds))

    def fields(self, size: str, label: str) -> dict[str, Any]:
        """Keyword arguments with which `run` is called for an arm."""
        own = {name: value for name, value in self.sizes.get(size, {}).items() if name not in ("seeds", "arms")}
        return own | dict(self.arms[label])

    def train(
        self, asked: "QuestionArgs", out: Path, display: "Display", seeds: Sequence[int], labels: Sequence[str]
    ) -> "Look":
        """Runs what is missing and reads the tables; arms that an earlier call has finished are not run again.

        Raises:
            UserError: the folder holds other runs.
        """
        from fishnet.report.results import load_results
        from fishnet.study.trials import Look
        from fishnet.sweep.store.folder import read_sweep_file, times, write_sweep_file

        content = self.describe(asked, seeds, labels)
        found = read_sweep_file(out)
        if found is not None and found["spec_hash"] != content["spec_hash"]:
            raise UserError(f"{out} holds other runs than these: choose another --out")
        tables = {} if found is None else read_tables(out, found)
        first = len(tables["runs"]) // len(seeds) if "runs" in tables else 0
        if found is None or not found["finished"] or first < len(labels):
            content |= times(out, found)
            out.mkdir(parents=True, exist_ok=True)
            write_sweep_file(out, content)
            for place in range(first, len(labels)):
                display.stage(f"{self.name}: {labels[place]}")
                new = self.arm(asked.size, labels[place], place * len(seeds), seeds)
                tables = append_runs(tables, new)
                content["tables"] = write_tables(out, tables, content["spec_hash"])
            if first >= len(labels):  # a process that ended before it could say so has run them all
                content["tables"] = write_tables(out, tables, content["spec_hash"])
            content["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
            write_sweep_file(out, content)
        return Look(load_results(out), tuple(labels))

    def arm(self, size: str, label: str, first: int, seeds: Sequence[int]) -> dict[str, "pd.DataFrame"]:
        """The tables of one arm, whose runs are numbered from `first`."""
        import pandas as pd

        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in CUSTOM_TABLES}
        fields = self.fields(size, label)
        for place, seed in enumerate(seeds):
            began = time.perf_counter()
            given = self.run(fields, seed)
            own = {"arm": label, "seed": seed, "train_seconds": time.perf_counter() - began}
            for name in CUSTOM_TABLES:
                more = own if name == "runs" else {}
                rows[name] += [{"run": first + place} | more | dict(row) for row in given.get(name, ())]
        return {name: pd.DataFrame(found) for name, found in rows.items() if found}

    def describe(self, asked: "QuestionArgs", seeds: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
        """`sweep.json` of these runs."""
        from fishnet.host.machine import versions
        from fishnet.source_hash.digest import source_hash

        arms = {label: self.fields(asked.size, label) for label in labels}
        spec = {"recipe": {}, "axes": {}, "seeds": list(seeds), "own": arms, "source": source_hash(self.run, self.name)}
        text = json.dumps(spec, sort_keys=True, default=str)
        return spec | {
            "spec_hash": hashlib.sha256(text.encode()).hexdigest(),
            "versions": versions(),
            "device": self.device,
            "command": asked.command,
        }


def read_tables(out: Path, found: Mapping[str, Any]) -> dict[str, "pd.DataFrame"]:
    """Reads the tables of the runs that were made; none where one of them is missing or damaged.

    Args:
        out: the folder.
        found: its `sweep.json`.
    """
    from fishnet.host.parquet import BadTable, read_table

    digests: Mapping[str, str | None] = found.get("tables") or dict.fromkeys(CUSTOM_TABLES)
    paths = {name: out / f"{name}.parquet" for name in digests}
    try:
        return {
            name: read_table(path, {"sweep": found["spec_hash"]}, digests[name])
            for name, path in paths.items()
            if digests[name] or path.exists()
        }
    except BadTable:
        return {}


def append_runs(tables: Mapping[str, "pd.DataFrame"], new: Mapping[str, "pd.DataFrame"]) -> dict[str, "pd.DataFrame"]:
    """Appends the rows of further runs to tables; rows that an interrupted call left of them are replaced."""
    import pandas as pd

    runs = set(new["runs"]["run"])
    found = {}
    for name in CUSTOM_TABLES:
        parts = [table[~table["run"].isin(runs)] for table in [tables.get(name)] if table is not None]
        parts += [new[name]] if name in new else []
        if parts:
            found[name] = pd.concat(parts, ignore_index=True)
    return found


def write_tables(out: Path, tables: Mapping[str, "pd.DataFrame"], spec_hash: str) -> dict[str, str]:
    """Writes the tables, `runs` last: what it holds is whole in the others. Returns the sha256 of each file."""
    from fishnet.host.parquet import write_table

    names = [name for name in reversed(CUSTOM_TABLES) if name in tables]
    owner = {"sweep": spec_hash}
    return {name: write_table(out / f"{name}.parquet", tables[name], owner) for name in names}
