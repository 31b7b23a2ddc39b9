"""Several processes train a sweep together and leave what one would have left, whoever is killed on the way."""

import dataclasses
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fishnet.data import load_task
from fishnet.errors import UsageError, UserError
from fishnet.host.interrupt import Interrupt
from fishnet.sweep import Recipe, Stopping, Sweep, run_sweep
from fishnet.sweep.distributed import processes
from fishnet.sweep.distributed.dealing import deal, dealt_in, groups_of, share_of, written
from fishnet.sweep.distributed.processes import FINISHED, GONE, STOPPED, WORKING, Peer, Pulse, Team
from fishnet.sweep.plan.cohorts import make_cohorts
from fishnet.sweep.program.compile import compiler_options
from fishnet.sweep.program.program import CompiledProgram
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.store.checkpoint_store import CheckpointStore, part_of, taking_part
from fishnet.sweep.store.folder import locked
from tests.sweep.conftest import assert_same_results, contents, trained

SCRIPT = """
import pickle, sys
import jax
from fishnet.sweep import run_sweep
from fishnet.sweep.run import phase
from fishnet.sweep.distributed import processes
from fishnet.sweep.distributed import merge as whole

out, port, count, index, devices, width, call, sweep = pickle.loads(bytes.fromhex(sys.argv[1]))
phase.CHECKPOINT_SECONDS = whole.UPDATE_SECONDS = 0.0  # at every epoch
phase.CALL_SECONDS = call
processes.BEAT_SECONDS, processes.GONE_SECONDS = 0.2, 10.0
jax.config.update("jax_num_cpu_devices", 2)  # as here: programs for another number are compiled anew
try:
    processes.join(f"127.0.0.1:{port}", count, index)
    run_sweep(sweep, out, lane_width=width, devices=devices)
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 99))
"""


def start(
    out: Path, sweep: Sweep, count: int = 2, devices: int = 1, width: int = 1, call: float = 2.0
) -> list[subprocess.Popen]:
    """The processes of a job, which meet at a port of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [pickle.dumps((out, port, count, index, devices, width, call, sweep)).hex() for index in range(count)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen([sys.executable, "-c", SCRIPT, of], env=environment, stderr=subprocess.PIPE, text=True)
        for of in words
    ]


def ended(job: list[subprocess.Popen], timeout: float = 900) -> tuple[list[int], list[str]]:
    """Exit codes, and what was said, of all processes of a job."""
    try:
        said = [process.communicate(timeout=timeout)[1] for process in job]
    finally:
        for process in job:
            process.kill()
    return [process.returncode for process in job], said


def assert_same_sweep(one: Path, other: Path, but: tuple[str, ...] = ()) -> None:
    """Tables and the state of every run are the same, bit for bit, but for what else is named of its history."""
    assert_same_results(one, other)
    a, b = trained(one), trained(other)
    for state in (a, b):
        for name in ("seconds", *but):
            state["history"].pop(name)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def together(mixed, tmp_path_factory) -> Path:
    """The `mixed` sweep, but trained by two processes with a device each."""
    out = tmp_path_factory.mktemp("together") / "out"
    codes, said = ended(start(out, mixed[0]))
    assert codes == [0, 0], said
    return out


def test_number_of_processes_changes_nothing(mixed, together):
    """Nor does the number of devices: see test_lanes.py."""
    assert_same_sweep(mixed[1].out, together)
    assert {path.name for path in together.iterdir()} == {path.name for path in mixed[1].out.iterdir()}


def test_the_plan_says_how_runs_are_dealt(together):
    content = json.loads((together / "sweep.json").read_text())
    assert content["processes"] == 2
    ((one, other),) = dealt_in(content)
    assert sorted(one + other) == list(range(16))
    assert len(one) == len(other) == 8


def test_a_finished_sweep_is_left_alone_by_any_number_of_processes(mixed, together):
    before = contents(together)
    assert run_sweep(mixed[0], together).finished
    assert contents(together) == before


# --- dealing ---


SMALL = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=8, epochs=12, dropout=0.1)
SWEPT = Sweep(SMALL, {"optimizer": ["momentum", "adam"], "norm": ["batch", "layer"]}, seeds=3)


def cohorts_of(sweep: Sweep, width: int = 2) -> list:
    runs = [type(run)(run.index, run.arm, run.values, resolve(run.recipe)) for run in sweep.runs()]
    tasks = {("synthetic", 8): load_task("synthetic", 8)}
    return make_cohorts(runs, tasks, width, None, jax.devices()[:1])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_every_run_is_dealt_once_and_groups_stay_whole(count):
    cohorts = cohorts_of(Sweep(SMALL, dict(SWEPT.axes) | {"widths": [(8,), (4,)]}, seeds=5))
    dealt = deal(cohorts, count, whole_arms=False)
    for cohort, of in zip(cohorts, dealt, strict=True):
        assert sorted(run for runs in of for run in runs) == [run.index for run in cohort.runs]
        groups = {tuple(cohort.runs[row].index for row in g) for g in groups_of(cohort, range(len(cohort.runs)))}
        for process in range(count):
            share = share_of(cohort, of, process, devices=2)
            assert (share is None) == (not of[process])
            if share:
                own = {tuple(share.runs[row].index for row in g) for g in groups_of(share, range(len(share.runs)))}
                assert own <= groups
    assert dealt_in({"plan": [{"dealt": written(of)} for of in dealt]}) == dealt


def test_work_is_dealt_evenly_over_long_and_short_runs():
    """Dealt in turn, one process would get all the short runs."""
    (cohort,) = cohorts_of(Sweep(SMALL, {"epochs": [1, 5]}, seeds=4), width=1)
    (dealt,) = deal([cohort], 2, whole_arms=False)
    work = [sum(cohort.runs[run].recipe.epochs for run in runs) for runs in dealt]
    assert work == [12, 12]


def test_small_cohorts_go_to_different_processes():
    cohorts = cohorts_of(Sweep(SMALL, {"widths": [(8,), (9,)]}, seeds=1), width=1)
    assert {tuple(map(len, of)) for of in deal(cohorts, 2, whole_arms=False)} == {(1, 0), (0, 1)}


def test_arms_are_dealt_whole_where_seeds_end_together():
    (cohort,) = cohorts_of(SWEPT)
    (dealt,) = deal([cohort], 2, whole_arms=True)
    arms = [{cohort.runs[run].arm for run in runs} for runs in dealt]
    assert not arms[0] & arms[1]
    assert all(arms)


def test_all_processes_need_the_same_program():
    """Though one has more groups than the other."""
    (cohort,) = cohorts_of(Sweep(SMALL, {"lr": [0.1, 0.2, 0.3]}, seeds=2), width=2)
    (dealt,) = deal([cohort], 2, whole_arms=False)
    shares = [share_of(cohort, dealt, process, devices=1) for process in (0, 1)]
    assert {len(share.runs) for share in shares} == {2, 4}
    assert shares[0].config is shares[1].config is cohort.config
    assert shares[0].lanes_per_device == shares[1].lanes_per_device == 4
    assert all(share.epochs == cohort.epochs for share in shares)


COLLECTIVE = r"all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|\b(send|recv)\b"


def test_compiled_programs_hold_no_collective(mixed):
    (cohort,) = cohorts_of(mixed[0], width=1)
    (dealt,) = deal([cohort], 2, whole_arms=False)
    share = share_of(cohort, dealt, 1, devices=1)
    program = CompiledProgram(share.config, share.padded_config(), share.task, jax.devices()[:1])
    for name in ("init", "train", "evaluate", "keep"):
        compiled = program.trace(name).lower().compile(compiler_options=compiler_options("cpu"))
        assert "HloModule" in compiled.as_text()
        assert not re.search(COLLECTIVE, compiled.as_text()), name


def test_a_collective_would_be_seen():
    mesh = jax.make_mesh((2,), ("lane",), devices=jax.devices()[:2])
    placed = jax.device_put(np.ones(2, np.float32), NamedSharding(mesh, PartitionSpec("lane")))
    summed = jax.shard_map(lambda x: jax.lax.psum(x, "lane"), mesh=mesh, out_specs=PartitionSpec())
    assert re.search(COLLECTIVE, jax.jit(summed).lower(placed).compile().as_text())


# --- parts ---


def state(runs: list[int], steps: list[int]) -> dict:
    """A state whose arrays tell the run and how far it is."""
    value = np.array(runs, np.float32) + np.array(steps, np.float32) / 100
    history = {
        "steps": np.array(steps, np.int64),
        "epochs": np.array(steps, np.int32) // 10,
        "status": np.zeros(len(runs), np.int8),
    }
    return {"lanes": {"kernel": value[:, None]}, "history": history, "pixels": {"mean": np.ones(3, np.float32)}}


@pytest.fixture(scope="module")
def scattered(tmp_path_factory) -> Path:
    """Runs 0 to 3 begun by one process, 0 to 2 trained further by two, of which one was killed early."""
    out = tmp_path_factory.mktemp("scattered")
    for part, runs, steps in (
        (out, [0, 1, 2, 3], [10, 10, 10, 10]),
        (part_of(out, Team(0, 2)), [0, 2], [40, 35]),
        (part_of(out, Team(1, 2)), [1], [20]),
    ):
        states = CheckpointStore(out, part, "cohort_0", runs, "a hash")
        states.save(state(runs, steps))
        states.finish()
    return out


def test_each_run_goes_on_from_where_it_is_furthest(scattered):
    found = CheckpointStore(scattered, part_of(scattered, Team(2, 3)), "cohort_0", [2, 0, 3, 1], "a hash").restore(
        None, pytest.fail
    )
    assert found.found.all()
    np.testing.assert_array_equal(found.tree["history"]["steps"], [35, 40, 10, 20])
    np.testing.assert_allclose(found.tree["lanes"]["kernel"][:, 0], [2.35, 0.40, 3.10, 1.20])
    np.testing.assert_array_equal(found.tree["pixels"]["mean"], 1)


def test_runs_that_no_part_has_begin_afresh(scattered):
    found = CheckpointStore(scattered, scattered, "cohort_0", [7, 1], "a hash").restore(None, pytest.fail)
    np.testing.assert_array_equal(found.found, [False, True])
    fresh = {"kernel": np.array([[-1.0], [-2.0]], np.float32)}
    np.testing.assert_allclose(found.over("lanes", fresh)["kernel"][:, 0], [-1, 1.2])
    assert CheckpointStore(scattered, scattered, "cohort_0", [7, 8], "a hash").restore(None, pytest.fail) is None
    assert CheckpointStore(scattered, scattered, "cohort_1", [0], "a hash").restore(None, pytest.fail) is None


def test_parts_of_another_sweep_are_refused(scattered):
    other = state([0], [0]) | {"lanes": {"kernel": np.zeros((1, 2), np.float32)}}
    with pytest.raises(UserError, match="cohort_0 are not those of this sweep; remove that folder"):
        CheckpointStore(scattered, scattered, "cohort_0", [0], "a hash").restore(other, pytest.fail)


def test_a_folder_with_a_living_part_is_refused(tmp_path):
    """Process 0 of a job may be dead and the others still at work."""
    living = part_of(tmp_path, Team(1, 2))
    with locked(living), pytest.raises(UserError, match="process_1 is in use by another process"):  # noqa: SIM117
        with taking_part(tmp_path, Team(), Interrupt()):
            pass
    with taking_part(tmp_path, Team(), Interrupt()) as pulse:
        assert pulse is None


# --- processes ---


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(processes, "GONE_SECONDS", 0.5)
    peer = Peer(1, tmp_path, "now")
    with pytest.raises(ValueError, match="no space"), Pulse(tmp_path, "now") as pulse:
        time.sleep(0.7)
        assert peer.state() == WORKING
        time.sleep(0.7)
        assert peer.state() == WORKING
        assert Peer(1, tmp_path, "earlier").state() == WORKING
        raise ValueError("no space\nleft")
    assert peer.state() == STOPPED
    assert peer.ending() == "process 1 stopped (no space)"
    with Pulse(tmp_path, "now") as pulse:
        pulse.say(FINISHED)
    assert Peer(1, tmp_path, "now").state() == FINISHED


def test_a_process_without_signs_of_life_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GONE_SECONDS", 0.3)
    pulse = Pulse(tmp_path, "now")
    pulse._beat()  # and then it is killed
    peer, never = Peer(1, tmp_path, "now"), Peer(2, tmp_path / "nowhere", "now")
    assert peer.state() == never.state() == WORKING
    time.sleep(0.4)
    assert peer.state() == never.state() == GONE
    assert (peer.ending(), never.ending()) == ("process 1 is gone", "process 2 did not begin")


@pytest.mark.parametrize("rule", [{"halving": 2}, {"median": True}])
def test_rules_that_compare_all_arms_are_refused(tmp_path, monkeypatch, rule):
    monkeypatch.setattr(processes, "_team", Team(1, 2, "now"))
    with pytest.raises(UsageError, match=f"{next(iter(rule))} stopping compares all arms, and 2 processes"):
        run_sweep(Sweep(SMALL, {"lr": [0.1, 0.2]}, seeds=2, stopping=Stopping(**rule)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_processes_that_met_without_the_sweep_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"call fishnet.sweep.distributed.processes.join\(\) before anything else"):
        run_sweep(Sweep(SMALL, seeds=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- killed and started again ---

SLOWLY = {"width": 2, "call": 0.02}  # many small calls, so that a stop falls between any two of them


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return run_sweep(SWEPT, tmp_path_factory.mktemp("undisturbed") / "out", lane_width=2, devices=1).out


def wait_for_checkpoints(out: Path, count: int, job: list[subprocess.Popen]) -> None:
    """Until every process of a job has saved a few times."""
    folders = [part_of(out, Team(index, count)) / "checkpoints" / "cohort_0" for index in range(count)]

    def saved(folder: Path) -> bool:
        return folder.is_dir() and any(path.name.isdigit() and int(path.name) > 2 for path in folder.iterdir())

    while not all(map(saved, folders)):
        assert all(process.poll() is None for process in job), ended(job)
        time.sleep(0.02)


def killed(out: Path, victims: list[int], count: int = 2) -> tuple[list[int], list[str]]:
    """A job of which some processes are killed while all train."""
    job = start(out, SWEPT, count, **SLOWLY)
    wait_for_checkpoints(out, count, job)
    for victim in victims:
        job[victim].kill()
    return ended(job)


@pytest.mark.fault
@pytest.mark.parametrize(("victims", "count"), [([1], 1), ([0], 2), ([0, 1], 3)])
def test_killed_processes_cost_nothing_but_their_own_time(undisturbed, tmp_path, victims, count):
    """Whichever of two are killed: the same command goes on with another number of processes or the same."""
    out = tmp_path / "out"
    codes, said = killed(out, victims)
    assert codes == [-signal.SIGKILL if index in victims else 1 for index in (0, 1)]
    if victims == [1]:
        assert "process 1 is gone: the runs of the other processes are saved" in said[0]
        assert set(pd.read_parquet(out / "runs.parquet").status) == {"ok", "running"}
    if victims == [0]:
        assert said[1].strip().endswith("process 0 is gone: nothing is lost: the same command goes on from here")
    codes, said = ended(start(out, SWEPT, count, **SLOWLY))
    assert codes == [0] * count, said
    assert_same_sweep(undisturbed, out)
    assert not (out / "parts").exists()


@pytest.mark.fault
def test_two_processes_of_two_devices_go_on_where_one_was_killed(undisturbed, tmp_path):
    out = tmp_path / "out"
    assert killed(out, [0], count=1)[0] == [-signal.SIGKILL]
    codes, said = ended(start(out, SWEPT, 2, devices=2, **SLOWLY))
    assert codes == [0, 0], said
    assert_same_sweep(undisturbed, out)


@pytest.mark.fault
def test_arms_end_at_a_target_as_in_one_process(tmp_path):
    sweep = Sweep(SMALL, dict(SWEPT.axes), seeds=3, stopping=Stopping(target="val_accuracy>=0.45"))
    one = run_sweep(sweep, tmp_path / "one", lane_width=2, devices=1)
    assert {"ok", "stopped"} <= set(one.runs.status)
    codes, said = ended(start(tmp_path / "two", sweep, width=2))
    assert codes == [0, 0], said
    # Three seeds fill one and a half groups: what the other half does depends on which arms a process has.
    assert_same_sweep(one.out, tmp_path / "two", but=("executed",))


@pytest.mark.fault
def test_sigterm_to_all_saves_every_part(undisturbed, tmp_path):
    out = tmp_path / "out"
    job = start(out, SWEPT, **SLOWLY)
    wait_for_checkpoints(out, 2, job)
    for process in job:
        process.terminate()
    codes, said = ended(job)
    assert codes == [143, 143]
    assert all("stopped by SIGTERM" in text for text in said)
    assert ended(start(out, SWEPT, **SLOWLY))[0] == [0, 0]
    assert_same_sweep(undisturbed, out)


@pytest.mark.fault
def test_a_second_job_in_the_same_folder_is_refused(tmp_path):
    out = tmp_path / "out"
    sweep = dataclasses.replace(SWEPT, recipe=dataclasses.replace(SMALL, epochs=2000))  # does not end by itself
    job = start(out, sweep, **SLOWLY)
    wait_for_checkpoints(out, 2, job)
    codes, said = ended(start(out, sweep, **SLOWLY))
    assert codes == [1, 1]
    assert "out is in use by another process" in said[0]
    assert "process 0 did not begin" in said[1]
    for process in job:
        process.terminate()
    assert ended(job)[0] == [143, 143]


@pytest.mark.fault
def test_pretraining_goes_on_with_another_number_of_processes(tmp_path):
    """From an end in the middle of pretraining."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    recipe = dataclasses.replace(SMALL, epochs=2, pretrain_epochs=4)
    sweep = Sweep(recipe, {"pretrain": ["none", "rotation"], "optimizer": ["momentum", "adam"]}, seeds=3)
    run_sweep(sweep, whole, lane_width=2, devices=1)
    job = start(out, sweep, **SLOWLY)
    # Each by itself, as one may be through before the other has begun.
    begun = {part_of(out, Team(i, 2)) / "checkpoints" / "cohort_0_rotation": process for i, process in enumerate(job)}
    while begun:
        for folder, process in list(begun.items()):
            if folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir()):
                process.kill()
                del begun[folder]
            else:
                assert process.poll() is None
        time.sleep(0.02)
    ended(job)
    codes, said = ended(start(out, sweep, 3, width=2))
    assert codes == [0, 0, 0], said
    assert_same_sweep(whole, out)


@pytest.mark.fault
def test_a_process_that_waits_in_vain_says_so(tmp_path):
    script = SCRIPT.replace("try:", "processes.MEETING_SECONDS = 2.0\ntry:")
    words = pickle.dumps((tmp_path / "out", 29, 2, 1, 1, 1, 2.0, SWEPT)).hex()
    job = subprocess.run([sys.executable, "-c", script, words], stderr=subprocess.PIPE, text=True)
    assert job.returncode == 1
    assert job.stderr.strip().splitlines()[-1].startswith("error: process 1 waited 2 s at 127.0.0.1:29 for all 2 proc")
