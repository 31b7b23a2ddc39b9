"""Traces the programs of a cohort before anything is written, so that what cannot be traced is refused in time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.layout import evaluation_chunk
from fishnet.sweep.program.program import chunks_of
from fishnet.sweep.program.state import DeviceData


def check_traces(cohort: Cohort) -> None:
    """Traces training, evaluation and probes of epochs; JAX keeps what it has traced for who compiles it.

    Raises:
        Exception: a program cannot be traced, and so not be trained: whatever its functions raise.
    """
    shape, task, lanes = cohort.shape, cohort.task, cohort.lanes_per_device

    def like(leaf: Any, *lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *np.shape(leaf)[len(lead) :]), leaf.dtype)

    def whole(*lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(lead, jnp.int32)

    knobs = jax.tree.map(lambda leaf: like(leaf, lanes), cohort.knobs)
    train = np.asarray(task.splits["train"], np.int32)
    pixels = jax.tree.map(like, DeviceData(task.images, np.asarray(task.labels), train, task.mean, task.std))
    functions = cohort.functions
    state = functions.init.eval_shape(knobs, pixels)
    groups, two = whole(lanes, shape.lane_width), whole(2)
    rates = jax.ShapeDtypeStruct((lanes,), jnp.float32)
    chunk, variables = evaluation_chunk(cohort), (state.params, state.statistics)
    functions.train.trace(knobs, state, rates, pixels, groups, two, two)
    functions.evaluate.trace(knobs, *variables, pixels, groups, two, whole(chunks_of(task, chunk), chunk), whole())
    if shape.probes("epoch"):
        positions = whole(shape.probe_batches, shape.recipe.batch_size)
        functions.probe.trace(knobs, *variables, state.lr, pixels, groups, two, positions, whole())
