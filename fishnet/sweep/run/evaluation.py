"""Evaluates runs of a cohort on the host's side: calls of the compiled program, and their logits in order."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.program import CompiledCalls, Program
from fishnet.sweep.run.call_pacer import CallPacer


def logits_of(
    layout: Layout,
    program: Program,
    evaluate: CompiledCalls,
    variables: Sequence[tuple[Any, Any]],
    positions: np.ndarray,
    runs: np.ndarray,
    pace: CallPacer,
    between: Callable[[], None],
) -> np.ndarray:
    """Logits of some runs on some images.

    Args:
        layout: of the cohort's lanes.
        program: of the cohort.
        evaluate: its compiled evaluation.
        variables: parameters and running statistics of all lanes, a pair a device.
        positions: of the images in the task, [image].
        runs: which, [run].
        pace: of this program; takes in how long the calls took.
        between: called after every call.

    Returns:
        [run, image, class] float32, in the order of `runs` and `positions`.
    """
    # Mixed, and filled up with images of the split: a chunk's own statistics are then like those of the split.
    mixed = np.random.default_rng(0).permutation(len(positions))
    unmixed = np.argsort(mixed)
    padded = np.resize(positions[mixed], (program.chunks, program.chunk)).astype(np.int32)
    chunks = -(-len(positions) // program.chunk)
    groups, counts = layout.groups(list(runs))
    cohort = layout.cohort
    result = np.empty((len(cohort.runs), len(positions), len(cohort.task.classes)), np.float32)
    for window in pace.windows(counts, chunks, most=program.capacity):
        began = time.perf_counter()
        arguments = {
            device: (
                program.traced[device],
                *variables[device],
                program.data[device],
                groups[device],
                window[device],
                padded,
                np.int32(chunks),
            )
            for device in np.flatnonzero(window[:, 1] > window[:, 0])
        }
        logits = {device: np.asarray(value) for device, value in evaluate(arguments).items()}
        pace.measured(window, chunks, time.perf_counter() - began)
        for device, values in logits.items():
            first, last = window[device]
            of_group = layout.runs_at(device, groups[device, first:last])  # [group, width]
            flat = values[: last - first].reshape(*of_group.shape, -1, values.shape[-1])
            result[of_group[of_group >= 0]] = flat[of_group >= 0][:, unmixed]
        between()
    return result[runs]
