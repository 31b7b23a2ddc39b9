"""What a plan says of the time that a sweep will take: what is remembered and told; it decides nothing."""

import dataclasses
import json
import math
import warnings

import jax
import pytest

from fishnet.data import load_task
from fishnet.host import best_effort
from fishnet.host.json_cache import JsonCache
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.distributed.assignment import assign
from fishnet.sweep.plan import fit_memory, past_times
from fishnet.sweep.plan.cohorts import LayoutChoice
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.plan.past_times import TIMES, find_time, time_key
from fishnet.sweep.program import compile as compiling
from fishnet.sweep.program import program
from fishnet.sweep.run import training
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.spec.text import plan_rows
from tests.sweep.conftest import TINY, assert_same_run

UNKNOWN = "unknown until the first calls: then the progress says how much time is left"


class Notes(Display):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.lines, self.view = [], {}

    def note(self, text: str) -> None:
        self.lines.append(text)

    def plan(self, view) -> None:
        self.lines += view["notes"]
        self.view = view

    @property
    def estimate(self) -> str:
        return dict(plan_rows(self.view))["estimate"]


def planned(sweep: Sweep, devices: int = 1):
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    tasks = {("synthetic", 8): load_task("synthetic", 8)}
    (layout,) = make_layouts(runs, tasks, jax.devices()[:devices], LayoutChoice(1))
    return layout


@pytest.mark.slow
def test_what_a_program_took_is_what_the_next_plan_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = Notes(), Notes()
    run_sweep(Sweep(TINY, seeds=4), tmp_path / "first", lane_width=1, devices=2, display=first)
    assert first.estimate == UNKNOWN
    entry = TIMES.find(time_key(planned(Sweep(TINY, seeds=4), 2), jax.devices()[:2]))
    assert entry["steps"] == TINY.epochs * 8 * 2  # of each of the two devices
    assert min(entry["training"], entry["evaluating"], entry["other"]) > 0 and entry["probing"] == 0
    # The same program at another learning rate, for longer.
    longer = Sweep(dataclasses.replace(TINY, lr=0.01, epochs=5), seeds=8)
    known = find_time(planned(longer, 2), jax.devices()[:2])
    times = 5 * 8 * 4 / entry["steps"]
    assert known.seconds["training"] == pytest.approx(times * entry["training"])
    assert known.seconds["evaluating"] == pytest.approx(times * entry["evaluating"])
    assert (known.seconds["compiling"], known.seconds["other"]) == (entry["compiling"], entry["other"])
    run_sweep(dataclasses.replace(longer, seeds=4), tmp_path / "second", lane_width=1, devices=2, display=second)
    assert second.estimate.startswith("about ") and second.estimate.endswith(f"; as it took on {known.date}")
    # Another program, other devices: not known.
    wider = Sweep(dataclasses.replace(TINY, widths=(9,)), seeds=4)
    assert find_time(planned(wider, 2), jax.devices()[:2]) is None
    assert find_time(planned(longer), jax.devices()[:1]) is None


@pytest.mark.slow
def test_one_program_that_is_not_known_leaves_the_whole_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run_sweep(Sweep(TINY, seeds=1), tmp_path / "one", devices=1)
    display = Notes()
    run_sweep(Sweep(TINY, axes={"widths": [(8,), (4,)]}, seeds=1), tmp_path / "two", devices=1, display=display)
    assert [cohort["last_time"] is None for cohort in display.view["cohorts"]] == [False, True]
    assert display.estimate == UNKNOWN


@pytest.fixture
def as_for_a_user(monkeypatch):
    """What fails without being needed is a note."""
    monkeypatch.setattr(best_effort, "RAISE", False)


def broken(*_, **__):
    raise IndexError("list index out of range\n  somewhere")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (past_times, "time_key"),
        (fit_memory, "measure_linear_layers"),
        (compiling, "check_memory"),
        (program, "available_bytes"),
        (training, "keep_time"),
    ],
)
def test_what_only_informs_may_fail_and_the_sweep_trains(tiny, tmp_path, monkeypatch, as_for_a_user, module, name):
    run_sweep(tiny[0], tmp_path / "before", devices=1)
    monkeypatch.setattr(module, name, broken)
    display = Notes()
    with warnings.catch_warnings(record=True) as warned:
        result = run_sweep(tiny[0], tmp_path / "out", devices=1, display=display)
    assert (result.runs["status"] == "ok").all()
    for run in range(4):
        assert_same_run(result.out, run, tiny[1].out, run)
    told = [*display.lines, *(str(warning.message) for warning in warned)]
    notes = [
        line for line in told if "is unknown, which changes no result: IndexError: list index out of range" in line
    ]
    assert notes and all("\n" not in note for note in notes)
    assert (display.estimate == UNKNOWN) == (name == "time_key")
    finished = run_sweep(tiny[0], tmp_path / "out", devices=1)
    assert finished.finished


def test_shards_have_equally_many_steps():
    task = load_task("synthetic", 8)
    sweep = Sweep(TINY, axes={"batch_size": [16, 64], "epochs": [1, 2]}, seeds=2)  # 16 and 4 steps an epoch
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    layouts = make_layouts(runs, {("synthetic", 8): task}, jax.devices()[:1], LayoutChoice(1))
    steps = {run.index: run.recipe.epochs * (256 // run.recipe.batch_size) for run in runs}
    assigned = assign(layouts, 2, whole_arms=False)
    for shard in range(2):
        assert sum(steps[run] for shares in assigned for run in shares[shard]) == (16 + 4) * (1 + 2)


def test_a_program_that_cannot_be_traced_is_refused_before_anything_is_written(tmp_path, monkeypatch, as_for_a_user):
    def wrong(progress):
        raise TypeError("the caller's own mistake")

    monkeypatch.setitem(SCHEDULES, "wrong", wrong)
    with pytest.raises(TypeError, match="the caller's own mistake"):
        run_sweep(Sweep(dataclasses.replace(TINY, schedule="wrong"), seeds=1), tmp_path / "out", devices=1)
    assert not (tmp_path / "out" / "sweep.json").exists()


def test_a_damaged_memory_is_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = JsonCache("some.json", {"x": float})
    memory.keep("a", {"x": 1})
    memory.keep("b", {"x": 2})
    assert memory.find("a")["x"] == 1
    path = tmp_path / "fishnet" / "measured" / "some.json"
    entry = {"date": "2026-11-30", "x": 1}
    wrong = [{"a": entry | change} for change in ({"x": "1"}, {"x": None}, {"x": True}, {"x": math.nan}, {"date": 3})]
    damages = [path.read_text()[:-9], "[]", '{"a": 3}', "", "[" * 100_000, *map(json.dumps, wrong)]
    for damage in damages:
        path.write_text(damage)
        assert memory.find("a") is None
    memory.keep("a", {"x": 3})
    assert memory.find("a")["x"] == 3
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    memory.keep("a", {"x": 4})
    assert memory.find("a") is None
