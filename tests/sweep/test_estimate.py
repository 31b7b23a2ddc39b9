"""What a plan says of the time that a sweep will take: what is counted, what is remembered, what is told."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.data import load_task
from fishnet.sweep import Sweep, cohort, estimate, run_sweep
from fishnet.sweep.cost import PARTS, choices_of, count, equations
from fishnet.sweep.estimate import estimated, pace_key, work_of
from fishnet.sweep.folder import read_sweep_file
from fishnet.sweep.plan import make_cohorts
from fishnet.sweep.remembered import PACES, Remembered
from fishnet.sweep.validate import resolve
from tests.sweep.conftest import TINY


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
    work, entry = work_of(plan), PACES.find(pace_key(plan, jax.devices()[:2]))
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
        entry = {"scale": 3.0, "beside": False, "yardstick": estimate.YARDSTICK}
        PACES.keep(f"{estimate.setting_key(devices)}-{number}", entry)
    assert training(estimate.YARDSTICK) == pytest.approx(3 * usual)
    assert training(2 * estimate.YARDSTICK) == pytest.approx(6 * usual)


def test_a_damaged_memory_is_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = Remembered("some.json")
    memory.keep("a", {"x": 1})
    memory.keep("b", {"x": 2})
    assert memory.find("a")["x"] == 1
    path = tmp_path / "fishnet" / "measured" / "some.json"
    for damage in (path.read_text()[:-9], "[]", '{"a": 3}', ""):
        path.write_text(damage)
        assert memory.find("a") is None
    memory.keep("a", {"x": 3})
    assert memory.find("a")["x"] == 3
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    memory.keep("a", {"x": 4})
    assert memory.find("a") is None
