"""Evaluation of one run: its logits, the probes of an epoch, and precise statistics of its batch norms.

A lane is the run; its state is without the lane axis.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fishnet.models.network import Network
from fishnet.models.norm_statistics import Population, add_batch, batch_moments, empty_population
from fishnet.probes import Batches, Net
from fishnet.sweep.program.build import build_loss, build_model, build_training_model, frozen_norms, fuse_layers
from fishnet.sweep.program.state import Lane, LaneState, TrainingLane

PRECISE_BATCHES = 32  # of an epoch, from which precise statistics are estimated


def evaluate_lane(lane: Lane, params: Any, statistics: Any, positions: jax.Array, chunks: jax.Array) -> jax.Array:
    """Logits of one run in evaluation mode, [chunk, image, class] float32.

    Args:
        params, statistics: of its network.
        positions: [chunk, image] int32, which images.
        chunks: [] int32; rows of `positions` from there on are not computed, and their logits are 0.
    """
    config = lane.config
    model = fuse_layers(config, build_model(config, lane.ids, lane.hparams))
    variables = lane.variables(params, statistics)

    def classify(images: jax.Array) -> jax.Array:
        running: Any = partial(model.apply, variables, train=False)
        if not config.features.batch_evaluation:
            return running(images)
        frozen = frozen_norms(config.recipe, list(statistics))
        at_hand: Any = partial(model.clone(batch_statistics=True, frozen_norms=frozen).apply, variables, train=False)
        return lax.cond(lane.hparams.batch_evaluation, at_hand, running, images)

    def evaluate_chunk(i: jax.Array, logits: jax.Array) -> jax.Array:
        images = lane.data.images[lax.dynamic_index_in_dim(positions, i, keepdims=False)]
        return lax.dynamic_update_index_in_dim(logits, classify(images), i, 0)

    return lax.fori_loop(0, chunks, evaluate_chunk, jnp.zeros((*positions.shape, config.classes), jnp.float32))


def probe_lane(
    lane: Lane, params: Any, statistics: Any, lr: jax.Array, positions: jax.Array, steps: jax.Array
) -> dict[str, jax.Array]:
    """Measures of the epoch probes of one run after `steps` [] int32, on images `positions` [batch, image] int32."""
    losses = build_loss(lane, steps / lane.hparams.total_steps)
    model = build_training_model(lane, statistics, steps - 1)
    net = Net(model, lane.variables(params, statistics), losses, lr)
    batches = Batches(lane.data.images, lane.data.labels, positions)
    found = {}
    for probe in lane.config.probes("epoch").values():
        found |= probe.measure(net, batches)
    return found


def estimate_statistics(lane: Lane, model: Network, order: jax.Array, state: LaneState) -> Any:
    """Mean and variance at each batch norm over training images, under the weights that a run evaluates.

    Of the images in the order [n_train] int32 of an epoch up to `PRECISE_BATCHES` batches are used.
    """
    size = lane.config.batch_size
    variables = lane.variables(state.evaluated, state.statistics)

    def add(i: jax.Array, population: Population) -> Population:
        images = lane.data.images[lax.dynamic_slice(order, (i * size,), (size,))]
        return add_batch(population, batch_moments(model, variables, images))

    batches = min(PRECISE_BATCHES, len(order) // size)
    return lax.fori_loop(0, batches, add, empty_population(variables)).moments


def update_statistics(lane: TrainingLane, state: LaneState, stop: jax.Array) -> LaneState:
    """Estimates batch norm's statistics anew if the epoch ends at step `stop`, in lanes that evaluate with them."""

    def estimate() -> Any:
        model = build_training_model(lane, state.statistics, stop - 1)
        precise = partial(estimate_statistics, lane, model, lane.order, state)
        return lax.cond(lane.hparams.precise, precise, lambda: state.statistics)

    # The end of an epoch is the same for all lanes of a group: a branch of its own, real under `vmap` too.
    ends = stop % lane.config.steps_per_epoch == 0
    state = state.replace(estimated=lax.cond(ends, estimate, lambda: state.statistics))
    # The statistics of the trained weights are also what probes see, and what the running averages go on from.
    own = lane.config.own_optimizer
    averaged = (lane.hparams.scalars["ema"] > 0) | (own is not None and own.evaluate is not None)
    statistics = jax.tree.map(partial(jnp.where, averaged), state.statistics, state.estimated)
    return state.replace(statistics=statistics)
