"""Traces the programs of a cohort before anything is written, so that what cannot be traced is refused in time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.program.program import count_chunks
from fishnet.sweep.program.state import DeviceData


def check_traces(layout: Layout) -> None:
    """Traces training, evaluation and probes of epochs; JAX keeps what it has traced for who compiles it.

    Raises:
        Exception: a program cannot be traced, and so not be trained: whatever its functions raise.
    """
    cohort, lanes, functions = layout.cohort, layout.lanes_per_device, layout.cohort.functions
    config, task = cohort.config, cohort.task

    def whole(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    traced = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape[1:]), leaf.dtype), cohort.traced)
    train = np.asarray(task.splits["train"], np.int32)
    arrays: Any = (task.images, np.asarray(task.labels), train, task.mean, task.std)
    data = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), DeviceData(*arrays))
    state = functions.init.eval_shape(traced, data)
    groups, two = whole(lanes, config.lane_width), whole(2)
    rates = jax.ShapeDtypeStruct((lanes,), jnp.float32)
    chunk, variables = config.evaluation_chunk, (state.params, state.statistics)
    functions.train.trace(traced, state, rates, data, groups, two, two)
    functions.evaluate.trace(traced, *variables, data, groups, two, whole(count_chunks(task, chunk), chunk), whole())
    if config.probes("epoch"):
        positions = whole(config.probe_batches, config.batch_size)
        functions.probe.trace(traced, *variables, state.lr, data, groups, two, positions, whole())
