"""Shards on a local Ray: a worker that is killed during training is retried, and goes on from its checkpoints."""

import importlib.util
import os
import re
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from experiments import ablation
from fishnet.cli.main import train_shard
from fishnet.cli.sweep_flags import parse_request
from fishnet.errors import UserError
from fishnet.sweep.distributed.shard import Shard
from fishnet.sweep.store.folder import read_sweep_file
from tests.sweep.test_distributed import assert_same_sweep

if importlib.util.find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)

import ray

from fishnet.contrib.ray_shards import connect, divide, run_shards

SMALL = "--task synthetic --image-size 8 --model mlp --widths 8 --batch-size 8 --epochs 12 --seeds 2 --lane-width 2"
WORDS = f"{SMALL} --axis optimizer=momentum,adam --axis norm=batch,layer --devices 1 --quiet".split()


def test_what_a_task_gets():
    assert divide({"CPU": 64.0, "GPU": 8.0}, 2, None) == ({"num_gpus": 1}, 8, None)
    assert divide({"CPU": 64.0, "GPU": 8.0}, 2, 3) == ({"num_gpus": 1}, 3, None)
    assert divide({"CPU": 64.0}, 4, None) == ({"num_cpus": 16}, 4, 16)
    assert divide({"CPU": 2.0}, 1, 5) == ({"num_cpus": 1}, 5, 1)


@pytest.fixture(scope="module")
def two_workers():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.fault
def test_a_killed_worker_is_retried_and_goes_on(two_workers, tmp_path):
    train_shard(parse_request(ablation.EXPERIMENT, [*WORDS, "--out", str(tmp_path / "whole")]), "1/1", 1)
    out, attempts, notes = tmp_path / "out", tmp_path / "attempts", []
    request = parse_request(ablation.EXPERIMENT, [*WORDS, "--out", str(out)])

    def train_with_many_checkpoints(shard: str, devices: int | None) -> None:
        from fishnet.sweep.run import phase

        phase.CHECKPOINT_SECONDS, phase.CALL_SECONDS = 0.0, 0.02
        with open(attempts, "a") as file:
            file.write(f"{shard}\n")
        train_shard(request, shard, devices)

    killer = threading.Thread(target=kill_worker, args=(Shard(1, 2).folder(out),), daemon=True)
    killer.start()
    run_shards(train_with_many_checkpoints, "auto", 2, notes.append)
    killer.join()
    assert sorted(attempts.read_text().split()) == ["1/2", "1/2", "2/2"]
    assert notes[0] == "ray: 2 shards, each with 1 CPU core"
    assert sorted(notes[1:]) == ["ray: shard 1/2 is finished", "ray: shard 2/2 is finished"]
    assert read_sweep_file(out)["finished"]
    assert_same_sweep(tmp_path / "whole", out)


def kill_worker(folder: Path) -> None:
    """Kills the process that holds the lock of a shard, once it has saved a checkpoint."""
    checkpoints, end = folder / "checkpoints" / "cohort_0", time.monotonic() + 300
    while not (checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())):
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(int(re.fullmatch(r"process (\d+)", (folder / ".lock").read_text())[1]), signal.SIGKILL)


@pytest.mark.fault
def test_a_task_that_fails_says_why(two_workers, tmp_path):
    request = parse_request(ablation.EXPERIMENT, [*WORDS, "--out", str(tmp_path / "file" / "out")])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"^shard [12]/2: .*file is not a folder.*; the same command goes on$"):
        run_shards(partial(train_shard, request), "auto", 2, lambda text: None)


def test_a_cluster_that_there_is_not(monkeypatch):
    def init(**options):
        raise ConnectionError("could not find any running Ray instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"cannot reach the Ray cluster '10.0.0.1:1': could not find"):
        connect("10.0.0.1:1")
