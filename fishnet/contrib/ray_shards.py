"""Trains the shards of a sweep on a Ray cluster: scheduling, retries and failures of nodes are Ray's.

It needs the extra `ray`. The output folder must be on a file system that all nodes see. A task whose worker dies is
started again, by Ray, and goes on from the checkpoints of its shard.
"""

from collections.abc import Callable
from typing import Any

try:
    import ray
except ImportError as error:
    raise ImportError("fishnet.contrib.ray_shards needs ray: python -m pip install -e '.[ray]'") from error

from fishnet.errors import UserError, first_line

RETRIES = 3  # of a shard whose worker died


def run_shards(
    train_shard: Callable[[str, int | None], None],
    address: str,
    count: int | None,
    note: Callable[[str], None],
    retries: int = RETRIES,
) -> None:
    """Trains all shards and returns when every one is finished.

    Args:
        train_shard: `f(shard, devices)` trains the shard "I/N" on so many CPU cores (None: on the GPU that it has);
            it is sent to the workers and must find what it needs there.
        address: of a running cluster; "auto": the one that this machine belongs to, or a new one on this machine.
        count: how many shards; None: one a GPU or, without any, one a node.
        note: told in a line what is begun and what is finished.
        retries: of a shard whose worker died.

    Raises:
        UserError: the cluster cannot be reached, or a shard could not be trained.
    """
    begun = not ray.is_initialized()
    connect(address)
    try:
        resources, count, devices = divide(ray.cluster_resources(), len(ray.nodes()), count)
        note(f"ray: {count} shards, each with {resources_text(resources)}")

        # A worker trains one shard and ends: JAX keeps what memory it has had.
        @ray.remote(max_retries=retries, max_calls=1, **resources)
        def task(shard: str) -> None:
            train_shard(shard, devices)

        waiting = {task.remote(f"{number}/{count}"): f"{number}/{count}" for number in range(1, count + 1)}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            shard = waiting.pop(done)
            try:
                ray.get(done)
            except ray.exceptions.RayError as error:
                raise UserError(f"shard {shard}: {cause_of(error)}; the same command goes on") from error
            note(f"ray: shard {shard} is finished")
    finally:
        if begun:
            ray.shutdown()


def connect(address: str) -> None:
    """Connects to a cluster, or starts one on this machine where "auto" finds none.

    Raises:
        UserError: it cannot be reached.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    try:
        ray.init(address=None if address == "auto" else address, include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot reach the Ray cluster {address!r}: {first_line(error)}") from error


def divide(resources: dict[str, float], nodes: int, count: int | None) -> tuple[dict[str, float], int, int | None]:
    """What each task gets of a cluster.

    Args:
        resources: of the whole cluster, as Ray has them.
        nodes: how many there are.
        count: how many shards; None: as many as GPUs, or as nodes.

    Returns:
        The resources of a task, the number of shards, and the CPU cores of a task (None: it has a GPU).
    """
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if gpus:
        return {"num_gpus": 1}, count or gpus, None
    count = count or nodes
    each = max(1, cores // count)
    return {"num_cpus": each}, count, each


def resources_text(resources: dict[str, float]) -> str:
    """`2 CPU cores`."""
    (name, number), *_ = resources.items()
    return f"{number} {'GPU' if name == 'num_gpus' else 'CPU core'}{'s' * (number != 1)}"


def cause_of(error: "ray.exceptions.RayError") -> str:
    """What went wrong in a task, in one line: the task's own error, or that its worker died."""
    return first_line(getattr(error, "cause", None) or error)
