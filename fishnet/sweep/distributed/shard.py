"""Shards: the share of a sweep's runs that a process trains, `--shard I/N` or what a cluster says.

Nothing here imports jax.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fishnet.errors import UsageError
from fishnet.host.cluster import process_number
from fishnet.sweep.spec.random_search import MOST_RUNS


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the runs of a sweep; 1 of 1 is the whole sweep."""

    number: int = 1  # from 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def whole(self) -> bool:
        """Tells whether this is the whole sweep."""
        return self.count == 1

    def folder(self, out: Path) -> Path:
        """Folder that a process with this shard writes to."""
        return out if self.whole else out / "shards" / f"{self.number}-of-{self.count}"

    def siblings(self) -> list["Shard"]:
        """All shards of the sweep, this one included."""
        return [Shard(number, self.count) for number in range(1, self.count + 1)]


def parse_shard(text: str) -> Shard:
    """Parses `2/4` as the second of four shards; raises `UsageError` for what is not I/N with I from 1 to N."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"shard {text!r} is not I/N with I from 1 to N, as in 1/4")
    if count > MOST_RUNS:
        raise UsageError(f"shard {text!r}: at most {MOST_RUNS:,} shards, as a sweep has no more runs")
    return Shard(number, count)


def shard_in(environment: Mapping[str, str]) -> Shard:
    """Shard of this process as its cluster says, see `process_number`; the whole sweep where none does."""
    index, count = process_number(environment)
    return parse_shard(f"{index + 1}/{count}")
