"""What a plan says of the time that a sweep will take: what is counted, what is remembered, what is told."""

import dataclasses
import json
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.data import load_task
from fishnet.host import best_effort
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.distributed.dealing import deal
from fishnet.sweep.plan import estimate
from fishnet.sweep.plan import fit_memory as fitting
from fishnet.sweep.plan.cache import SPEEDS, Remembered
from fishnet.sweep.plan.cohorts import make_cohorts
from fishnet.sweep.plan.cost import PARTS, choices_of, count, equations
from fishnet.sweep.plan.estimate import estimated, pace_key, work_of
from fishnet.sweep.program import program
from fishnet.sweep.run import cohort, training
from fishnet.sweep.run.progress import Display
from fishnet.sweep.spec.text import plan_rows
from fishnet.sweep.spec.validation import resolve
from fishnet.sweep.store.folder import read_sweep_file
from tests.sweep.conftest import TINY, assert_same_run


class Notes(Display):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.lines, self.view = [], {}

    def note(self, text: str) -> None:
        self.lines.append(text)

    def plan(self, view) -> None:
        self.lines += view["notes"]
        self.view = view


def parts(costs: np.ndarray) -> dict[str, float]:
    return {name: value for name, value in zip(PARTS, costs, strict=True) if value}


def planned(sweep: Sweep, devices: int = 1):
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    (cohort,) = make_cohorts(runs, {("synthetic", 8): load_task("synthetic", 8)}, 1, None, jax.devices()[:devices])
    return cohort


def test_products_passes_and_functions_are_counted():
    def f(x, w):
        return jnp.exp(x @ w).sum()

    counted = count(jax.make_jaxpr(f)(jnp.ones((3, 5)), jnp.ones((5, 7))), {})
    assert parts(counted.own) == {
        "multiplications": 3 * 5 * 7,
        "operands": 3 * 5 + 5 * 7 + 3 * 7,
        "functions": 21,
        "passes": 21,
        "operations": 3,
    }


def test_loops_of_a_known_length_count_so_often_and_others_once():
    def f(x, n):
        x = lax.fori_loop(0, 10, lambda i, x: jnp.tanh(x), x)
        return lax.fori_loop(0, n, lambda i, x: jnp.exp(x), x)

    counted = count(jax.make_jaxpr(f)(jnp.ones(4), jnp.int32(3)), {})
    assert parts(counted.own)["functions"] == 10 * 4
    assert [parts(loop.own)["functions"] for loop in counted.loops] == [4]


def test_a_choice_counts_for_the_lanes_that_take_it_and_another_at_its_dearest():
    def f(kinds, lane, other, x):
        kind = lax.dynamic_slice(kinds, (lane,), (1,))[0]
        x = lax.switch(kind, [lambda x: x, jnp.exp, lambda x: jnp.tanh(jnp.exp(x))], x)
        return lax.cond(other, jnp.sqrt, lambda x: x, x)

    kinds = np.array([0, 1, 2, 2], np.int32)
    program = jax.make_jaxpr(f)(jnp.asarray(kinds), jnp.int32(0), True, jnp.ones(8))
    average = (0 + 1 + 2 + 2) / 4
    assert parts(count(program, choices_of(kinds)).own)["functions"] == 8 * (average + 1)
    assert parts(count(program, {}).own)["functions"] == 8 * (2 + 1)
    assert sum(1 for _ in equations(program)) >= 5


def test_a_step_of_training_has_the_products_of_its_layers_forward_and_back():
    work = work_of(planned(Sweep(TINY, seeds=2)))
    batch, inputs, hidden, classes = TINY.batch_size, 8 * 8 * 3, 8, 4
    forward = batch * (inputs * hidden + hidden * classes)
    # The first layer passes no gradient on to its inputs. The figures of each class take a few products more.
    back = batch * (inputs * hidden + 2 * hidden * classes)
    assert forward + back <= work.step[0] <= 1.25 * (forward + back)
    assert forward / batch * 256 <= work.chunk[0] <= 1.25 * forward / batch * 256
    assert work.steps == 2 * TINY.epochs * 8


def test_the_dearer_activation_makes_a_dearer_step():
    cheap, dear = (work_of(planned(Sweep(dataclasses.replace(TINY, activation=a), seeds=1))) for a in ("relu", "gelu"))
    assert dear.step[PARTS.index("functions")] > cheap.step[PARTS.index("functions")]


def test_what_a_sweep_planned_to_do_is_what_it_did_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = {}
    monkeypatch.setattr(
        cohort.CohortRunner, "made", property(lambda self, real=cohort.CohortRunner.made.fget: made | real(self))
    )
    sweep = Sweep(TINY, seeds=4)
    run_sweep(sweep, tmp_path / "first", lane_width=1, devices=2)
    plan = planned(sweep, 2)
    work, entry = work_of(plan), SPEEDS.find(pace_key(plan, jax.devices()[:2]))
    assert (work.steps, work.chunks) == (entry["made"]["steps"], entry["made"]["chunks"])
    (before,) = read_sweep_file(tmp_path / "first")["plan"]
    assert before["estimated_from"] == "from the operations of the programs"
    # The same program at another learning rate, for longer.
    longer = Sweep(dataclasses.replace(TINY, lr=0.01, epochs=5), seeds=4)
    told = estimated(planned(longer, 2), jax.devices()[:2], entry["yardstick"])
    assert told.estimated_from.startswith("as measured on 20")
    steps = 5 * 8 * 2  # of each of the two devices
    assert told.estimate["training"] == pytest.approx(steps * entry["step"])
    slower = estimated(planned(longer, 2), jax.devices()[:2], 1.5 * entry["yardstick"])
    assert slower.estimate["training"] == pytest.approx(1.5 * told.estimate["training"])
    assert slower.estimated_from.endswith("when this machine was 1.5 times as fast")
    lost = estimated(planned(longer, 2), jax.devices()[:2], 100 * entry["yardstick"])
    assert lost.estimate["training"] == pytest.approx(estimate.SLOWER * told.estimate["training"])
    assert entry["step"] * entry["made"]["steps"] == pytest.approx(entry["spent"]["training"], abs=1e-3)


def test_other_programs_of_a_slower_machine_are_told_to_be_slower(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    devices, plan = jax.devices()[:1], planned(Sweep(TINY, seeds=2))

    def training(yardstick: float) -> float:
        return estimated(plan, devices, yardstick).estimate["training"]

    usual = training(estimate.YARDSTICK)
    assert training(2 * estimate.YARDSTICK) == pytest.approx(2 * usual)
    assert training(0.0) == pytest.approx(usual)  # an accelerator, of which nothing is known
    for number in range(3):
        entry = {"step": 1.0, "chunk": 1.0, "scale": 3.0, "beside": False, "yardstick": estimate.YARDSTICK}
        SPEEDS.keep(f"{estimate.setting_key(devices)}-{number}", entry)
    assert training(estimate.YARDSTICK) == pytest.approx(3 * usual)
    assert training(2 * estimate.YARDSTICK) == pytest.approx(6 * usual)


def test_an_equation_without_outputs_costs_nothing_and_its_neighbours_count():
    def f(kinds, x):
        jax.debug.callback(lambda kinds: None, kinds)  # has no outputs, and a lane's choice goes in
        empty = jnp.unstack(jnp.ones((0, 3)))  # an equation of its own in newer versions of JAX
        return lax.switch(kinds[0], [lambda x: x, jnp.exp], x), empty

    kinds = np.array([1, 1], np.int32)
    program = jax.make_jaxpr(f)(jnp.asarray(kinds), jnp.ones((5, 7)))
    assert any(not equation.outvars for equation in equations(program))
    assert parts(count(program, choices_of(kinds)).own)["functions"] == 5 * 7


@pytest.fixture
def as_for_a_user(monkeypatch):
    """A failed estimate is a note."""
    monkeypatch.setattr(best_effort, "RAISE", False)


def broken(*_, **__):
    raise IndexError("list index out of range\n  somewhere")


@pytest.mark.parametrize(
    ("module", "name", "unknown"),
    [
        (estimate, "work_of", True),
        (estimate, "count", True),
        (estimate, "scale_of", True),
        (estimate, "pace_key", True),
        (estimate, "yardstick", False),  # then this machine counts as the one of the prices
        (fitting, "outputs_of", False),
        (program, "check_memory", False),
        (program, "available_bytes", False),
        (training, "remember", False),
    ],
)
def test_a_failed_estimate_is_named_and_the_sweep_trains(
    tiny, tmp_path, monkeypatch, as_for_a_user, module, name, unknown
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a pace that is known is not estimated
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
    (plan,) = read_sweep_file(result.out)["plan"]
    assert (plan["estimated_seconds"] is None) == unknown
    rows = dict(plan_rows(display.view))
    assert (rows["estimate"] == "unknown") == unknown
    finished = run_sweep(tiny[0], tmp_path / "out", devices=1)
    assert finished.finished


@pytest.mark.parametrize("price", [np.nan, np.inf, -1.0])
def test_an_estimate_that_is_no_time_is_unknown(tiny, tmp_path, monkeypatch, as_for_a_user, price):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a pace that is known needs no prices
    monkeypatch.setattr(estimate, "prices", lambda *_: np.full(len(PARTS), price))
    display = Notes()
    run_sweep(tiny[0], tmp_path / "out", devices=1, display=display)
    assert dict(plan_rows(display.view))["estimate"] == "unknown"


def test_processes_share_runs_by_their_steps_where_the_time_is_unknown():
    task = load_task("synthetic", 8)
    sweep = Sweep(TINY, axes={"batch_size": [16, 64], "epochs": [1, 2]}, seeds=2)  # 16 and 4 steps an epoch
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    cohorts = make_cohorts(runs, {("synthetic", 8): task}, 1, None, jax.devices()[:1])
    assert all(cohort.estimated_seconds is None for cohort in cohorts)
    steps = {run.index: run.recipe.epochs * (256 // run.recipe.batch_size) for run in runs}
    dealt = deal(cohorts, 2, whole_arms=False)
    for process in range(2):
        assert sum(steps[run] for shares in dealt for run in shares[process]) == (16 + 4) * (1 + 2)


def test_a_program_that_cannot_be_traced_is_refused_before_anything_is_written(tmp_path, monkeypatch, as_for_a_user):
    def wrong(progress):
        raise TypeError("the caller's own mistake")

    monkeypatch.setitem(SCHEDULES, "wrong", wrong)
    with pytest.raises(TypeError, match="the caller's own mistake"):
        run_sweep(Sweep(dataclasses.replace(TINY, schedule="wrong"), seeds=1), tmp_path / "out", devices=1)
    assert not (tmp_path / "out" / "sweep.json").exists()


def test_a_damaged_memory_is_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = Remembered("some.json", {"x": float})
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
