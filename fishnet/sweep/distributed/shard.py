"""Which share of a sweep's runs a process trains: `--shard I/N`, or what a cluster says in the environment.

Nothing here imports jax.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fishnet.errors import UsageError
from fishnet.sweep.spec.random_search import MOST_RUNS

# cluster -> the variables with the number of this process, from 0, and with how many there are
CLUSTERS = {
    # Of the step: a script that sbatch runs itself is one process, however many tasks its job has.
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    # An indexed job sets the first; the second is not standard: its manifest sets it to `completions`.
    "Kubernetes": ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
}
TPU_WORKER, TPU_HOSTS = "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"  # of a pod; hosts separated by commas
# A host of a TPU pod then takes its own chips only, https://github.com/pytorch/xla/issues/7714 (under the older name).
OWN_CHIPS = {"TPU_PROCESS_BOUNDS": "1,1,1"}


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the runs of a sweep; 1 of 1 is the whole sweep."""

    number: int = 1  # from 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def whole(self) -> bool:
        """Whether this is the whole sweep."""
        return self.count == 1

    def folder(self, out: Path) -> Path:
        """The folder that a process with this shard writes to."""
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
    """The shard of this process as Slurm, Open MPI, Kubernetes or a TPU pod says; the whole sweep where none does.

    Args:
        environment: such as `os.environ`.

    Raises:
        UsageError: a variable is no number, or not one of the numbers that there are.
    """
    for index, size in CLUSTERS.items():
        if (count := _number(environment, size[1])) and count > 1:
            return _shard(environment, size[0], count, index)
    hosts = environment.get(TPU_HOSTS, "").split(",")
    return _shard(environment, TPU_WORKER, len(hosts), "the TPU pod") if len(hosts) > 1 else Shard()


def _shard(environment: Mapping[str, str], name: str, count: int, cluster: str) -> Shard:
    index = _number(environment, name)
    if index is None or index >= count:
        said = f"{name} is {environment[name]}" if name in environment else f"there is no {name}"
        raise UsageError(f"{cluster} tells of {count} processes, but {said} in the environment: give --shard I/N")
    return parse_shard(f"{index + 1}/{count}")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """A whole number in the environment; None where it has no such variable."""
    text = environment.get(name, "")
    if not re.fullmatch(r"[0-9]{0,9}", text):
        raise UsageError(f"{name} in the environment is {text!r}, no whole number: unset it, or give --shard I/N")
    return int(text) if text else None
