"""How long a sweep will take: from how fast its programs ran before, or from what their operations cost.

A program that has been run on this machine before, in whichever sweep, takes what it took then. Of others the traced
equations are counted (`cost.py`) and priced with `PRICES`, as fitted by `python -m benchmarks.plan_time --fit`; how
much slower this machine is than the one of the prices is taken from the programs that it has run, and before the first
of them from a yardstick: a matrix product and a pass over memory. On CPU the yardstick is timed at every plan and at
the end of every program, as machines that are shared are at times half as fast as at others: what was measured then is
scaled by how fast the machine is now. An estimate informs and decides nothing: one that fails is unknown.
"""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from fishnet.host.best_effort import best_effort
from fishnet.sweep.plan.cache import SPEEDS, program_key, setting_key
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.cost import PARTS, choices_of, count, equations
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.program import chunks_of
from fishnet.sweep.program.state import DeviceData
from fishnet.sweep.run.evaluation import evaluation_chunk

# Seconds an operation, by kind of device and whether it is one of several side by side; in the order of `PARTS`.
PRICES: dict[str, dict[str, list[float]]] = {
    "cpu": {
        "alone": [8.4e-12, 3.9e-10, 2.4e-11, 4.6e-10, 5.0e-11, 1.5e-9, 1.0e-7, 1.8e-11],
        "beside": [1.5e-11, 8.5e-10, 1.0e-11, 2.0e-10, 1.6e-10, 1.4e-9, 2.0e-8, 1.0e-11],
    },
    # Guesses, from data sheets: no accelerator has been measured.
    "gpu": {"alone": [1.0e-13, 2.0e-12, 2.0e-12, 2.0e-12, 4.0e-12, 4.0e-12, 3.0e-6, 0.0]},
    "tpu": {"alone": [5.0e-14, 2.0e-12, 2.0e-12, 2.0e-12, 4.0e-12, 4.0e-12, 3.0e-6, 0.0]},
}
# What takes time beside the programs, in seconds of a CPU.
FIXED = {
    "starting": 0.5,  # a cohort: its devices, its checkpoints, its first and last tables
    "equation": 1.7e-3,  # to compile one
    "kept": 6.0e-4,  # to find it among the kept programs
    "score": 4.0e-8,  # a logit, of which the figures of an epoch are made
    "row": 2.0e-6,  # of a table
}
YARDSTICK = 9.5e-4  # seconds of `yardstick` on the machine of the prices
WARMING, CALLS = 30, 70  # of the yardstick; the first ones take half as long again, while XLA's threads wake up
SLOWER = 4.0  # times; by more a machine has not become another one, but the yardstick has met something
SCALES = 9  # of the latest programs, of which the median says how fast this machine is


@dataclasses.dataclass(frozen=True)
class Work:
    """What the programs of a cohort have to do, and how often."""

    step: np.ndarray  # [part], of a group of lanes in a step of training
    visit: np.ndarray  # [part], of a group in each call, beside its steps
    chunk: np.ndarray  # [part], of a group in a step of evaluation
    equations: int  # to compile
    steps: float  # of the device that has most, over all epochs
    visits: float
    chunks: float
    pretraining: float  # steps, whose cost is taken to be that of a step of training
    probing: float  # by the probes of epochs, in steps of evaluation that cost as much


def with_estimates(
    cohorts: Sequence[Cohort], devices: Sequence[jax.Device], note: Callable[[str], None]
) -> list[Cohort]:
    """The cohorts, each with an estimate of its seconds where it can be made.

    Args:
        cohorts: as laid out.
        devices: there are.
        note: told in one sentence what could not be estimated and why.

    Raises:
        Exception: a program cannot be traced, and so not be trained: whatever its functions raise.
    """
    for cohort in cohorts:
        traces_of(cohort)
    reasons: dict[str, None] = {}
    now = best_effort("the speed of this machine", lambda: yardstick(devices[0]), reasons.setdefault, 0.0)
    found = [
        best_effort("the time to train", partial(estimated, cohort, devices, now), reasons.setdefault, cohort)
        for cohort in cohorts
    ]
    for reason in reasons:
        note(reason)
    return found


def traces_of(cohort: Cohort) -> dict[str, ClosedJaxpr]:
    """Equations of the programs "train", "evaluate" and, with probes of epochs, "probe".

    They are kept for whoever asks again, and for whoever compiles them.
    """
    shape, task, lanes = cohort.shape, cohort.task, cohort.lanes_per_device

    def like(leaf: Any, *lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *np.shape(leaf)[len(lead) :]), leaf.dtype)

    def whole(*lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(lead, jnp.int32)

    knobs = jax.tree.map(lambda leaf: like(leaf, lanes), cohort.knobs)
    train = np.asarray(task.splits["train"], np.int32)
    pixels = jax.tree.map(like, DeviceData(task.images, np.asarray(task.labels), train, task.mean, task.std))
    state = cohort.functions.init.eval_shape(knobs, pixels)
    groups, two = whole(lanes, shape.lane_width), whole(2)
    rates = jax.ShapeDtypeStruct((lanes,), jnp.float32)
    chunk, variables = evaluation_chunk(cohort), (state.params, state.statistics)
    positions = whole(chunks_of(task, chunk), chunk)
    functions = cohort.functions
    traced = {
        "train": functions.train.trace(knobs, state, rates, pixels, groups, two, two),
        "evaluate": functions.evaluate.trace(knobs, *variables, pixels, groups, two, positions, whole()),
    }
    if shape.probes("epoch"):
        positions = whole(shape.probe_batches, shape.recipe.batch_size)
        traced["probe"] = functions.probe.trace(knobs, *variables, state.lr, pixels, groups, two, positions, whole())
    return {name: program.jaxpr for name, program in traced.items()}


def work_of(cohort: Cohort) -> Work:
    """Counts what training and evaluation of a cohort cost."""
    shape, task, programs, chunk = cohort.shape, cohort.task, traces_of(cohort), evaluation_chunk(cohort)
    choices = choices_of(cohort.knobs)
    # Which a step calls now and then, and a run once.
    rare = {"probe_step": shape.measurements / shape.steps_per_epoch, "probe_failure": 0.0}
    (of_group,) = count(programs["train"], choices, rare).loops
    (of_evaluation,) = count(programs["evaluate"], choices).loops
    # The loop over the steps, and that over the chunks, are what the loop over the groups has inside.
    step = max(of_group.loops, key=lambda loop: loop.whole.sum()).whole
    validated, tested = (-(-len(task.splits[split]) // chunk) for split in ("val", "test"))
    epochs = Counter(run.recipe.epochs for run in cohort.runs)
    counts = Layout(cohort).groups(range(len(cohort.runs)))[1].max()
    # Runs that end earlier leave their share of the groups out.
    visits = counts * sum(number * many for number, many in epochs.items()) / len(cohort.runs)
    pretrained = sum(run.recipe.pretrain_epochs for run in cohort.runs if run.recipe.pretrain != "none")
    probes = shape.probes("epoch").values()
    passes = sum(probe.passes * shape.probe_batches + probe.fixed for probe in probes) * shape.recipe.batch_size / chunk
    return Work(
        step=step,
        visit=of_group.whole - step,
        chunk=max(of_evaluation.loops, key=lambda loop: loop.whole.sum()).whole,
        equations=sum(1 for program in programs.values() for _ in equations(program)),
        steps=visits * shape.steps_per_epoch,
        visits=visits,
        chunks=visits * validated + counts * (validated + tested),
        pretraining=counts * pretrained / len(cohort.runs) * shape.steps_per_epoch,
        probing=visits / shape.recipe.probe_epochs * passes,
    )


def estimated(cohort: Cohort, devices: Sequence[jax.Device], now: float) -> Cohort:
    """The cohort with an estimate of the seconds that it takes, by what takes them, and where it comes from.

    Args:
        cohort: as laid out.
        devices: there are.
        now: seconds of the yardstick, just measured.

    Raises:
        ValueError: what was remembered or counted gives no seconds.
    """
    platform = devices[0].platform
    known = SPEEDS.find(pace_key(cohort, devices))
    work = work_of(cohort)
    if known:
        slower = since(known, now)
        step, visit, chunk = slower * known["step"], 0.0, slower * known["chunk"]
        source = f"as measured on {known['date'][:10]}"
        if abs(slower - 1) >= 0.1:
            word = "fast" if slower > 1 else "slow"
            source += f", when this machine was {max(slower, 1 / slower):.1f} times as {word}"
    else:
        price = prices(platform, cohort.devices) * scale_of(devices, cohort.devices, now)
        step, visit, chunk = (float(price @ costs) for costs in (work.step, work.visit, work.chunk))
        source = "from the operations of the programs"
    kept = known is not None and bool(jax.config.jax_compilation_cache_dir)
    runs, images = len(cohort.runs), sum(len(cohort.task.splits[split]) for split in ("val", "test"))
    run_epochs = sum(run.recipe.epochs for run in cohort.runs)
    scores = len(cohort.task.classes) * (run_epochs * len(cohort.task.splits["val"]) + runs * images)
    seconds = {
        "compiling": work.equations * FIXED["kept" if kept else "equation"],
        "training": work.steps * step + work.visits * visit,
        "evaluating": work.chunks * chunk + scores * FIXED["score"],
        "saving": FIXED["starting"] + run_epochs * (1 + len(cohort.task.classes)) * FIXED["row"],
    }
    if work.probing:
        seconds["probing"] = work.probing * chunk
    if work.pretraining:
        seconds["pretraining"] = work.pretraining * step + len(cohort.objectives) * seconds["compiling"]
    if not all(0 <= value < math.inf for value in seconds.values()):
        raise ValueError(f"{seconds} are no seconds")
    return dataclasses.replace(cohort, estimate=seconds, estimated_from=source, yardstick=now)


def prices(platform: str, devices: int) -> np.ndarray:
    """Seconds an operation on one of a number of devices side by side, [part]."""
    table = PRICES.get(platform, PRICES["gpu"])
    return np.array(table["beside" if devices > 1 and "beside" in table else "alone"])


def pace_key(cohort: Cohort, devices: Sequence[jax.Device]) -> str:
    """Where the pace of a cohort's program is remembered."""
    return program_key(cohort.shape, cohort.made_of, devices, cohort.devices, len(cohort.task.splits["val"]))


def remember(
    cohort: Cohort, devices: Sequence[jax.Device], spent: Mapping[str, float], made: Mapping[str, float]
) -> None:
    """Keeps how fast the programs of a cohort ran.

    Args:
        cohort: that has been trained.
        devices: there are.
        spent: seconds by what took them: "training", "evaluating" and what else is known.
        made: "steps" of training and "chunks" of evaluation, of one group on the device that had most.
    """
    if not (made.get("steps") and made.get("chunks")):
        return
    work = work_of(cohort)
    step, chunk = spent["training"] / made["steps"], spent["evaluating"] / made["chunks"]
    SPEEDS.keep(
        pace_key(cohort, devices),
        {
            "step": step,
            "chunk": chunk,
            "scale": step / float(prices(devices[0].platform, cohort.devices) @ work.step),
            "beside": cohort.devices > 1,
            "yardstick": float(np.mean([s for s in (cohort.yardstick, yardstick(devices[0])) if s] or 0.0)),
            "spent": {what: round(seconds, 3) for what, seconds in spent.items()},
            "made": dict(made),
            "counted": {
                "step": dict(zip(PARTS, work.step.tolist(), strict=True)),
                "chunk": dict(zip(PARTS, work.chunk.tolist(), strict=True)),
                "equations": work.equations,
            },
        },
    )


def since(known: Mapping[str, Any], now: float) -> float:
    """How many times slower the machine is now than when something was measured.

    Args:
        known: what was remembered.
        now: seconds of the yardstick.
    """
    then = known["yardstick"]
    return min(max(now / then, 1 / SLOWER), SLOWER) if then > 0 and now > 0 else 1.0


def scale_of(devices: Sequence[jax.Device], side_by_side: int, now: float) -> float:
    """How many times slower than `PRICES` this machine is; `now` as for `since`."""
    setting = setting_key(devices)
    mine = [entry for key, entry in SPEEDS.entries().items() if key.startswith(setting)]
    scales = [
        entry["scale"] * since(entry, now)
        for entry in mine
        if entry["beside"] == (side_by_side > 1) and entry["scale"] > 0
    ]
    if scales:
        return float(np.median(scales[-SCALES:]))
    return now / YARDSTICK if now else 1.0


def yardstick(device: jax.Device) -> float:
    """Seconds of a small matrix product and a pass over 4 MiB on CPU, measured for about 0.1 s; 0 on accelerators.

    The median, as what else the machine does is part of how fast it is.
    """
    if device.platform != "cpu":
        return 0.0
    with jax.default_device(device):
        matrix, values = jnp.ones((384, 384), jnp.float32), jnp.ones((2**20,), jnp.float32)
        jax.block_until_ready(_yard(matrix, values))
        taken = []
        for _ in range(WARMING + CALLS):
            began = time.perf_counter()
            jax.block_until_ready(_yard(matrix, values))
            taken.append(time.perf_counter() - began)
    return float(np.median(taken[WARMING:]))


@jax.jit
def _yard(matrix: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    return matrix @ matrix, jnp.maximum(values * 1.5, 0.5) + values
