"""Evaluates and probes runs of a phase on the host's side: calls of the compiled program, results in run order."""

from typing import Any

import numpy as np

from fishnet.sweep.program.compile import GroupWindow
from fishnet.sweep.run.phase import Phase


def evaluate_runs(
    phase: Phase, variables: list[tuple[Any, Any]], positions: np.ndarray, runs: np.ndarray
) -> np.ndarray:
    """Logits [run, image, class] float32 of `runs` [run] on the images at `positions` [image] of the task.

    `variables` are the parameters and running statistics of all lanes, a pair a device.
    """
    program, cohort = phase.program, phase.cohort
    # Shuffled, and filled up with images of the split: a chunk's own statistics are then like those of the split.
    shuffled = np.random.default_rng(0).permutation(len(positions))
    unshuffled = np.argsort(shuffled)
    padded = np.resize(positions[shuffled], (program.chunks, program.chunk)).astype(np.int32)
    chunks = -(-len(positions) // program.chunk)
    result = np.empty((len(cohort.runs), len(positions), program.config.classes), np.float32)

    def call(work: GroupWindow) -> dict[int, np.ndarray]:
        return program.evaluate(variables, work, padded, chunks)

    for members, logits in phase.call_groups("evaluating", runs, chunks, call, most=program.capacity):
        result[members] = logits.reshape(len(members), -1, program.config.classes)[:, unshuffled]
    return result[runs]


def probe_runs(phase: Phase, runs: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Measures of the epoch probes of some runs after so many steps, [run, ...] float32 each, in the order of `runs`.

    All epochs and runs are probed with the same training images, in an order that mixes classes.
    """
    config, task = phase.program.config, phase.cohort.task
    shuffled = np.random.default_rng(0).permutation(task.splits["train"])[: config.probe_batches * config.batch_size]
    positions = shuffled.reshape(-1, config.batch_size).astype(np.int32)  # [batch, image]
    found: dict[str, np.ndarray] = {}

    def call(work: GroupWindow) -> dict[int, dict[str, np.ndarray]]:
        return phase.program.probe(phase.states, work, positions, steps)

    for members, measures in phase.call_groups("probing", runs, len(positions), call):
        for name, values in measures.items():
            rows = found.setdefault(name, np.empty((len(phase.cohort.runs), *values.shape[1:]), np.float32))
            rows[members] = values
    return {name: rows[runs] for name, rows in found.items()}
