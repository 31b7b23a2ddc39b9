"""One run inside a program: its state, the steps of its training, its evaluation; no lane axis anywhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fishnet.augment.mixing import mix
from fishnet.augment.sampling import balanced_positions
from fishnet.losses import cross_entropy
from fishnet.models.network import Network
from fishnet.models.norm_statistics import Population, add_batch, batch_moments, empty_population
from fishnet.nn.lsuv import layer_order, layer_outputs, lsuv
from fishnet.optim.constraints import ema, max_norm
from fishnet.optim.freezing import select_by_layer, stop_gradients
from fishnet.optim.masks import global_norm
from fishnet.optim.optimizer_state import OptimizerState, descent_direction, init_optimizer_state, to_optax_state
from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.probes import Net
from fishnet.sweep.program.build import (
    add_penalties,
    augmented,
    clipping_of,
    frozen_leaves,
    frozen_norms,
    lane_losses,
    lane_model,
    learning_rates,
    norms_frozen_at,
    rate_multiplier,
    with_initial_biases,
    with_initial_scales,
)
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.state import DeviceData, EpochSums, LaneState, ProbeState, ProgramConfig, constants
from fishnet.sweep.program.traced_config import BranchIds, Hyperparameters
from fishnet.sweep.program.traced_probes import (
    axes_of,
    new_epoch,
    nothing_probed,
    probe_network,
    with_failure,
    with_step,
)

PRECISE_BATCHES = 32  # of an epoch, from which precise statistics are estimated


def model_of(shape: ProgramConfig, kinds: BranchIds, numbers: Hyperparameters) -> Network:
    """The model of one run; arguments as for `init_lane`."""
    return lane_model(shape.recipe, shape.menu, shape.classes, shape.experts, shape.lowering, kinds, numbers)


def where_learning(rates: Any, new: Any, old: Any) -> Any:
    """A tree's leaves where their layer learns, those of another where it is frozen.

    Args:
        rates: of `learning_rates`; None: all learn.
        new, old: trees like the parameters.
    """
    return new if rates is None else jax.tree.map(lambda r, a, b: jnp.where(r > 0, a, b), rates, new, old)


def model_in_training(
    shape: ProgramConfig, kinds: BranchIds, numbers: Hyperparameters, statistics: Any, step: jax.Array
) -> Network:
    """Builds the model of one run for a training step: the norms of frozen layers are frozen.

    Args:
        shape, kinds, numbers: as for `init_lane`.
        statistics: of its norms.
        step: [] int32.
    """
    frozen = norms_frozen_at(shape.recipe, shape.menu, numbers, list(statistics), step)
    return model_of(shape, kinds, numbers).clone(frozen_norms=frozen)


def epoch_order(
    shape: ProgramConfig, numbers: Hyperparameters, pixels: DeviceData, epoch: jax.Array | int
) -> jax.Array:
    """The positions in `pixels.images` of the training images in the order in which an epoch shows them, [n_train].

    Args:
        shape: what is static.
        numbers: the run's, without the lane axis.
        pixels: the data.
        epoch: [] int32, from 0.
    """
    shuffle = jax.random.bits(stream_key(numbers.keys, "order", epoch), pixels.train.shape)
    order = pixels.train[jnp.argsort(shuffle)]
    if shape.menu.sampling:
        order = balanced_positions(stream_key(numbers.keys, "sample", epoch), order, pixels.labels, numbers.sampling)
    return order


def init_lane(shape: ProgramConfig, kinds: BranchIds, numbers: Hyperparameters, pixels: DeviceData) -> LaneState:
    """The state of one run before its first step.

    Args:
        shape: what is static.
        kinds, numbers: the run's knobs, without the lane axis.
        pixels: the data.

    Returns:
        Its state, without the lane axis.
    """
    model = model_of(shape, kinds, numbers)
    images = jnp.zeros((1, *shape.image_shape), jnp.uint8)
    variables = model.init({"params": stream_key(numbers.keys, "init")}, images, train=False)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    params = with_initial_scales(shape.menu, numbers, with_initial_biases(numbers, params))
    if shape.menu.unit_variance:
        first = pixels.images[epoch_order(shape, numbers, pixels, 0)[: shape.recipe.batch_size]]

        def run(params: Any) -> jax.Array:
            constant = constants(pixels.mean, pixels.std)
            return model.apply({"params": params, "batch_stats": statistics, "constants": constant}, first, train=False)

        layers = layer_order(lambda: run(params))
        params = lsuv(lambda params: layer_outputs(lambda: run(params)), params, layers, rounds=numbers.lsuv_rounds)
    zero, per_class = jnp.float32(0), jnp.zeros((shape.classes,), jnp.float32)
    return LaneState(
        params=params,
        statistics=statistics,
        slots=init_optimizer_state(shape.optimizers, params),
        average=params if shape.menu.average else (),
        estimated=statistics if shape.menu.precise else (),
        best_params=params,
        best_statistics=statistics,
        first_bad_step=jnp.int32(-1),
        lr=zero,
        epoch=EpochSums(jnp.int32(0), zero, jnp.int32(0), zero, zero, per_class, per_class),
        probed=nothing_probed(shape, model, params),
    )


def train_lane(
    shape: ProgramConfig,
    kinds: BranchIds,
    numbers: Hyperparameters,
    lane: LaneState,
    rate: jax.Array,
    pixels: DeviceData,
    start: jax.Array,
    stop: jax.Array,
) -> LaneState:
    """Trains one run from step `start` to step `stop` of the same epoch; its first non-finite step freezes it.

    Args:
        shape: what is static.
        kinds, numbers: the run's knobs, without the lane axis.
        lane: its state, without the lane axis.
        rate: [] float32, a further factor on the learning rate, which the host sets between epochs.
        pixels: the data.
        start: [] int32, steps made since the start of the run.
        stop: [] int32, at most the end of the epoch that `start` is in.
    """
    recipe, menu, per_epoch = shape.recipe, shape.menu, shape.steps_per_epoch
    batch_size = recipe.batch_size
    model = model_of(shape, kinds, numbers)
    probe = OPTIMIZERS[menu.own_optimizer].ascend if menu.own_optimizer else None
    differentiated = partial(jax.value_and_grad, has_aux=True)
    order = epoch_order(shape, numbers, pixels, start // per_epoch)
    fresh = start % per_epoch == 0
    lane = lane.replace(
        epoch=jax.tree.map(lambda total: jnp.where(fresh, 0, total), lane.epoch), probed=new_epoch(lane.probed, fresh)
    )
    layers = axes_of(shape, model).layer if isinstance(lane.probed, ProbeState) else ()

    def shown(i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, Callable]:
        """The images of a step as the network sees them, labels, progress, and what gives the losses of logits."""
        positions = lax.dynamic_slice(order, ((i % per_epoch) * batch_size,), (batch_size,))
        images, labels = pixels.images[positions], pixels.labels[positions]
        images = augmented(menu, kinds, numbers, stream_key(numbers.keys, "augment", i), images, labels)
        progress = i / numbers.total_steps
        partner, share = None, None
        if menu.mixing:
            fill = jnp.round(pixels.mean).astype(jnp.uint8)
            key = stream_key(numbers.keys, "mix", i)
            images, partner, share = mix(key, images, numbers.mixup, numbers.cutmix, numbers.scalars["cutout"], fill)

        def losses_of(logits: jax.Array) -> jax.Array:
            of = partial(lane_losses(menu, kinds, numbers, progress), logits)
            if partner is None:
                return of(labels)
            mixed = lax.cond(
                (share < 1).any(), lambda: share * of(labels) + (1 - share) * of(labels[partner]), lambda: of(labels)
            )
            return mixed

        return images, labels, progress, losses_of

    def forward(i: jax.Array, lane: LaneState, params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        """Logits of a step, and what it makes of the running statistics."""
        variables = {
            "params": params,
            "batch_stats": lane.statistics,
            "constants": constants(pixels.mean, pixels.std),
        }
        rngs = {name: stream_key(numbers.keys, name, i) for name in ("dropout", "activation")}
        model = model_in_training(shape, kinds, numbers, lane.statistics, i)
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])

    def gradients(
        i: jax.Array, lane: LaneState, images: jax.Array, losses_of: Callable, watch: Callable | None = None
    ) -> tuple[jax.Array, Any, Any, Any]:
        """The loss of a step, logits and statistics (or what `watch` has seen), the gradients, and `learning_rates`."""

        def objective(params):
            params = stop_gradients(params, frozen_leaves(recipe, params))
            if watch:
                (logits, _), seen = watch(lambda: forward(i, lane, params, images))
                return losses_of(logits).mean(), seen
            logits, after = forward(i, lane, params, images)
            return losses_of(logits).mean(), (logits, after.get("batch_stats", {}))

        rates = learning_rates(recipe, menu, numbers, lane.params, i)
        value_and_grad = differentiated(objective)
        (loss, seen), grads = value_and_grad(lane.params)
        if probe:
            uphill = where_learning(rates, grads, jax.tree.map(jnp.zeros_like, grads))
            grads = value_and_grad(probe(lane.params, uphill, numbers.scalars["rho"]))[1]
        loss, grads = add_penalties(menu, numbers, loss, grads, lane.params)
        return loss, seen, where_learning(rates, grads, jax.tree.map(jnp.zeros_like, grads)), rates

    def step(i: jax.Array, lane: LaneState) -> LaneState:
        images, labels, progress, losses_of = shown(i)
        loss, (logits, statistics), raw, rates = gradients(i, lane, images, losses_of)
        norm = global_norm(raw)
        finite = (lane.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
        lr = numbers.scalars["lr"] * rate_multiplier(numbers, progress) * rate
        grads, clip = clipping_of(menu, kinds, numbers, raw, norm, lane.params)

        def kept(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        def updated(optimizer: Optimizer) -> tuple[Any, OptimizerState]:
            """Parameters and slots after the step: all of it in one branch, so that each is read and written once."""
            own = numbers.scalars["momentum"], numbers.scalars["weight_decay"], lr
            down, slots = descent_direction(optimizer, clip(grads), lane.slots, lane.params, *own)
            if rates is None:
                params = jax.tree.map(lambda p, d: p - lr * d, lane.params, down)
            else:
                params = jax.tree.map(lambda p, d, r: jnp.where(r > 0, p - lr * r * d, p), lane.params, down, rates)
                # Else weight decay would gather in the slots of layers that have yet to begin.
                trees = tuple(map(partial(where_learning, rates), slots.trees, lane.slots.trees))
                slots = slots.replace(trees=trees)
            if menu.max_norm:
                limited = jnp.isfinite(numbers.max_norm).any()
                params = lax.cond(limited, partial(constrained, rates), lambda p: p, params)
            return kept((params, slots), (lane.params, lane.slots))

        def constrained(rates: Any, params: Any) -> Any:
            """The parameters with the weights into each unit no longer than they may be, but the frozen ones."""
            layers = numbers.norm.shape[-1]
            limits = select_by_layer(params, layers, numbers.max_norm)
            if rates is not None:
                limits = jax.tree.map(lambda limit, rate: jnp.where(rate > 0, limit, jnp.inf), limits, rates)
            return max_norm(params, limits)

        def evaluated(params: Any, slots: OptimizerState) -> Any:
            """The parameters to validate and keep, after this step."""
            if not menu.average:
                return ()
            own = OPTIMIZERS[menu.own_optimizer] if menu.own_optimizer else None
            if own and own.evaluate:
                params = own.evaluate(params, to_optax_state(own, slots, params))
            return kept(ema(lane.average, params, numbers.scalars["ema"], i + 1), lane.average)

        params, slots = lax.switch(kinds.optimizer, [partial(updated, optimizer) for optimizer in shape.optimizers])
        totals = lane.epoch
        one_hot = (labels[:, None] == jnp.arange(shape.classes)).astype(jnp.float32)
        after = EpochSums(
            steps=totals.steps + 1,
            loss=totals.loss + loss,
            correct=totals.correct + (logits.argmax(-1) == labels).sum(dtype=jnp.int32),
            grad_norm=totals.grad_norm + norm,
            clipped=totals.clipped + clip.share,
            class_loss=totals.class_loss + cross_entropy(logits, labels) @ one_hot,
            class_count=totals.class_count + one_hot.sum(0),
        )
        return lane.replace(
            params=params,
            slots=slots,
            average=evaluated(params, slots),
            statistics=kept(statistics, lane.statistics),
            epoch=kept(after, totals),
            first_bad_step=jnp.where(finite | (lane.first_bad_step >= 0), lane.first_bad_step, i),
            lr=lr,
            probed=with_step(shape, layers, lane, i, raw, params, lambda: forward(i, lane, lane.params, images)),
        )

    lane = lax.fori_loop(start, stop, step, lane)
    if shape.probes("failure"):

        def again(i: jax.Array, watch: Callable) -> tuple[jax.Array, Any, Any]:
            images, _, _, losses_of = shown(i)
            return gradients(i, lane, images, losses_of, watch)[:3]

        lane = with_failure(lane, start, layers, again)
    if menu.precise:

        def estimate() -> Any:
            trained = model_in_training(shape, kinds, numbers, lane.statistics, stop - 1)
            precise = partial(precise_statistics, trained, order, lane, pixels, batch_size)
            return lax.cond(numbers.precise, precise, lambda: lane.statistics)

        # The end of an epoch is the same for all lanes of a group: a branch of its own, real under `vmap` too.
        lane = lane.replace(estimated=lax.cond(stop % per_epoch == 0, estimate, lambda: lane.statistics))
        # Those of the trained weights are also what probes see, and what the running averages go on from.
        own = OPTIMIZERS[menu.own_optimizer].evaluate if menu.own_optimizer else None
        averaged = (numbers.scalars["ema"] > 0) | (own is not None)
        statistics = jax.tree.map(partial(jnp.where, averaged), lane.statistics, lane.estimated)
        lane = lane.replace(statistics=statistics)
    return lane


def precise_statistics(model: Network, order: jax.Array, lane: LaneState, pixels: DeviceData, batch_size: int) -> Any:
    """Computes mean and variance at each batch norm over training images, under the weights that a run evaluates.

    Args:
        model: of the lane, as it is in training.
        order: [n_train] int32, the positions of the epoch.
        lane: its state, without the lane axis.
        pixels: the data.
        batch_size: images that are normalised together; up to `PRECISE_BATCHES` of them are looked at.

    Returns:
        A tree like the running statistics.
    """
    variables = {
        "params": lane.evaluated,
        "batch_stats": lane.statistics,
        "constants": constants(pixels.mean, pixels.std),
    }

    def add(i: jax.Array, population: Population) -> Population:
        images = pixels.images[lax.dynamic_slice(order, (i * batch_size,), (batch_size,))]
        return add_batch(population, batch_moments(model, variables, images))

    batches = min(PRECISE_BATCHES, len(order) // batch_size)
    population = lax.fori_loop(0, batches, add, empty_population(variables))
    return population.moments


def evaluate_lane(
    shape: ProgramConfig,
    kinds: BranchIds,
    numbers: Hyperparameters,
    params: Any,
    statistics: Any,
    pixels: DeviceData,
    positions: jax.Array,
    chunks: jax.Array,
) -> jax.Array:
    """Logits of one run in evaluation mode.

    Args:
        positions: [chunk, image] int32, which images; rows from `chunks` on are not computed.
        chunks: [] int32.

    Returns:
        [chunk, image, class] float32, zero in the rows not computed.
    """
    model = model_of(shape, kinds, numbers)
    variables = {"params": params, "batch_stats": statistics, "constants": constants(pixels.mean, pixels.std)}

    def classify(images: jax.Array) -> jax.Array:
        running = partial(model.apply, variables, train=False)
        if not shape.menu.batch_evaluation:
            return running(images)
        frozen = frozen_norms(shape.recipe, list(statistics))
        at_hand = partial(model.clone(batch_statistics=True, frozen_norms=frozen).apply, variables, train=False)
        return lax.cond(numbers.batch_evaluation, at_hand, running, images)

    def chunk(i: jax.Array, logits: jax.Array) -> jax.Array:
        images = pixels.images[lax.dynamic_index_in_dim(positions, i, keepdims=False)]
        return lax.dynamic_update_index_in_dim(logits, classify(images), i, 0)

    return lax.fori_loop(0, chunks, chunk, jnp.zeros((*positions.shape, shape.classes), jnp.float32))


def probe_lane(
    shape: ProgramConfig,
    kinds: BranchIds,
    numbers: Hyperparameters,
    params: Any,
    statistics: Any,
    lr: jax.Array,
    pixels: DeviceData,
    positions: jax.Array,
    steps: jax.Array,
) -> dict[str, jax.Array]:
    """All figures of the probes of an epoch, of one run.

    Args:
        shape: what is static.
        kinds, numbers: the run's knobs, without the lane axis.
        params, statistics, lr: of its state.
        pixels: the data.
        positions: [batch, image] int32, which images.
        steps: [] int32, made so far.
    """
    variables = {"params": params, "batch_stats": statistics, "constants": constants(pixels.mean, pixels.std)}
    losses = lane_losses(shape.menu, kinds, numbers, steps / numbers.total_steps)
    model = model_in_training(shape, kinds, numbers, statistics, steps - 1)
    return probe_network(shape, Net(model, variables, losses, lr), pixels, positions)
