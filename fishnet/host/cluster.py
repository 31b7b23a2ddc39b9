"""Number of this process among those that a cluster has started, as the environment says; nothing here imports jax."""

import re
from collections.abc import Mapping

from fishnet.errors import UsageError

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


def process_number(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of this process, from 0, and of all, as Slurm, Open MPI, Kubernetes or a TPU pod says; else 0 and 1.

    Raises:
        UsageError: a variable is no number, or not one of the numbers that there are.
    """
    for cluster, (index, size) in CLUSTERS.items():
        if (count := _whole_number(environment, size)) and count > 1:
            return _process_among(environment, index, count, cluster)
    hosts = environment.get(TPU_HOSTS, "").split(",")
    return _process_among(environment, TPU_WORKER, len(hosts), "the TPU pod") if len(hosts) > 1 else (0, 1)


def _process_among(environment: Mapping[str, str], name: str, count: int, cluster: str) -> tuple[int, int]:
    index = _whole_number(environment, name)
    if index is None or index >= count:
        said = f"{name} is {environment[name]}" if name in environment else f"there is no {name}"
        raise UsageError(f"{cluster} tells of {count} processes, but {said} in the environment: give --shard I/N")
    return index, count


def _whole_number(environment: Mapping[str, str], name: str) -> int | None:
    """A whole number in the environment; None where it has no such variable."""
    text = environment.get(name, "")
    if not re.fullmatch(r"[0-9]{0,9}", text):
        raise UsageError(f"{name} in the environment is {text!r}, no whole number: unset it, or give --shard I/N")
    return int(text) if text else None
