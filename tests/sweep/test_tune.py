"""`--lane-width auto`: what is timed, chosen, written down and kept."""

import dataclasses
import itertools

import jax
import pytest

from fishnet.data import load_task
from fishnet.errors import UserError
from fishnet.host.interrupt import Interrupt
from fishnet.host.memory import OutOfMemory
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.plan import autotune as tune
from fishnet.sweep.plan.autotune import Candidate, TunedLayout
from fishnet.sweep.plan.grouping import form_groups, vmap_key
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.store.folder import read_sweep_file
from tests.sweep.conftest import TINY, Stopper


@pytest.mark.slow
def test_the_fastest_layout_is_taken_written_down_and_kept(tmp_path):
    out = tmp_path / "out"
    sweep = Sweep(dataclasses.replace(TINY, epochs=2), seeds=4)
    with pytest.raises(UserError, match="stopped by SIGTERM"):
        run_sweep(sweep, out, lane_width="auto", devices=1, display=Stopper(2.0))
    (plan,) = read_sweep_file(out)["plan"]
    timings = plan["timings"]
    assert set(timings) == {"width 1, winograd", "width 4, winograd"}  # four runs agree in their kinds: none of 16
    assert f"width {plan['lane_width']}, {plan['lowering']}" == min(timings, key=timings.get)
    assert plan["why"].startswith(f"width {plan['lane_width']}, winograd: ")
    again = run_sweep(sweep, out, lane_width="auto", devices=1)  # goes on without timing anew
    assert (again.runs["status"] == "ok").all()
    (kept,) = read_sweep_file(out)["plan"]
    assert all(kept[name] == plan[name] for name in ("lane_width", "lowering", "timings", "why"))


def layouts_of(sweep: Sweep, devices: int, stages: list[str]) -> list[TunedLayout]:
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    tasks = {("synthetic", 8): load_task("synthetic", 8)}
    return tune.autotune_layouts(runs, tasks, None, jax.devices()[:devices], stages.append, Interrupt())


@pytest.fixture
def costs(tmp_path, monkeypatch):
    """Lets each candidate of the tuner take what the test says, without compiling it; nothing is remembered yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FISHNET_CPU_KERNELS", "off")
    table: dict[tuple, float] = {}
    made: list[Candidate] = []

    class Priced(tune.Trial):
        def __init__(self, candidate, serial, *_):
            made.append(candidate)
            cohort = serial.cohort
            cost = table[candidate.width, candidate.devices]
            if cost is None:
                raise OutOfMemory(2, 1)
            groups = form_groups(range(len(cohort.runs)), vmap_key(cohort.traced, False), candidate.width)
            self.candidate, self.seconds, self._cost = candidate, [], cost
            self._rounds, self._runs = -(-len(groups) // candidate.devices), len(cohort.runs)

        def take(self):
            self.seconds.append(self._cost)

    monkeypatch.setattr(tune, "Trial", Priced)
    return table, made


def test_serial_is_always_timed_and_idle_lanes_count(costs):
    table, made = costs
    # Six runs in groups of four are two groups, one of them half empty: 3.0 ms for all against 3 x 1.2 of serial.
    table |= {(1, 2): 1.2e-3, (4, 2): 3.0e-3, (1, 1): 0.8e-3, (4, 1): 2.0e-3}
    (layout,) = layouts_of(Sweep(TINY, seeds=6), 2, [])
    assert made[0] == Candidate(1, "winograd", 2)
    assert len(made) == len(set(made)) == 4
    assert layout.timings == {
        "width 1, winograd, 2 devices": 0.6,
        "width 4, winograd, 2 devices": 0.5,
        "width 1, winograd, 1 device": 0.8,
        "width 4, winograd, 1 device": 0.6667,
    }
    assert (layout.choice.lane_width, layout.choice.most_devices) == (4, None)
    assert layout.choice.why == (
        "width 4, winograd, 2 devices: 0.5 ms a step and run, serial 0.6, the fastest of 4 layouts timed"
    )


def test_one_device_may_be_faster_than_two_side_by_side(costs):
    table, _ = costs
    table |= {(1, 2): 1.2e-3, (4, 2): 9e-3, (1, 1): 0.4e-3, (4, 1): 9e-3}
    (layout,) = layouts_of(Sweep(TINY, seeds=6), 2, [])
    assert (layout.choice.lane_width, layout.choice.most_devices) == (1, 1)


@pytest.mark.parametrize(("reason", "more"), [("off", ()), ("", ("cpu_kernels",))], ids=["without", "kernels"])
def test_a_single_run_has_one_layout_for_each_lowering(costs, monkeypatch, reason, more):
    monkeypatch.setattr(tune, "missing_kernels", lambda: reason)
    table, made = costs
    table |= {(1, 1): 1.0}
    cnn = dataclasses.replace(TINY, model="cnn")
    layouts_of(Sweep(cnn, seeds=1), 2, [])
    assert made == [Candidate(1, name, 1) for name in ("winograd", "gemm", "native", *more)]


def test_what_does_not_fit_is_no_candidate(costs):
    table, _ = costs
    table |= {(1, 2): 1.0, (4, 2): None, (1, 1): 2.0, (4, 1): None}
    (layout,) = layouts_of(Sweep(TINY, seeds=6), 2, [])
    assert set(layout.timings) == {"width 1, winograd, 2 devices", "width 1, winograd, 1 device"}


def test_a_choice_is_remembered_for_the_same_cohort_alone(costs, tmp_path):
    table, made = costs
    table |= {(1, 2): 1.0, (4, 2): 1.0, (1, 1): 1.0, (4, 1): 1.0}
    first, again, other = [], [], []
    (layout,) = layouts_of(Sweep(TINY, seeds=6), 2, first)
    count = len(made)
    (remembered,) = layouts_of(Sweep(TINY, seeds=[7, 8, 9, 10, 11, 12]), 2, again)
    assert len(made) == count
    assert (first, again) == (["timing layouts of program 1 of 1"], [])
    assert remembered.choice.why.startswith(layout.choice.why + " (remembered from 20")
    choice = dataclasses.replace(remembered.choice, why=layout.choice.why)
    assert dataclasses.replace(remembered, choice=choice) == layout
    layouts_of(Sweep(TINY, seeds=5), 2, other)  # another number of runs that could be vectorised together
    assert len(other) == 1
    (tmp_path / "fishnet" / "measured" / "tuned.json").write_text("{damaged")
    layouts_of(Sweep(TINY, seeds=6), 2, other)
    assert len(other) == 2


def test_tuning_ends_in_time(costs, monkeypatch):
    table, made = costs
    table |= {(1, 2): 1.0, (4, 2): 1.0, (1, 1): 1.0, (4, 1): 1.0}
    clock = itertools.count(0, 20)
    monkeypatch.setattr(tune.time, "monotonic", lambda: next(clock))
    (layout,) = layouts_of(Sweep(TINY, seeds=6), 2, [])
    assert 1 < len(made) < 4
    assert layout.choice.why.endswith("more left out)")
