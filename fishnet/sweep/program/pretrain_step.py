"""The steps of pretraining: lanes whose trunk first learns something without labels, in a program an objective."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from fishnet.models import MODELS
from fishnet.optim.masks import global_norm
from fishnet.pretraining import OBJECTIVES, Objective, with_trunk
from fishnet.sweep.program.lane_groups import over_groups
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.state import DeviceData, LaneState, ProgramConfig, constants
from fishnet.sweep.program.traced_config import BranchIds, Hyperparameters, TracedConfig
from fishnet.sweep.program.train_step import model_of

RNGS = ("objective", "dropout", "activation")
ADAM = optax.scale_by_adam()


@struct.dataclass
class PretrainState:
    """The state of lanes in pretraining: arrays only, each with a leading lane axis."""

    params: Any  # [lane, ...] float32, of the objective: the trunk and what it needs beside it
    statistics: Any  # [lane, ...] float32, running moments of batch norm
    adam: Any  # [lane, ...] its two moments and its count
    steps: jax.Array  # [lane] int32, finite steps of the current epoch
    loss: jax.Array  # [lane] float32, sum over them
    solved: jax.Array  # [lane] float32, sum over them; NaN where the objective has nothing to solve
    first_bad_step: jax.Array  # [lane] int32, -1 while everything was finite


def objective_of(shape: ProgramConfig, name: str, kinds: BranchIds, numbers: Hyperparameters) -> Objective:
    """The objective around the trunk of one lane.

    Args:
        shape: what is static.
        name: in `OBJECTIVES`.
        kinds, numbers: the lane's knobs, without the lane axis.
    """
    return OBJECTIVES[name](trunk=model_of(shape, kinds, numbers))


def init_pretrain(
    shape: ProgramConfig, name: str, knobs: TracedConfig, lanes: LaneState, pixels: DeviceData
) -> PretrainState:
    """The state of all lanes before their first step: their trunks as they are, the rest drawn anew.

    Args:
        shape: what is static.
        name: in `OBJECTIVES`.
        knobs, lanes: of all lanes.
        pixels: the data.
    """

    def one(of: tuple[TracedConfig, Any, Any]) -> PretrainState:
        knobs, params, statistics = of
        images = jnp.zeros((2, *shape.image_shape), jnp.uint8)
        key = stream_key(knobs.numbers.keys, "pretrain", 2**31 - 1)
        rngs = {stream: jax.random.fold_in(key, i) for i, stream in enumerate(("params", *RNGS))}
        objective = objective_of(shape, name, knobs.kinds, knobs.numbers)
        variables = objective.init(rngs, images, train=False)
        own, moved = variables["params"], variables.get("batch_stats", {})
        trunk = own | {module: leaves for module, leaves in params.items() if module in own}
        return PretrainState(
            params=trunk,
            statistics=moved | {module: leaves for module, leaves in statistics.items() if module in moved},
            adam=ADAM.init(trunk),
            steps=jnp.int32(0),
            loss=jnp.float32(0),
            solved=jnp.float32(0),
            first_bad_step=jnp.int32(-1),
        )

    return lax.map(one, (knobs, lanes.params, lanes.statistics))


def pretrain_lane(
    shape: ProgramConfig,
    name: str,
    kinds: BranchIds,
    numbers: Hyperparameters,
    pupil: PretrainState,
    pixels: DeviceData,
    start: jax.Array,
    stop: jax.Array,
) -> PretrainState:
    """Pretrains one lane from step `start` to step `stop` of the same epoch; its first non-finite step freezes it.

    Adam at `pretrain_lr`, down to 0 along a half cosine.

    Args:
        shape: what is static.
        name: in `OBJECTIVES`.
        kinds, numbers: the lane's knobs, without the lane axis.
        pupil: its state, without the lane axis.
        pixels: the data.
        start: [] int32, steps made since the start of pretraining.
        stop: [] int32, at most the end of the epoch that `start` is in.
    """
    per_epoch, batch_size = shape.steps_per_epoch, shape.recipe.batch_size
    objective = objective_of(shape, name, kinds, numbers)
    shuffle = jax.random.bits(stream_key(numbers.keys, "pretrain_order", start // per_epoch), pixels.train.shape)
    order = pixels.train[jnp.argsort(shuffle)]
    fresh = start % per_epoch == 0
    zeroed = {total: jnp.where(fresh, 0, getattr(pupil, total)) for total in ("steps", "loss", "solved")}
    pupil = pupil.replace(**zeroed)

    def step(i: jax.Array, pupil: PretrainState) -> PretrainState:
        images = pixels.images[lax.dynamic_slice(order, ((i % per_epoch) * batch_size,), (batch_size,))]
        key = stream_key(numbers.keys, "pretrain", i)
        rngs = {stream: jax.random.fold_in(key, j) for j, stream in enumerate(RNGS)}

        def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            variables = {
                "params": params,
                "batch_stats": pupil.statistics,
                "constants": constants(pixels.mean, pixels.std),
            }
            (losses, solved), after = objective.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])
            solved = jnp.float32(jnp.nan) if solved is None else solved.mean()
            return losses.mean(), (solved, after.get("batch_stats", {}))

        (loss, (solved, statistics)), grads = jax.value_and_grad(loss_of, has_aux=True)(pupil.params)
        finite = (pupil.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(global_norm(grads))
        lr = numbers.scalars["pretrain_lr"] * 0.5 * (1 + jnp.cos(jnp.pi * i / numbers.pretrain_steps))

        def update(pupil: PretrainState) -> PretrainState:
            down, adam = ADAM.update(grads, pupil.adam, pupil.params)
            return pupil.replace(
                params=jax.tree.map(lambda p, d: p - lr * d, pupil.params, down),
                statistics=statistics,
                adam=adam,
                steps=pupil.steps + 1,
                loss=pupil.loss + loss,
                solved=pupil.solved + solved,
            )

        def freeze(pupil: PretrainState) -> PretrainState:
            return pupil.replace(first_bad_step=jnp.where(pupil.first_bad_step < 0, i, pupil.first_bad_step))

        return lax.cond(finite, update, freeze, pupil)

    return lax.fori_loop(start, stop, step, pupil)


def pretrain_groups(
    shape: ProgramConfig,
    name: str,
    knobs: TracedConfig,
    pupils: PretrainState,
    pixels: DeviceData,
    groups: jax.Array,
    window: jax.Array,
    steps: jax.Array,
) -> PretrainState:
    """Pretrains the lane groups in `window`, one after the other; arguments as for `train_groups`."""

    def train(kinds: BranchIds, numbers: Hyperparameters, state: tuple[PretrainState]) -> PretrainState:
        return pretrain_lane(shape, name, kinds, numbers, *state, pixels, steps[0], steps[1])

    return over_groups(train, shape, knobs, pupils, (), groups, window)


def taught(shape: ProgramConfig, lanes: LaneState, pupils: PretrainState, members: jax.Array) -> LaneState:
    """Lanes that begin with pretrained trunks.

    Args:
        shape: what is static.
        lanes: before their first step.
        pupils: after their last.
        members: [lane] bool, whose trunks are taken over.
    """

    def one(of: tuple[jax.Array, Any, Any, PretrainState]) -> tuple[Any, Any]:
        member, params, statistics, pupil = of
        head = MODELS[shape.recipe.model].head_modules(params)

        def taken(own: Any, theirs: Any) -> Any:
            return jax.tree.map(partial(jnp.where, member), with_trunk(own, theirs, head), own)

        return taken(params, pupil.params), taken(statistics, pupil.statistics)

    return lanes.beginning_with(*lax.map(one, (members, lanes.params, lanes.statistics, pupils)))
