"""One compiled program trains every lane of a cohort: lane groups -> vmap -> steps.

Lanes never talk to each other, so each device runs the same single-device program over its own lanes. A program
partitioned over devices (`shard_map`) would be simplified by XLA otherwise on two devices than on one (divisions become
products with reciprocals or stay), and a lane's last bits would depend on how many devices there are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax
from jax.sharding import SingleDeviceSharding

from fishnet.data import Task
from fishnet.losses import cross_entropy, deferred, mixed_loss
from fishnet.mixing import mix
from fishnet.optim.constraints import ema, max_norm
from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.sampling import balanced_positions
from fishnet.sweep.components import (
    add_penalties,
    clip_gradients,
    lane_model,
    rate_multiplier,
    switch_augmentation,
    with_initial_biases,
    with_initial_scales,
)
from fishnet.sweep.knobs import Kinds, Knobs, Menu, Numbers
from fishnet.sweep.random import draw
from fishnet.sweep.recipe import Recipe
from fishnet.sweep.slots import Slots, direction, empty_slots, state_of


@struct.dataclass
class Lanes:
    """The state of the runs of a cohort: arrays only, each with a leading lane axis."""

    params: Any  # [lane, ...] float32
    statistics: Any  # [lane, ...] float32, running moments of batch norm
    slots: Slots  # [lane, ...] what the optimizer remembers
    average: Any  # [lane, ...] float32, the parameters to evaluate, where the menu has others than `params`; or ()
    best_params: Any  # [lane, ...] float32, at the epoch that validation selected
    best_statistics: Any  # [lane, ...] float32
    first_bad_step: jax.Array  # [lane] int32, -1 while everything was finite
    lr: jax.Array  # [lane] float32, learning rate of the last step
    epoch: "Totals"

    @property
    def evaluated(self) -> Any:
        """The parameters to validate and keep, [lane, ...] float32."""
        return self.params if isinstance(self.average, tuple) else self.average


@struct.dataclass
class Totals:
    """Sums over the finite steps of the current epoch."""

    steps: jax.Array  # [lane] int32
    loss: jax.Array  # [lane] float32, sum over steps of the objective
    correct: jax.Array  # [lane] int32, examples
    grad_norm: jax.Array  # [lane] float32, sum over steps of the global gradient norm, before clipping
    clipped: jax.Array  # [lane] float32, sum over steps of the share of the gradient that was clipped
    class_loss: jax.Array  # [lane, class] float32, sum over examples of the cross-entropy
    class_count: jax.Array  # [lane, class] float32, examples


@struct.dataclass
class Pixels:
    """A task's images on the device."""

    images: jax.Array  # [n, h, w, c] uint8
    labels: jax.Array  # [n] int32
    train: jax.Array  # [n_train] int32, positions in images
    mean: jax.Array  # [c] float32, of the training split
    std: jax.Array  # [c] float32


@dataclass(frozen=True)
class Shape:
    """The static part of a cohort: what its program is compiled for."""

    recipe: Recipe  # only the static fields matter
    menu: Menu
    classes: int
    image_shape: tuple[int, int, int]
    train_images: int
    lowering: str
    lane_width: int

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Those on the menu."""
        return tuple(OPTIMIZERS[name] for name in self.menu.optimizer)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training split."""
        return self.train_images // self.recipe.batch_size


def single_lane(shape: Shape, kinds: Kinds, numbers: Numbers) -> Lanes:
    """The state of one run before its first step.

    Args:
        shape: what is static.
        kinds, numbers: the run's knobs, without the lane axis.

    Returns:
        Its state, without the lane axis.
    """
    model = lane_model(shape.recipe, shape.menu, shape.classes, shape.lowering, kinds, numbers)
    images = jnp.zeros((1, *shape.image_shape), jnp.uint8)
    variables = model.init({"params": draw(numbers.keys, "init")}, images, train=False)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    params = with_initial_scales(shape.menu, numbers, with_initial_biases(numbers, params))
    zero, per_class = jnp.float32(0), jnp.zeros((shape.classes,), jnp.float32)
    return Lanes(
        params=params,
        statistics=statistics,
        slots=empty_slots(shape.optimizers, params),
        average=params if shape.menu.average else (),
        best_params=params,
        best_statistics=statistics,
        first_bad_step=jnp.int32(-1),
        lr=zero,
        epoch=Totals(jnp.int32(0), zero, jnp.int32(0), zero, zero, per_class, per_class),
    )


def constants(mean: jax.Array, std: jax.Array) -> dict[str, Any]:
    """The collection that holds the training split's pixel statistics."""
    return {"standardize": {"mean": mean, "std": std}}


def initial_lanes(shape: Shape, knobs: Knobs) -> Lanes:
    """The state of all lanes before their first step, made one lane at a time."""
    return lax.map(lambda k: single_lane(shape, k.kinds, k.numbers), knobs)


def train_lane(
    shape: Shape,
    kinds: Kinds,
    numbers: Numbers,
    lane: Lanes,
    rate: jax.Array,
    pixels: Pixels,
    start: jax.Array,
    stop: jax.Array,
) -> Lanes:
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
    model = lane_model(recipe, menu, shape.classes, shape.lowering, kinds, numbers)
    probe = OPTIMIZERS[menu.own_optimizer].probe if menu.own_optimizer else None
    shuffle = jax.random.bits(draw(numbers.keys, "order", start // per_epoch), pixels.train.shape)
    order = pixels.train[jnp.argsort(shuffle)]
    if menu.sampling:
        order = balanced_positions(
            draw(numbers.keys, "sample", start // per_epoch), order, pixels.labels, numbers.sampling
        )
    fresh = start % per_epoch == 0
    lane = lane.replace(epoch=jax.tree.map(lambda total: jnp.where(fresh, 0, total), lane.epoch))

    def step(i: jax.Array, lane: Lanes) -> Lanes:
        positions = lax.dynamic_slice(order, ((i % per_epoch) * batch_size,), (batch_size,))
        images, labels = pixels.images[positions], pixels.labels[positions]
        images = switch_augmentation(menu, kinds.augment, draw(numbers.keys, "augment", i), images)
        progress = i / numbers.total_steps
        partner, share = None, None
        if menu.mixing:
            fill = jnp.round(pixels.mean).astype(jnp.uint8)
            key = draw(numbers.keys, "mix", i)
            images, partner, share = mix(key, images, numbers.mixup, numbers.cutmix, numbers.cutout, fill)

        def losses_of(logits: jax.Array) -> jax.Array:
            weights = deferred(numbers.loss.class_weights, progress, numbers.reweight_from)
            of = partial(mixed_loss, kinds.loss, logits, numbers=numbers.loss.replace(class_weights=weights))
            if partner is None:
                return of(labels)
            mixed = lax.cond(
                (share < 1).any(), lambda: share * of(labels) + (1 - share) * of(labels[partner]), lambda: of(labels)
            )
            return mixed

        def objective(params):
            variables = {
                "params": params,
                "batch_stats": lane.statistics,
                "constants": constants(pixels.mean, pixels.std),
            }
            rngs = {name: draw(numbers.keys, name, i) for name in ("dropout", "activation")}
            logits, after = model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])
            return losses_of(logits).mean(), (logits, after.get("batch_stats", {}))

        (loss, (logits, statistics)), grads = jax.value_and_grad(objective, has_aux=True)(lane.params)
        if probe:
            grads = jax.grad(objective, has_aux=True)(probe(lane.params, grads, numbers.rho))[0]
        loss, grads = add_penalties(menu, numbers, loss, grads, lane.params)
        norm = optax.tree.norm(grads)
        finite = (lane.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
        lr = numbers.lr * rate_multiplier(numbers, progress) * rate

        def update(params, slots):
            scaled, clipped = clip_gradients(menu, kinds, numbers, grads, params)
            numbers_of_it = numbers.momentum, numbers.weight_decay, lr
            down, slots = direction(shape.optimizers, kinds.optimizer, scaled, slots, params, *numbers_of_it)
            params = jax.tree.map(lambda p, d: p - lr * d, params, down)
            if menu.max_norm:
                params = lax.cond(
                    jnp.isfinite(numbers.max_norm), lambda p: max_norm(p, numbers.max_norm), lambda p: p, params
                )
            totals = lane.epoch
            one_hot = (labels[:, None] == jnp.arange(shape.classes)).astype(jnp.float32)
            totals = Totals(
                steps=totals.steps + 1,
                loss=totals.loss + loss,
                correct=totals.correct + (logits.argmax(-1) == labels).sum(dtype=jnp.int32),
                grad_norm=totals.grad_norm + norm,
                clipped=totals.clipped + clipped,
                class_loss=totals.class_loss + cross_entropy(logits, labels) @ one_hot,
                class_count=totals.class_count + one_hot.sum(0),
            )
            return params, slots, evaluated(params, slots), statistics, totals, lane.first_bad_step

        def evaluated(params, slots):
            """The parameters to validate and keep, after this step."""
            if not menu.average:
                return ()
            own = OPTIMIZERS[menu.own_optimizer] if menu.own_optimizer else None
            if own and own.evaluate:
                params = own.evaluate(params, state_of(own, slots, params))
            return ema(lane.average, params, numbers.ema, i + 1)

        def freeze(params, slots):
            bad = jnp.where(lane.first_bad_step < 0, i, lane.first_bad_step)
            return params, slots, lane.average, lane.statistics, lane.epoch, bad

        params, slots, average, statistics, totals, bad = lax.cond(finite, update, freeze, lane.params, lane.slots)
        return lane.replace(
            params=params, slots=slots, average=average, statistics=statistics, epoch=totals, first_bad_step=bad, lr=lr
        )

    return lax.fori_loop(start, stop, step, lane)


def evaluate_lane(
    shape: Shape,
    kinds: Kinds,
    numbers: Numbers,
    params: Any,
    statistics: Any,
    pixels: Pixels,
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
    model = lane_model(shape.recipe, shape.menu, shape.classes, shape.lowering, kinds, numbers)
    variables = {"params": params, "batch_stats": statistics, "constants": constants(pixels.mean, pixels.std)}

    def chunk(i: jax.Array, logits: jax.Array) -> jax.Array:
        images = pixels.images[lax.dynamic_index_in_dim(positions, i, keepdims=False)]
        return lax.dynamic_update_index_in_dim(logits, model.apply(variables, images, train=False), i, 0)

    return lax.fori_loop(0, chunks, chunk, jnp.zeros((*positions.shape, shape.classes), jnp.float32))


def vectorised(function: Callable, width: int) -> Callable:
    """`function(kinds, numbers, tree)` over a group of `width` lanes that agree in their kinds.

    At width 1 it is called without `vmap`, so that every `lax.cond` and `lax.switch` stays a real branch. Wider
    groups share one (unbatched) set of kinds, so that choosing an activation stays a real branch there too.
    """

    def group(kinds: Kinds, numbers: Numbers, tree: Any) -> Any:
        first = jax.tree.map(lambda kind: kind[0], kinds)
        if width == 1:
            result = function(first, *jax.tree.map(lambda leaf: leaf[0], (numbers, tree)))
            return jax.tree.map(lambda leaf: leaf[None], result)
        return jax.vmap(partial(function, first))(numbers, tree)

    return group


def take(tree: Any, members: jax.Array) -> Any:
    """Reads lanes.

    Args:
        tree: arrays with a leading lane axis.
        members: [width] int32, lanes; padding members, beyond the last lane, read the last one.

    Returns:
        `tree` with a leading axis of `width`.
    """
    if members.shape[0] == 1:
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, members[0], 1), tree)
    return jax.tree.map(lambda leaf: leaf.at[members].get(mode="clip"), tree)


def put(tree: Any, members: jax.Array, lanes: Any) -> Any:
    """Writes lanes.

    Args:
        tree: arrays with a leading lane axis.
        members: [width] int32, lanes; padding members write nowhere.
        lanes: what replaces them, with a leading axis of `width`.

    Returns:
        The new `tree`.
    """
    if members.shape[0] == 1:
        return jax.tree.map(lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, members[0], 0), tree, lanes)
    return jax.tree.map(lambda leaf, new: leaf.at[members].set(new, mode="drop", unique_indices=False), tree, lanes)


def train_groups(
    shape: Shape,
    knobs: Knobs,
    lanes: Lanes,
    rates: jax.Array,
    pixels: Pixels,
    groups: jax.Array,
    window: jax.Array,
    steps: jax.Array,
) -> Lanes:
    """Trains the lane groups in `window`, one after the other.

    Args:
        rates: [lane] float32, `rate` of `train_lane`.
        groups: [group, width] int32, lanes by position; padding is the number of lanes.
        window: [2] int32, the first group to train and the one after the last.
        steps: [2] int32, `start` and `stop` of `train_lane`.
    """

    def train(kinds: Kinds, numbers: Numbers, state: tuple[Lanes, jax.Array]) -> Lanes:
        return train_lane(shape, kinds, numbers, *state, pixels, steps[0], steps[1])

    def one_group(i: jax.Array, lanes: Lanes) -> Lanes:
        members = lax.dynamic_index_in_dim(groups, i, keepdims=False)
        mine = take(knobs, members)
        state = take((lanes, rates), members)
        return put(lanes, members, vectorised(train, shape.lane_width)(mine.kinds, mine.numbers, state))

    return lax.fori_loop(window[0], window[1], one_group, lanes)


def evaluate_groups(
    shape: Shape,
    knobs: Knobs,
    params: Any,
    statistics: Any,
    pixels: Pixels,
    groups: jax.Array,
    window: jax.Array,
    positions: jax.Array,
    chunks: jax.Array,
) -> jax.Array:
    """Logits of the lanes of the groups in a window, from the start of the output on.

    Args:
        shape, knobs, pixels, groups, window: as for `train_groups`.
        params, statistics: variables of all lanes, [lane, ...].
        positions, chunks: as for `evaluate_lane`.

    Returns:
        [group, width, chunk, image, class] float32, with as many groups as fit one call.
    """

    def evaluate(kinds: Kinds, numbers: Numbers, variables: tuple[Any, Any]) -> jax.Array:
        return evaluate_lane(shape, kinds, numbers, *variables, pixels, positions, chunks)

    def one_group(i: jax.Array, logits: jax.Array) -> jax.Array:
        members = lax.dynamic_index_in_dim(groups, i, keepdims=False)
        mine = take(knobs, members)
        result = vectorised(evaluate, shape.lane_width)(mine.kinds, mine.numbers, take((params, statistics), members))
        return lax.dynamic_update_index_in_dim(logits, result, i - window[0], 0)

    capacity = min(groups.shape[0], evaluation_capacity(shape, positions.shape[0] * positions.shape[1]))
    empty = jnp.zeros((capacity, shape.lane_width, *positions.shape, shape.classes), jnp.float32)
    return lax.fori_loop(window[0], window[1], one_group, empty)


def evaluation_capacity(shape: Shape, images: int) -> int:
    """How many groups one evaluation call holds: 32 MiB of logits a device, at least one group."""
    return max(1, 2**25 // (4 * shape.lane_width * images * shape.classes))


def keep_best(lanes: Lanes, better: jax.Array) -> Lanes:
    """Copies the current variables of some lanes into their best ones.

    Args:
        lanes: the state.
        better: [lane] bool, which lanes.
    """

    def choose(best: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (now.ndim - 1)), now, best)

    return lanes.replace(
        best_params=jax.tree.map(choose, lanes.best_params, lanes.evaluated),
        best_statistics=jax.tree.map(choose, lanes.best_statistics, lanes.statistics),
    )


class Program:
    """The functions of a cohort and what they work on, on each of a number of devices.

    Args:
        shape: what is static.
        knobs: of all lanes, [devices * lanes] leading, in the order of their positions.
        task: the images.
        devices: where to run; lanes are split evenly among them.
        chunk: images an evaluation step.
    """

    def __init__(self, shape: Shape, knobs: Knobs, task: Task, devices: list[jax.Device], chunk: int) -> None:
        self.shape, self.devices, self.chunk = shape, devices, chunk
        self.lanes = len(knobs.numbers.lr) // len(devices)
        self.knobs = self.split(knobs)
        train = np.asarray(task.splits["train"], np.int32)
        pixels = Pixels(task.images, task.labels, train, task.mean, task.std)
        self.pixels = [jax.device_put(pixels, device) for device in devices]
        longest = max(len(task.splits["val"]), len(task.splits["test"]))
        self.chunks = -(-longest // chunk)
        self.capacity = min(self.lanes, evaluation_capacity(shape, self.chunks * chunk))
        # One function object for all devices: it is traced once.
        self._init = jax.jit(partial(initial_lanes, shape))
        self._train = jax.jit(partial(train_groups, shape), donate_argnums=1)
        self._evaluate = jax.jit(partial(evaluate_groups, shape))
        self._keep = jax.jit(keep_best, donate_argnums=0)

    def split(self, tree: Any) -> list[Any]:
        """Host arrays with a leading axis of all lanes, by position -> one tree a device."""
        parts = [slice(i * self.lanes, (i + 1) * self.lanes) for i in range(len(self.devices))]
        return [
            jax.device_put(jax.tree.map(lambda leaf, part=part: leaf[part], tree), device)
            for part, device in zip(parts, self.devices, strict=True)
        ]

    def lower(self, name: str, device: int) -> jax.stages.Lowered:
        """The function `name` ("init", "train", "evaluate", "keep") for one of the devices, ready to be compiled.

        init(knobs) -> lanes; train(knobs, lanes, rates, pixels, groups, window, steps) -> lanes;
        evaluate(knobs, params, statistics, pixels, groups, window, positions, chunks) -> logits;
        keep(lanes, better) -> lanes. Lanes that go in are given up.
        """
        place = SingleDeviceSharding(self.devices[device])

        def abstract(shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

        knobs, pixels = self.knobs[device], self.pixels[device]
        lanes = jax.tree.map(lambda leaf: abstract(leaf.shape, leaf.dtype), self.abstract_lanes())
        groups = abstract((self.lanes, self.shape.lane_width))
        if name == "init":
            return self._init.lower(knobs)
        if name == "train":
            rates = abstract((self.lanes,), jnp.float32)
            return self._train.lower(knobs, lanes, rates, pixels, groups, abstract((2,)), abstract((2,)))
        if name == "evaluate":
            positions = abstract((self.chunks, self.chunk))
            return self._evaluate.lower(
                knobs, lanes.params, lanes.statistics, pixels, groups, abstract((2,)), positions, abstract(())
            )
        return self._keep.lower(lanes, abstract((self.lanes,), jnp.bool_))

    def abstract_lanes(self) -> Lanes:
        """Shapes and types of the state of the lanes of one device."""
        return jax.eval_shape(partial(initial_lanes, self.shape), self.knobs[0])
