"""`--lane-width auto`: times a few steps of each layout on this machine and takes the fastest. Serial is among them."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fishnet.data import Task
from fishnet.nn.lowerings import LOWERINGS
from fishnet.sweep.compiling import compiler_options
from fishnet.sweep.evaluation import evaluation_chunk
from fishnet.sweep.grid import Run
from fishnet.sweep.grouping import form_groups, group_runs, kinds_of
from fishnet.sweep.plan import Cohort, make_cohorts
from fishnet.sweep.program import Program

WIDTHS = (1, 4, 16)
STEPS = 4


def fastest_layouts(
    runs: Sequence[Run],
    tasks: Mapping[tuple[str, int], Task],
    lowering: str | None,
    devices: Sequence[jax.Device],
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The lane width and lowering that trained fastest, for each cohort.

    Args:
        runs: with resolved recipes.
        tasks: by (task, image size).
        lowering: the only one to try; None: all of them.
        devices: timed on the first.
        note: told each choice in a line.

    Returns:
        For each cohort, in the plan's order: `lane_width`, `lowering`, and `timings`, milliseconds a step and run of
        every candidate.
    """
    layouts = []
    # With which weights it begins does not change how long a step takes.
    runs = [dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, trunk="none")) for run in runs]
    for members in group_runs(runs).values():
        same = _alike(members, make_cohorts(members, tasks, 1, lowering, devices[:1])[0])
        widths = [width for width in WIDTHS if width <= len(same)] or [1]
        flat = members[0].recipe.model == "mlp"
        lowerings = [lowering] if lowering else ["gemm"] if flat else list(LOWERINGS)
        timings = {
            (width, name): _milliseconds(same[:width], tasks, width, name, devices)
            for width in widths
            for name in lowerings
        }
        width, name = min(timings, key=timings.__getitem__)
        note(f"timed {len(timings)} layouts: lane width {width}, {name}, {timings[width, name]:.2f} ms a step and run")
        written = {f"width {w}, {n}": round(ms, 3) for (w, n), ms in timings.items()}
        layouts.append({"runs": len(members), "lane_width": width, "lowering": name, "timings": written})
    return layouts


def _alike(runs: Sequence[Run], cohort: Cohort) -> list[Run]:
    """The most numerous runs of a cohort that could be vectorised together."""
    kinds = [kinds_of(cohort.knobs, run) for run in range(len(runs))]
    return [runs[i] for i in max(form_groups(range(len(runs)), kinds, len(runs)), key=len)]


def _milliseconds(
    runs: Sequence[Run], tasks: Mapping[tuple[str, int], Task], width: int, lowering: str, devices: Sequence[jax.Device]
) -> float:
    """Milliseconds a step and run of one full group."""
    cohort = make_cohorts(runs, tasks, width, lowering, devices[:1])[0]
    device = devices[0]
    program = Program(cohort.shape, cohort.padded_knobs(), cohort.task, [device], evaluation_chunk(cohort))
    options = compiler_options(device.platform)
    lanes = program.lower("init", 0).compile(compiler_options=options)(program.knobs[0], program.pixels[0])
    train = program.lower("train", 0).compile(compiler_options=options)
    groups = np.full((program.lanes, width), program.lanes, np.int32)
    groups[0, : len(runs)] = cohort.position
    stop = min(STEPS, cohort.shape.steps_per_epoch)
    took, rates = [], np.ones(program.lanes, np.float32)
    for _ in range(3):  # the first is a warm-up
        began = time.perf_counter()
        window, steps = np.array([0, 1], np.int32), np.array([0, stop], np.int32)
        lanes = jax.block_until_ready(train(program.knobs[0], lanes, rates, program.pixels[0], groups, window, steps))
        took.append(time.perf_counter() - began)
    return min(took[1:]) / (stop * len(runs)) * 1e3
