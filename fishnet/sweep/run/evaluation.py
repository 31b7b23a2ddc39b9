"""Evaluates and probes runs of a cohort on the host's side: calls of the compiled program, results in run order."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.program.program import CompiledProgram
from fishnet.sweep.run.call_pacer import CallPacer


def call_groups(
    layout: Layout,
    runs: np.ndarray,
    pacer: CallPacer,
    steps: int,
    call: Callable[[GroupWindow], dict[int, Any]],
    between: Callable[[], None],
    most: int | None = None,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Calls a program on the lane groups of some runs.

    Args:
        layout: of the cohort's lanes.
        runs: which, [run].
        pacer: of this program; takes in how long the calls took.
        steps: of each group in a call.
        call: gives the results of each device, leaves [group, width, ...].
        between: called after every call.
        most: groups of a device in one call.

    Yields:
        Runs, [n], and their results, leaves [n, ...].
    """
    groups, counts = layout.groups(list(runs))
    for window in pacer.windows(counts, steps, most):
        began = time.perf_counter()
        found = call(GroupWindow(groups, window))
        pacer.measured(window, steps, time.perf_counter() - began)
        for device, results in found.items():
            members = layout.runs_at(device, groups[device, slice(*window[device])])  # [group, width]
            yield members[members >= 0], jax.tree.map(lambda leaf, real=members >= 0: leaf[real], results)
        between()


def evaluate_runs(
    layout: Layout,
    program: CompiledProgram,
    variables: list[tuple[Any, Any]],
    positions: np.ndarray,
    runs: np.ndarray,
    pacer: CallPacer,
    between: Callable[[], None],
) -> np.ndarray:
    """Logits of some runs on some images.

    Args:
        layout: of the cohort's lanes.
        program: of the cohort.
        variables: parameters and running statistics of all lanes, a pair a device.
        positions: of the images in the task, [image].
        runs: which, [run].
        pacer: of evaluations.
        between: called after every call.

    Returns:
        [run, image, class] float32, in the order of `runs` and `positions`.
    """
    # Shuffled, and filled up with images of the split: a chunk's own statistics are then like those of the split.
    shuffled = np.random.default_rng(0).permutation(len(positions))
    unshuffled = np.argsort(shuffled)
    padded = np.resize(positions[shuffled], (program.chunks, program.chunk)).astype(np.int32)
    chunks = -(-len(positions) // program.chunk)
    classes = program.config.classes
    result = np.empty((len(layout.cohort.runs), len(positions), classes), np.float32)

    def call(work: GroupWindow) -> dict[int, np.ndarray]:
        return program.evaluate(variables, work, padded, chunks)

    for members, logits in call_groups(layout, runs, pacer, chunks, call, between, most=program.capacity):
        result[members] = logits.reshape(len(members), -1, classes)[:, unshuffled]
    return result[runs]


def probe_runs(
    layout: Layout,
    program: CompiledProgram,
    states: list[Any],
    runs: np.ndarray,
    steps: int,
    pacer: CallPacer,
    between: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Measures of the epoch probes of some runs.

    Args:
        layout: of the cohort's lanes.
        program: of the cohort.
        states: of each device.
        runs: which, [run].
        steps: that they have made.
        pacer: of the probes.
        between: called after every call.

    Returns:
        [run, ...] float32 each, in the order of `runs`.
    """
    positions = probe_positions(layout.cohort)
    found: dict[str, np.ndarray] = {}

    def call(work: GroupWindow) -> dict[int, dict[str, np.ndarray]]:
        return program.probe(states, work, positions, steps)

    for members, measures in call_groups(layout, runs, pacer, len(positions), call, between):
        for name, values in measures.items():
            rows = found.setdefault(name, np.empty((len(layout.cohort.runs), *values.shape[1:]), np.float32))
            rows[members] = values
    return {name: rows[runs] for name, rows in found.items()}


def probe_positions(cohort: Cohort) -> np.ndarray:
    """Training images that the epoch probes look at, [batch, image] int32: the same in every epoch and run.

    They are in an order that mixes classes and does not depend on the runs.
    """
    config = cohort.config
    shuffled = np.random.default_rng(0).permutation(cohort.task.splits["train"])
    size = config.batch_size
    return shuffled[: config.probe_batches * size].reshape(-1, size).astype(np.int32)
