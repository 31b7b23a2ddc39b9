"""Training of one run: `train_step`, the functions that it is made of, and the loop over the steps of a call.

A lane is one run inside a program. Shapes here are those of a single run: `lane_groups.py` adds the lane axis by
`vmap`. Steps [] int32 count from the start of the run.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fishnet.augment.images import AUGMENTATIONS
from fishnet.augment.mixing import mix
from fishnet.augment.sampling import choose_by_class
from fishnet.losses import cross_entropy
from fishnet.optim.constraints import add_penalties, ema, max_norm
from fishnet.optim.freezing import keep_frozen, select_by_layer, stop_gradients, zero_frozen
from fishnet.optim.masks import global_norm
from fishnet.optim.optimizer_state import OptimizerState, descent_direction, to_optax_state
from fishnet.optim.optimizers import Optimizer
from fishnet.optim.switched import Clip, clip_by_index, schedule_by_index
from fishnet.sweep.program.build import (
    build_loss,
    build_model,
    build_training_model,
    frozen_leaves,
    fuse_layers,
    scale_layers,
)
from fishnet.sweep.program.eval_step import update_statistics
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.state import EpochSums, Lane, LaneState, TrainingLane, epoch_order
from fishnet.sweep.program.traced_config import Hyperparameters
from fishnet.sweep.program.traced_probes import clear_probes, find_axes, locate_failure, measure_step


class Batch(NamedTuple):
    """Examples of one training step."""

    images: jax.Array  # [b, h, w, c] as the network sees them
    labels: jax.Array  # [b] int32
    partner: jax.Array | None  # [b] int32, the example that each is mixed with; None where no lane mixes
    share: jax.Array | None  # [b] float32, weight of the example itself; its partner has 1 - share
    progress: jax.Array  # [] float32, fraction of the run done


def train_lane(lane: Lane, state: LaneState, lr_scale: jax.Array, start: jax.Array, stop: jax.Array) -> LaneState:
    """Trains one run from step `start` to step `stop` of the same epoch; from its first non-finite step on it no longer
    changes.

    `lr_scale` [] float32 is a factor on the learning rate that the host sets between epochs.
    """
    config, layers = lane.config, probed_layers(lane)
    order = epoch_order(lane, start // config.steps_per_epoch)
    epoch_begins = start % config.steps_per_epoch == 0
    sums = jax.tree.map(lambda total: jnp.where(epoch_begins, 0, total), state.epoch)
    state = state.replace(epoch=sums, probed=clear_probes(state.probed, epoch_begins))
    lane = TrainingLane(**vars(lane), order=order, lr_scale=lr_scale, layers=layers)
    state = lax.fori_loop(start, stop, partial(train_step, lane), state)
    if config.probes("failure"):
        state = locate_failure(lane, state, start, partial(repeat_step, lane, state))
    if config.features.precise:
        state = update_statistics(lane, state, stop)
    return state


def train_step(lane: TrainingLane, step: jax.Array, state: LaneState) -> LaneState:
    """Makes one training step: batch, gradients, clipping, update, averaged weights, epoch sums.

    From the first step on whose loss or gradient norm is not finite, parameters, optimizer state, averaged
    weights, statistics and sums stay as they were; `first_bad_step` is its number.
    """

    hparams = lane.hparams
    batch = load_batch(lane, step)
    loss, (logits, statistics), raw_grads, lr_scales = loss_and_gradients(lane, state, batch, step)
    grad_norm = global_norm(raw_grads)
    finite = (state.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    lr = hparams.scalars["lr"] * schedule_factor(hparams, batch.progress) * lane.lr_scale
    clippings, index = lane.config.features.clipping, lane.ids.clipping
    grads, clip = clip_by_index(clippings, index, raw_grads, grad_norm, state.params, hparams.clip)
    update = partial(update_params, lane, state, grads, clip, lr, lr_scales, finite)
    params, slots = lax.switch(lane.ids.optimizer, [partial(update, rule) for rule in lane.config.optimizers])
    sums = count_step(state.epoch, batch, logits, loss, grad_norm, clip.fraction)
    return state.replace(
        params=params,
        slots=slots,
        average=update_average(lane, state, params, slots, step, finite),
        statistics=freeze_if_bad(finite, statistics, state.statistics),
        epoch=freeze_if_bad(finite, sums, state.epoch),
        first_bad_step=jnp.where(finite | (state.first_bad_step >= 0), state.first_bad_step, step),
        lr=lr,
        probed=measure_step(
            lane, state, step, raw_grads, params, partial(apply_model, lane, state, batch, step, state.params)
        ),
    )


def probed_layers(lane: Lane) -> tuple[str, ...]:
    """Names of the layers of the lane's network, where a probe looks at steps."""
    if not lane.config.probes("step") and not lane.config.probes("failure"):
        return ()
    return find_axes(lane.config, build_model(lane.config, lane.ids, lane.hparams)).layer


def load_batch(lane: TrainingLane, step: jax.Array) -> Batch:
    """Batch of a step, augmented and mixed."""
    config, hparams, data = lane.config, lane.hparams, lane.data
    size = config.batch_size
    positions = lax.dynamic_slice(lane.order, ((step % config.steps_per_epoch) * size,), (size,))
    images, labels = data.images[positions], data.labels[positions]
    images = augment_images(lane, stream_key(hparams.keys, "augment", step), images, labels)
    progress = step / hparams.total_steps
    partner, share = None, None
    if config.features.mixing:
        fill = jnp.round(data.mean).astype(jnp.uint8)
        key = stream_key(hparams.keys, "mix", step)
        images, partner, share = mix(key, images, hparams.mixup, hparams.cutmix, hparams.scalars["cutout"], fill)
    return Batch(images, labels, partner, share, progress)


def augment_images(lane: Lane, key: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Augments images [b, h, w, c] uint8 with the run's `augment`, those of its hard classes with `hard_augment`."""
    functions = tuple(AUGMENTATIONS[name] for name in lane.config.features.augment)
    usual = lax.switch(lane.ids.augment, functions, key, images)
    if not lane.config.features.hard_augment:
        return usual

    def by_class(images: jax.Array, usual: jax.Array) -> jax.Array:
        stronger = lax.switch(lane.ids.hard_augment, functions, key, images)
        return choose_by_class(labels, lane.hparams.hard, stronger, usual)

    return lax.cond(lane.ids.hard_augment != lane.ids.augment, by_class, lambda images, usual: usual, images, usual)


def batch_losses(lane: Lane, batch: Batch, logits: jax.Array) -> jax.Array:
    """Losses [b] of logits [b, class]; a mixed example's under both labels, by share and 1 - share."""
    losses = partial(build_loss(lane, batch.progress), logits)
    partner, share = batch.partner, batch.share
    if partner is None or share is None:
        return losses(batch.labels)

    def of_both() -> jax.Array:
        return share * losses(batch.labels) + (1 - share) * losses(batch.labels[partner])

    return lax.cond((share < 1).any(), of_both, lambda: losses(batch.labels))


def apply_model(lane: Lane, state: LaneState, batch: Batch, step: jax.Array, params: Any) -> tuple[jax.Array, Any]:
    """Logits [b, class] of a step in training mode, and the variables that it changed."""
    rngs = {name: stream_key(lane.hparams.keys, name, step) for name in ("dropout", "activation")}
    model = fuse_layers(lane.config, build_training_model(lane, state.statistics, step))
    variables = lane.variables(params, state.statistics)
    return model.apply(variables, batch.images, train=True, rngs=rngs, mutable=["batch_stats"])


def keep_outputs(run: Callable[[], tuple[jax.Array, Any]]) -> tuple[jax.Array, Any]:
    """Runs the forward pass; returns logits and, as auxiliary output, (logits, new statistics of batch norm)."""
    logits, changed = run()
    return logits, (logits, changed.get("batch_stats", {}))


def loss_and_gradients(
    lane: Lane, state: LaneState, batch: Batch, step: jax.Array, watch: Callable = keep_outputs
) -> tuple[jax.Array, Any, Any, Any]:
    """Computes the loss of a step and its gradients.

    Returns:
        The loss []; the auxiliary output of `watch(run)`, which calls `run() -> (logits, changed)` and returns (logits,
        auxiliary output); the gradients, 0 for frozen parameters; and the factor on the learning rate of each parameter
        array, None for 1 everywhere.
    """
    config, hparams = lane.config, lane.hparams

    def objective(params: Any) -> tuple[jax.Array, Any]:
        params = stop_gradients(params, frozen_leaves(config.recipe, params))
        logits, seen = watch(partial(apply_model, lane, state, batch, step, params))
        return batch_losses(lane, batch, logits).mean(), seen

    lr_scales = scale_layers(lane, state.params, step)
    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    (loss, seen), grads = value_and_grad(state.params)
    if config.own_optimizer and config.own_optimizer.ascend:
        uphill = zero_frozen(lr_scales, grads)
        grads = value_and_grad(config.own_optimizer.ascend(state.params, uphill, hparams.scalars["rho"]))[1]
    if config.features.penalties:
        loss, grads = add_penalties(loss, grads, state.params, hparams.scalars["l1"], hparams.scalars["l2"])
    return loss, seen, zero_frozen(lr_scales, grads), lr_scales


def schedule_factor(hparams: Hyperparameters, progress: jax.Array) -> jax.Array:
    """Factor [] on the peak learning rate of a lane after a fraction `progress` [] of its run."""
    cycles, warmup = hparams.scalars["cycles"], hparams.scalars["warmup"]
    return schedule_by_index(hparams.schedule, progress, cycles, warmup, hparams.lr_floor)


def update_params(
    lane: Lane,
    state: LaneState,
    grads: Any,
    clip: Clip,
    lr: jax.Array,
    lr_scales: Any | None,
    finite: jax.Array,
    optimizer: Optimizer,
) -> tuple[Any, OptimizerState]:
    """Updates parameters and slots with one optimizer, or keeps them where the step is not finite.

    All of it runs inside the optimizer's `lax.switch` branch, so that each parameter array is read and written once.

    Args:
        grads: gradients that `clip(grads)` has yet to clip; adaptive clipping is already done.
        lr: [] float32, of the step; `lr_scales` as from `scale_layers`.
        finite: [] bool.
    """
    hparams, old = lane.hparams, state.params
    down, slots = descent_direction(
        optimizer, clip(grads), state.slots, old, hparams.scalars["momentum"], hparams.scalars["weight_decay"], lr
    )
    if lr_scales is None:
        params = jax.tree.map(lambda p, d: p - lr * d, old, down)
    else:
        params = jax.tree.map(lambda p, d, s: jnp.where(s > 0, p - lr * s * d, p), old, down, lr_scales)
        # Frozen layers keep their optimizer state: weight decay would build up velocity in it.
        slots = slots.replace(trees=tuple(map(partial(keep_frozen, lr_scales), slots.trees, state.slots.trees)))
    if lane.config.features.max_norm:
        limited = jnp.isfinite(hparams.max_norm).any()
        params = lax.cond(limited, partial(limit_norms, hparams, lr_scales), lambda p: p, params)
    return freeze_if_bad(finite, (params, slots), (old, state.slots))


def limit_norms(hparams: Hyperparameters, lr_scales: Any | None, params: Any) -> Any:
    """Cuts the L2 norm of the weights into each unit to `max_norm`; frozen parameters stay."""
    limits = select_by_layer(params, hparams.norm.shape[-1], hparams.max_norm)
    if lr_scales is not None:
        limits = jax.tree.map(lambda limit, scale: jnp.where(scale > 0, limit, jnp.inf), limits, lr_scales)
    return max_norm(params, limits)


def update_average(
    lane: Lane, state: LaneState, params: Any, slots: OptimizerState, step: jax.Array, finite: jax.Array
) -> Any:
    """Updates the moving average of the parameters, which is validated and kept; () where no run averages."""
    if not lane.config.features.average:
        return ()
    own = lane.config.own_optimizer
    if own and own.evaluate:
        params = own.evaluate(params, to_optax_state(own, slots, params))
    return freeze_if_bad(finite, ema(state.average, params, lane.hparams.scalars["ema"], step + 1), state.average)


def count_step(
    sums: EpochSums, batch: Batch, logits: jax.Array, loss: jax.Array, grad_norm: jax.Array, clipped: jax.Array
) -> EpochSums:
    """Adds a step to the sums of its epoch; logits [b, class], the other numbers [] float32."""
    labels = batch.labels
    one_hot = (labels[:, None] == jnp.arange(logits.shape[-1])).astype(jnp.float32)
    return EpochSums(
        steps=sums.steps + 1,
        loss=sums.loss + loss,
        correct=sums.correct + (logits.argmax(-1) == labels).sum(dtype=jnp.int32),
        grad_norm=sums.grad_norm + grad_norm,
        clipped=sums.clipped + clipped,
        class_loss=sums.class_loss + cross_entropy(logits, labels) @ one_hot,
        class_count=sums.class_count + one_hot.sum(0),
    )


def freeze_if_bad(finite: jax.Array, new: Any, old: Any) -> Any:
    """Chooses the leaves of `new` where `finite` [] bool holds, otherwise those of `old`."""
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)


def repeat_step(lane: TrainingLane, state: LaneState, step: jax.Array, watch: Callable) -> tuple[jax.Array, Any, Any]:
    """Makes the forward and backward pass of a step once more: loss, what `watch` gave, gradients."""
    return loss_and_gradients(lane, state, load_batch(lane, step), step, watch)[:3]
