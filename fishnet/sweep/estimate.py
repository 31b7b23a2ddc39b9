"""How long a sweep will take: from how fast its programs ran before, or from what their operations cost.

A program that has been run on this machine before, in whichever sweep, takes what it took then. Of others the traced
equations are counted (`cost.py`) and priced with `PRICES`, which `python -m benchmarks.plan_time --fit` measures; how
much faster or slower this machine is than the one of the prices is taken from the programs that it has run, and before
the first of them from a timing of two operations.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.sweep.cost import PARTS, choices_of, count, equations
from fishnet.sweep.evaluation import evaluation_chunk
from fishnet.sweep.layout import Layout
from fishnet.sweep.plan import Cohort
from fishnet.sweep.program import chunks_of
from fishnet.sweep.remembered import PACES, program_key, setting_key
from fishnet.sweep.state import Pixels

# Seconds an operation, by kind of device and whether it is one of several side by side; in the order of `PARTS`.
PRICES: dict[str, dict[str, list[float]]] = {
    "cpu": {
        "alone": [1.0e-11, 2.0e-10, 1.5e-10, 2.0e-9, 4.0e-10, 3.0e-9, 5.0e-7],
        "beside": [1.7e-11, 3.0e-10, 2.5e-10, 3.5e-9, 6.0e-10, 5.0e-9, 5.0e-7],
    },
    # Guesses, from data sheets: no accelerator has been measured.
    "gpu": {"alone": [1.0e-13, 2.0e-12, 2.0e-12, 2.0e-12, 4.0e-12, 4.0e-12, 3.0e-6]},
    "tpu": {"alone": [5.0e-14, 2.0e-12, 2.0e-12, 2.0e-12, 4.0e-12, 4.0e-12, 3.0e-6]},
}
# What takes time beside the programs, on CPU, in seconds.
FIXED = {
    "starting": 1.5,  # a cohort: devices, checkpoints, the first tables
    "equation": 3.5e-3,  # to trace and compile one, and to read it from the kept programs
    "kept": 1.0e-3,
    "score": 4.0e-8,  # a logit, of which the figures of an epoch are made
    "saved": 1.0e-8,  # a byte of a checkpoint
    "row": 2.0e-6,  # of a table, each time it is written
}
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


def work_of(cohort: Cohort) -> Work:
    """Counts what training and evaluation of a cohort cost; their traces are kept for whoever compiles them."""
    shape, task, lanes = cohort.shape, cohort.task, cohort.lanes_per_device

    def like(leaf: Any, *lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *np.shape(leaf)[len(lead) :]), leaf.dtype)

    def whole(*lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(lead, jnp.int32)

    knobs = jax.tree.map(lambda leaf: like(leaf, lanes), cohort.knobs)
    train = np.asarray(task.splits["train"], np.int32)
    pixels = jax.tree.map(like, Pixels(task.images, np.asarray(task.labels), train, task.mean, task.std))
    state = cohort.functions.init.eval_shape(knobs, pixels)
    groups, two = whole(lanes, shape.lane_width), whole(2)
    rates = jax.ShapeDtypeStruct((lanes,), jnp.float32)
    training = cohort.functions.train.trace(knobs, state, rates, pixels, groups, two, two).jaxpr
    chunk = evaluation_chunk(cohort)
    positions = whole(chunks_of(task, chunk), chunk)
    evaluation = cohort.functions.evaluate.trace(
        knobs, state.params, state.statistics, pixels, groups, two, positions, whole()
    ).jaxpr
    choices = choices_of(cohort.knobs)
    (of_group,) = count(training, choices).loops
    (of_evaluation,) = count(evaluation, choices).loops
    # The loop over the steps, and that over the chunks, are what the loop over the groups has inside.
    step = max(of_group.loops, key=lambda loop: loop.whole.sum()).whole
    validated, tested = (-(-len(task.splits[split]) // chunk) for split in ("val", "test"))
    epochs = Counter(run.recipe.epochs for run in cohort.runs)
    counts = Layout(cohort).groups(range(len(cohort.runs)))[1].max()
    # Runs that end earlier leave their share of the groups out.
    visits = counts * sum(number * many for number, many in epochs.items()) / len(cohort.runs)
    return Work(
        step=step,
        visit=of_group.whole - step,
        chunk=max(of_evaluation.loops, key=lambda loop: loop.whole.sum()).whole,
        equations=sum(1 for _ in equations(training)) + sum(1 for _ in equations(evaluation)),
        steps=visits * shape.steps_per_epoch,
        visits=visits,
        chunks=visits * validated + counts * (validated + tested),
    )


def estimated(cohort: Cohort, devices: Sequence[jax.Device]) -> Cohort:
    """The cohort with an estimate of the seconds that it takes, by what takes them, and where it comes from.

    Args:
        cohort: as laid out.
        devices: there are.
    """
    platform = devices[0].platform
    known = PACES.find(pace_key(cohort, devices))
    work = work_of(cohort)
    if known:
        step, visit, chunk = known["step"], 0.0, known["chunk"]
        source = f"as measured on {known['date'][:10]}"
    else:
        price = prices(platform, cohort.devices) * scale_of(devices, cohort.devices)
        step, visit, chunk = (float(price @ costs) for costs in (work.step, work.visit, work.chunk))
        source = "from the operations of the programs"
    kept = known is not None and bool(jax.config.jax_compilation_cache_dir)
    runs, images = len(cohort.runs), sum(len(cohort.task.splits[split]) for split in ("val", "test"))
    run_epochs = sum(run.recipe.epochs for run in cohort.runs)
    scores = len(cohort.task.classes) * (run_epochs * len(cohort.task.splits["val"]) + runs * images)
    seconds = {
        "compiling": FIXED["starting"] + work.equations * FIXED["kept" if kept else "equation"],
        "training": work.steps * step + work.visits * visit,
        "evaluating": work.chunks * chunk + scores * FIXED["score"],
        "saving": run_epochs * (1 + len(cohort.task.classes)) * FIXED["row"],
    }
    return dataclasses.replace(cohort, estimate=seconds, estimated_from=source)


def prices(platform: str, devices: int) -> np.ndarray:
    """Seconds an operation on one of a number of devices side by side, [part]."""
    table = PRICES.get(platform, PRICES["gpu"])
    return np.array(table["beside" if devices > 1 and "beside" in table else "alone"])


def pace_key(cohort: Cohort, devices: Sequence[jax.Device]) -> str:
    """Where the pace of a cohort's program is remembered."""
    return program_key(cohort.shape, devices, cohort.devices, len(cohort.task.splits["val"]))


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
    PACES.keep(
        pace_key(cohort, devices),
        {
            "step": step,
            "chunk": chunk,
            "scale": step / float(prices(devices[0].platform, cohort.devices) @ work.step),
            "beside": cohort.devices > 1,
            "spent": {what: round(seconds, 3) for what, seconds in spent.items()},
            "made": dict(made),
            "counted": {
                "step": dict(zip(PARTS, work.step.tolist(), strict=True)),
                "chunk": dict(zip(PARTS, work.chunk.tolist(), strict=True)),
                "equations": work.equations,
            },
        },
    )


def scale_of(devices: Sequence[jax.Device], side_by_side: int) -> float:
    """How many times slower than `PRICES` this machine is."""
    setting = setting_key(devices)
    mine = [entry for key, entry in PACES.entries().items() if key.startswith(setting)]
    scales = [entry["scale"] for entry in mine if entry.get("beside") == (side_by_side > 1) and entry.get("scale")]
    return float(np.median(scales[-SCALES:])) if scales else 1.0
