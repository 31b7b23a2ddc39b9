"""Shards of a sweep leave what one process would have left, whoever is killed on the way."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments import merge
from fishnet.data import load_task
from fishnet.errors import UsageError, UserError
from fishnet.host.compile import compiler_options
from fishnet.host.names import with_flag
from fishnet.sweep import Recipe, Stopping, Sweep, run_sweep
from fishnet.sweep.distributed import shard_folders
from fishnet.sweep.distributed.assignment import assign, groups_of, parse_assignment, shard_of, write_assignment
from fishnet.sweep.distributed.shard import Shard, parse_shard, shard_in
from fishnet.sweep.plan.cohorts import LayoutChoice
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.run import phase
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.store.checkpoint_store import CheckpointStore
from fishnet.sweep.store.folder import locked
from tests.sweep.conftest import Stopper, contents, trained


def assert_same_sweep(one: Path, other: Path, but: tuple[str, ...] = ()) -> None:
    """Tables, files and the state of every run are the same, bit for bit, but for what else is named of its history."""
    assert {path.name for path in one.iterdir()} - {".lock"} == {path.name for path in other.iterdir()} - {".lock"}
    for path in one.glob("*.parquet"):
        a, b = (pd.read_parquet(out / path.name).drop(columns="train_seconds", errors="ignore") for out in (one, other))
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    for folder in (one / "checkpoints").iterdir():
        a, b = (trained(out, int(folder.name.removeprefix("cohort_"))) for out in (one, other))
        for state in (a, b):
            for name in ("seconds", *but):
                state["history"].pop(name)
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)


# --- in one process, shard after shard ---


@pytest.fixture(scope="module")
def sharded(mixed, tmp_path_factory) -> Path:
    """The `mixed` sweep in two shards."""
    out = tmp_path_factory.mktemp("sharded") / "out"
    first = run_sweep(
        mixed[0], out, lane_width=1, devices=1, shard="1/2", command="python -m experiments.x --shard 1/2"
    )
    assert first.missing == ("shard 2/2 (not begun)",)
    assert len(first.runs) == 8 and set(first.runs.status) == {"ok"}
    assert not (out / "runs.parquet").exists()
    again = run_sweep(mixed[0], out, lane_width=1, devices=1, shard="1/2")  # trains nothing
    assert again.missing == first.missing
    pd.testing.assert_frame_equal(again.runs, first.runs)
    content = json.loads((out / "sweep.json").read_text())
    assert (content["shards"], content["finished"]) == (2, None)
    ((one, other),) = parse_assignment(content)
    assert one == first.runs.run.tolist() and sorted(one + other) == list(range(16)) and len(other) == 8
    last = run_sweep(mixed[0], out, lane_width=1, devices=1, shard="2/2")
    assert not last.missing and not last.finished and len(last.runs) == 16
    return out


@pytest.mark.slow
def test_shards_leave_what_one_process_leaves(mixed, sharded):
    """Nor does the number of devices change anything: see test_lanes.py."""
    assert_same_sweep(mixed[1].out, sharded)
    left, right = (json.loads((out / "sweep.json").read_text()) for out in (mixed[1].out, sharded))
    assert left["steps"] == right["steps"] and left["tables"].keys() == right["tables"].keys()


@pytest.mark.parametrize("shard", [None, "1/2", "3/5"])
@pytest.mark.slow
def test_a_finished_sweep_is_left_alone_by_any_shard(mixed, sharded, shard):
    before = contents(sharded)
    assert run_sweep(mixed[0], sharded, shard=shard).finished
    assert {**contents(sharded), ".lock": b""} == {**before, ".lock": b""}


@pytest.mark.slow
def test_several_cohorts_more_shards_than_groups_and_a_target(tmp_path):
    """Shards without runs in one program, or in any; arms stay whole where seeds end together."""
    sweep = Sweep(SMALL, {"widths": [(8,), (4,)]}, seeds=3, stopping=Stopping(target="val_accuracy>=0.45"))
    whole = run_sweep(sweep, tmp_path / "whole", lane_width=2, devices=1)
    for number in (3, 1, 2):
        result = run_sweep(sweep, tmp_path / "out", lane_width=2, devices=1, shard=f"{number}/3")
    assert not result.missing
    assert_same_sweep(whole.out, tmp_path / "out", but=("executed",))


def stopped_early(sweep: Sweep, out: Path, shard: str | None, after: float = 3.0) -> None:
    """A shard that gets a signal after so many run-epochs."""
    with pytest.raises(UserError, match="SIGTERM"):
        run_sweep(sweep, out, lane_width=2, devices=1, shard=shard, display=Stopper(after))


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after every epoch."""
    monkeypatch.setattr(phase, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return run_sweep(SWEPT, tmp_path_factory.mktemp("undisturbed") / "out", lane_width=2, devices=1).out


@pytest.mark.parametrize(
    "goes_on",
    [["2/2", "1/2"], ["1/3", "3/3", "2/3"], [None]],
    ids=str,
)
@pytest.mark.slow
def test_a_stopped_shard_goes_on_in_any_number_of_shards(undisturbed, tmp_path, often, goes_on):
    out = tmp_path / "out"
    stopped_early(SWEPT, out, "2/2")
    stopped_early(SWEPT, out, "1/2", after=6.0)
    for shard in goes_on:
        result = run_sweep(SWEPT, out, lane_width=2, devices=1, shard=shard)
    assert not result.missing
    assert_same_sweep(undisturbed, out)


def test_a_sweep_begun_by_one_process_goes_on_in_shards(undisturbed, tmp_path, often):
    out = tmp_path / "out"
    stopped_early(SWEPT, out, None)
    assert run_sweep(SWEPT, out, lane_width=2, devices=1, shard="1/2").missing == ("shard 2/2 (not begun)",)
    run_sweep(SWEPT, out, lane_width=2, devices=1, shard="2/2")
    assert_same_sweep(undisturbed, out)


def test_folders_of_shards_as_an_earlier_version_named_them_are_read(undisturbed, tmp_path, often):
    out = tmp_path / "out"
    stopped_early(SWEPT, out, "2/2")
    old = out / "parts" / "of_2" / "process_1"
    old.parent.mkdir(parents=True)
    (out / "shards" / "2-of-2").rename(old)
    store = CheckpointStore(out, out, "cohort_0", range(12), json.loads((out / "sweep.json").read_text())["spec_hash"])
    assert store.restore(None, pytest.fail).found.sum() == 6
    run_sweep(SWEPT, out, lane_width=2, devices=1)
    assert_same_sweep(undisturbed, out)


@pytest.mark.slow
def test_pretraining_goes_on_in_another_number_of_shards(tmp_path, often):
    recipe = Recipe(**vars(SMALL) | {"epochs": 2, "pretrain_epochs": 4})
    sweep = Sweep(recipe, {"pretrain": ["none", "rotation"], "optimizer": ["momentum", "adam"]}, seeds=3)
    whole = run_sweep(sweep, tmp_path / "whole", lane_width=2, devices=1)
    stopped_early(sweep, tmp_path / "out", "1/2", after=0.5)
    for shard in ("3/3", "2/3", "1/3"):
        run_sweep(sweep, tmp_path / "out", lane_width=2, devices=1, shard=shard)
    assert_same_sweep(whole.out, tmp_path / "out")


# --- who may be at work ---


def test_a_shard_that_is_at_work_is_refused_to_a_second_process(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_folders, "LOOK_SECONDS", 0.2)
    out = tmp_path / "out"
    with locked(Shard(1, 2).folder(out)), pytest.raises(UserError, match="1-of-2 is in use by another process"):
        run_sweep(SWEPT, out, shard="1/2")
    for other in ("1/3", None):  # would train the same runs
        with locked(Shard(1, 2).folder(out)), pytest.raises(UserError, match="1-of-2 is in use by another process"):
            run_sweep(SWEPT, out, shard=other)
    with locked(out), pytest.raises(UserError, match="out is in use by another process"):
        run_sweep(SWEPT, out, shard="2/2")
    assert not list(out.rglob("*.json"))


def test_missing_shards_are_named_with_the_command_that_goes_on(tmp_path):
    for number in (2, 3):
        Shard(number, 4).folder(tmp_path).mkdir(parents=True)
    shard_folders.mark_finished(Shard(2, 4).folder(tmp_path), "a hash")
    shard_folders.mark_finished(Shard(3, 4).folder(tmp_path), "the hash of another sweep")
    with locked(Shard(4, 4).folder(tmp_path)):
        missing = shard_folders.missing_shards(tmp_path, 4, "a hash")
    assert missing == ["shard 1/4 (not begun)", "shard 3/4 (stopped)", "shard 4/4 (at work)"]
    text = shard_folders.resume_text(missing, "python -m experiments.ablation --shard 2/4 --out 'a b'")
    assert text.endswith("; to go on: python -m experiments.ablation --out 'a b' --shard 1/4")
    assert "the last one to finish merges" in shard_folders.resume_text(["shard 4/4 (at work)"], "x")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("a --out x", "a --out x --shard 3/4"),
        ("a --shard=1/4 --quiet", "a --quiet --shard 3/4"),
        ("a '", "a ' --shard 3/4"),
    ],
)
def test_the_command_of_another_shard(command, expected):
    assert with_flag(command, "--shard", "3/4") == expected


def test_merging_by_command(undisturbed, tmp_path, monkeypatch, capsys):
    """What is missing is named; all there, the same is left as by the last shard."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:  # the last process dies before it merges
        patch.setattr("fishnet.sweep.run.sweep.merge_shards", lambda *_: sys.exit(9))
        run_sweep(SWEPT, out, lane_width=2, devices=1, shard="1/2", command="python -m experiments.y --shard 1/2")
        assert merge.main(["--run", str(out)]) == 1
        assert (
            "not finished: shard 2/2 (not begun); to go on: python -m experiments.y --shard 2/2"
            in capsys.readouterr().err
        )
        with pytest.raises(SystemExit):
            run_sweep(SWEPT, out, lane_width=2, devices=1, shard="2/2")
    assert not (out / "runs.parquet").exists()
    assert merge.main(["--run", str(out)]) == 0
    assert (out / "report.html").exists()
    for name in ("report.html", "figures"):
        remove(out / name)
    assert_same_sweep(undisturbed, out)
    assert merge.main(["--run", str(out)]) == 0  # again: nothing is left to do
    assert merge.main(["--run", str(tmp_path)]) == 1


def remove(path: Path) -> None:
    for inner in path.iterdir() if path.is_dir() else ():
        remove(inner)
    path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("rule", [{"halving": 2}, {"median": True}])
def test_rules_that_compare_all_arms_are_refused(tmp_path, rule):
    with pytest.raises(UsageError, match=f"{next(iter(rule))} stopping compares all arms, and 2 shards"):
        run_sweep(Sweep(SMALL, {"lr": [0.1, 0.2]}, seeds=2, stopping=Stopping(**rule)), tmp_path / "out", shard="1/2")
    assert not (tmp_path / "out").exists()


def test_processes_that_share_devices_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"give each process a shard \(--shard I/N\)"):
        run_sweep(Sweep(SMALL, seeds=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "1/2/3", "-1/2", "1/0", "", "1/99999"])
def test_a_shard_that_cannot_be(text):
    with pytest.raises(UsageError, match="shard"):
        parse_shard(text)
    assert str(parse_shard("2/4")) == "2/4" and parse_shard("1/1").whole


CLUSTERS = {
    "Slurm": {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"},
    "Open MPI": {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"},
    "Kubernetes": {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "4"},
    "TPU": {"TPU_WORKER_ID": "2", "TPU_WORKER_HOSTNAMES": "a,b,c,d"},
}
ALONE = {
    "laptop": {},
    "one task": {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    "a script that sbatch runs itself": {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
    "an indexed job of which the number is not told": {"JOB_COMPLETION_INDEX": "2"},
    "colab": {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
}


@pytest.mark.parametrize("environment", CLUSTERS.values(), ids=CLUSTERS)
def test_the_shard_of_a_process_in_a_cluster(environment):
    assert shard_in(environment) == Shard(3, 4)
    index = next(iter(environment))
    for wrong in ("4", "first", "-1", "\u00b2", "9" * 50):
        with pytest.raises(UsageError, match=f"{index}.*--shard I/N"):
            shard_in({**environment, index: wrong})
    with pytest.raises(UsageError, match=f"there is no {index}"):
        shard_in({name: value for name, value in environment.items() if name != index})


@pytest.mark.parametrize("environment", ALONE.values(), ids=ALONE)
def test_a_process_alone_trains_all_runs(environment):
    assert shard_in(environment) == Shard()


# --- assignment ---


SMALL = Recipe(task="synthetic", image_size=8, model="mlp", widths=(8,), batch_size=8, epochs=12, dropout=0.1)
SWEPT = Sweep(SMALL, {"optimizer": ["momentum", "adam"], "norm": ["batch", "layer"]}, seeds=3)


def layouts_of(sweep: Sweep, width: int = 2) -> list:
    runs = [type(run)(run.index, run.arm, run.values, resolve(run.recipe)) for run in sweep.runs()]
    tasks = {("synthetic", 8): load_task("synthetic", 8)}
    return make_layouts(runs, tasks, jax.devices()[:1], LayoutChoice(width))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_every_run_is_assigned_once_and_groups_stay_whole(count):
    layouts = layouts_of(Sweep(SMALL, dict(SWEPT.axes) | {"widths": [(8,), (4,)]}, seeds=5))
    assigned = assign(layouts, count, whole_arms=False)
    for layout, of in zip(layouts, assigned, strict=True):
        cohort = layout.cohort
        assert sorted(run for runs in of for run in runs) == [run.index for run in cohort.runs]
        groups = {tuple(cohort.runs[row].index for row in g) for g in groups_of(cohort, range(len(cohort.runs)))}
        for place in range(count):
            share = shard_of(layout, of, place, devices=2)
            assert (share is None) == (not of[place])
            if share:
                mine = share.cohort.runs
                own = {tuple(mine[row].index for row in g) for g in groups_of(share.cohort, range(len(mine)))}
                assert own <= groups
    assert parse_assignment({"plan": [{"assigned": write_assignment(of)} for of in assigned]}) == assigned


def test_work_is_divided_evenly_over_long_and_short_runs():
    """Assigned in turn, one shard would get all the short runs."""
    (layout,) = layouts_of(Sweep(SMALL, {"epochs": [1, 5]}, seeds=4), width=1)
    (assigned,) = assign([layout], 2, whole_arms=False)
    work = [sum(layout.cohort.runs[run].recipe.epochs for run in runs) for runs in assigned]
    assert work == [12, 12]


def test_small_cohorts_go_to_different_shards():
    layouts = layouts_of(Sweep(SMALL, {"widths": [(8,), (9,)]}, seeds=1), width=1)
    assert {tuple(map(len, of)) for of in assign(layouts, 2, whole_arms=False)} == {(1, 0), (0, 1)}


def test_arms_are_assigned_whole_where_seeds_end_together():
    (layout,) = layouts_of(SWEPT)
    (assigned,) = assign([layout], 2, whole_arms=True)
    arms = [{layout.cohort.runs[run].arm for run in runs} for runs in assigned]
    assert not arms[0] & arms[1]
    assert all(arms)


def test_all_shards_need_the_same_program():
    """Though one has more groups than the other."""
    (layout,) = layouts_of(Sweep(SMALL, {"lr": [0.1, 0.2, 0.3]}, seeds=2), width=2)
    (assigned,) = assign([layout], 2, whole_arms=False)
    shares = [shard_of(layout, assigned, place, devices=1) for place in (0, 1)]
    assert {len(share.cohort.runs) for share in shares} == {2, 4}
    assert shares[0].cohort.config is shares[1].cohort.config is layout.cohort.config
    assert shares[0].lanes_per_device == shares[1].lanes_per_device == 4
    assert all(share.cohort.epochs == layout.cohort.epochs for share in shares)


COLLECTIVE = r"all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|\b(send|recv)\b"


@pytest.mark.slow
def test_compiled_programs_hold_no_collective(mixed):
    (layout,) = layouts_of(mixed[0], width=1)
    (assigned,) = assign([layout], 2, whole_arms=False)
    share = shard_of(layout, assigned, 1, devices=1)
    program = share.bind(jax.devices())
    for name in ("init", "train", "evaluate", "keep"):
        compiled = program.trace(name).lower().compile(compiler_options=compiler_options("cpu"))
        assert "HloModule" in compiled.as_text()
        assert not re.search(COLLECTIVE, compiled.as_text()), name


def test_a_collective_would_be_seen():
    mesh = jax.make_mesh((2,), ("lane",), devices=jax.devices()[:2])
    placed = jax.device_put(np.ones(2, np.float32), NamedSharding(mesh, PartitionSpec("lane")))
    summed = jax.shard_map(lambda x: jax.lax.psum(x, "lane"), mesh=mesh, out_specs=PartitionSpec())
    assert re.search(COLLECTIVE, jax.jit(summed).lower(placed).compile().as_text())


# --- checkpoints of shards ---


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
    """Runs 0 to 3 begun by one process, 0 to 2 trained further in two shards, of which one was killed early."""
    out = tmp_path_factory.mktemp("scattered")
    for part, runs, steps in (
        (out, [0, 1, 2, 3], [10, 10, 10, 10]),
        (Shard(1, 2).folder(out), [0, 2], [40, 35]),
        (Shard(2, 2).folder(out), [1], [20]),
    ):
        states = CheckpointStore(out, part, "cohort_0", runs, "a hash")
        states.save(state(runs, steps))
        states.finish()
    return out


def test_each_run_goes_on_from_where_it_is_furthest(scattered):
    found = CheckpointStore(scattered, Shard(3, 3).folder(scattered), "cohort_0", [2, 0, 3, 1], "a hash").restore(
        None, pytest.fail
    )
    assert found.found.all()
    np.testing.assert_array_equal(found.tree["history"]["steps"], [35, 40, 10, 20])
    np.testing.assert_allclose(found.tree["lanes"]["kernel"][:, 0], [2.35, 0.40, 3.10, 1.20])
    np.testing.assert_array_equal(found.tree["pixels"]["mean"], 1)


def test_runs_that_no_shard_has_begin_afresh(scattered):
    found = CheckpointStore(scattered, scattered, "cohort_0", [7, 1], "a hash").restore(None, pytest.fail)
    np.testing.assert_array_equal(found.found, [False, True])
    fresh = {"kernel": np.array([[-1.0], [-2.0]], np.float32)}
    np.testing.assert_allclose(found.over("lanes", fresh)["kernel"][:, 0], [-1, 1.2])
    assert CheckpointStore(scattered, scattered, "cohort_0", [7, 8], "a hash").restore(None, pytest.fail) is None
    assert CheckpointStore(scattered, scattered, "cohort_1", [0], "a hash").restore(None, pytest.fail) is None


def test_shards_of_another_sweep_are_refused(scattered):
    other = state([0], [0]) | {"lanes": {"kernel": np.zeros((1, 2), np.float32)}}
    with pytest.raises(UserError, match="cohort_0 are not those of this sweep; remove that folder"):
        CheckpointStore(scattered, scattered, "cohort_0", [0], "a hash").restore(other, pytest.fail)


# --- processes of their own, killed ---

SCRIPT = """
import pickle, sys
import jax
from fishnet.sweep import run_sweep
from fishnet.sweep.run import phase

out, shard, sweep = pickle.loads(bytes.fromhex(sys.argv[1]))
phase.CHECKPOINT_SECONDS, phase.CALL_SECONDS = 0.0, 0.02  # at every epoch; many small calls
jax.config.update("jax_num_cpu_devices", 2)  # as here: programs for another number are compiled anew
try:
    print(len(run_sweep(sweep, out, lane_width=2, devices=1, shard=shard).missing))
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 99))
"""


def start(out: Path, sweep: Sweep, shard: str) -> subprocess.Popen:
    words = pickle.dumps((out, shard, sweep)).hex()
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, words],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and what was said."""
    try:
        text, complaints = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, text + complaints


@pytest.mark.fault
def test_two_processes_at_once_of_which_one_is_killed_and_started_again(undisturbed, tmp_path):
    """A second process of the same shard is refused meanwhile, and the last to finish merges."""
    out = tmp_path / "out"
    endless = Sweep(Recipe(**vars(SMALL) | {"epochs": 2000}), dict(SWEPT.axes), seeds=3)
    victim = start(tmp_path / "endless", endless, "1/2")
    saved = Shard(1, 2).folder(tmp_path / "endless") / "checkpoints" / "cohort_0"
    while not (saved.is_dir() and any(path.name.isdigit() and int(path.name) > 2 for path in saved.iterdir())):
        assert victim.poll() is None, ended(victim)
        time.sleep(0.02)
    code, said = ended(start(tmp_path / "endless", endless, "1/2"))
    assert code == 1 and "1-of-2 is in use by another process" in said
    victim.kill()
    assert ended(victim)[0] == -signal.SIGKILL
    both = {shard: start(out, SWEPT, shard) for shard in ("1/2", "2/2")}
    saved = Shard(1, 2).folder(out) / "checkpoints" / "cohort_0"
    while not (saved.is_dir() and any(path.name.isdigit() for path in saved.iterdir())):
        assert both["1/2"].poll() is None, ended(both["1/2"])
        time.sleep(0.005)
    both["1/2"].kill()
    assert ended(both["1/2"])[0] == -signal.SIGKILL
    assert ended(both["2/2"]) == (0, "1\n")
    assert not (out / "runs.parquet").exists()
    assert ended(start(out, SWEPT, "1/2")) == (0, "0\n")
    assert_same_sweep(undisturbed, out)


@pytest.mark.fault
def test_two_processes_that_finish_together_merge_once(undisturbed, tmp_path):
    both = [start(tmp_path / "out", SWEPT, shard) for shard in ("1/2", "2/2")]
    assert sorted(ended(process) for process in both) in ([(0, "0\n"), (0, "0\n")], [(0, "0\n"), (0, "1\n")])
    assert_same_sweep(undisturbed, tmp_path / "out")
