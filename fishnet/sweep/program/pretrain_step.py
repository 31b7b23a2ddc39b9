"""Pretraining of one run: the trunk first learns an objective without labels, in a program of its own."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from fishnet.models import MODELS
from fishnet.optim.masks import global_norm
from fishnet.pretraining import OBJECTIVES, Objective, transfer_trunk
from fishnet.sweep.program.build import build_model
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.lane_groups import LaneGroups
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.state import DeviceData, Lane, LaneState
from fishnet.sweep.program.traced_config import TracedConfig

RNGS = ("objective", "dropout", "activation")
ADAM = optax.scale_by_adam()


class PretrainState(struct.PyTreeNode):
    """Pretraining state of lanes: arrays only, each with a leading lane axis."""

    params: Any  # [lane, ...] float32, of the objective: the trunk and what it needs beside it
    statistics: Any  # [lane, ...] float32, running moments of batch norm
    adam: Any  # [lane, ...] its two moments and its count
    steps: jax.Array  # [lane] int32, finite steps of the current epoch
    loss: jax.Array  # [lane] float32, sum over them
    solved: jax.Array  # [lane] float32, sum over them; NaN where the objective has nothing to solve
    first_bad_step: jax.Array  # [lane] int32, -1 while everything was finite


@dataclass(frozen=True)
class PretrainingLane(Lane):
    """One run in the calls of one epoch of pretraining."""

    objective: Objective  # around the trunk of the run
    order: jax.Array  # [n_train] int32, positions of the training images in the order of the epoch


def build_objective(config: ProgramConfig, name: str, traced: TracedConfig) -> Objective:
    """Objective of `OBJECTIVES` around the trunk of one lane; `traced` without the lane axis."""
    return OBJECTIVES[name](trunk=build_model(config, traced.ids, traced.hparams))


def init_pretrain(
    config: ProgramConfig, name: str, traced: TracedConfig, lanes: LaneState, data: DeviceData
) -> PretrainState:
    """State of all lanes before their first step: the trunks of `lanes`, and new parameters beside them."""

    def init(arguments: tuple[TracedConfig, Any, Any]) -> PretrainState:
        traced, params, statistics = arguments
        images = jnp.zeros((2, *config.image_shape), jnp.uint8)
        key = stream_key(traced.hparams.keys, "pretrain", 2**31 - 1)
        rngs = {stream: jax.random.fold_in(key, i) for i, stream in enumerate(("params", *RNGS))}
        variables: Any = build_objective(config, name, traced).init(rngs, images, train=False)
        own, moments = variables["params"], variables.get("batch_stats", {})
        trunk = own | {module: leaves for module, leaves in params.items() if module in own}
        return PretrainState(
            params=trunk,
            statistics=moments | {module: leaves for module, leaves in statistics.items() if module in moments},
            adam=ADAM.init(trunk),
            steps=jnp.int32(0),
            loss=jnp.float32(0),
            solved=jnp.float32(0),
            first_bad_step=jnp.int32(-1),
        )

    return lax.map(init, (traced, lanes.params, lanes.statistics))


def pretrain_groups(
    config: ProgramConfig, name: str, work: LaneGroups, state: PretrainState, steps: jax.Array
) -> PretrainState:
    """Pretrains lane groups with objective `name` from step `steps[0]` to step `steps[1]`, see `pretrain_lane`."""

    def pretrain(lane: Lane, state: PretrainState) -> PretrainState:
        return pretrain_lane(lane, name, state, steps[0], steps[1])

    return work.update(config, pretrain, state)


def pretrain_lane(lane: Lane, name: str, state: PretrainState, start: jax.Array, stop: jax.Array) -> PretrainState:
    """Pretrains one run from step `start` to step `stop` [] int32 of an epoch; its first non-finite step freezes it."""
    config, keys, train = lane.config, lane.hparams.keys, lane.data.train
    objective = build_objective(config, name, TracedConfig(lane.ids, lane.hparams))
    shuffle = jax.random.bits(stream_key(keys, "pretrain_order", start // config.steps_per_epoch), train.shape)
    lane = PretrainingLane(**vars(lane), objective=objective, order=train[jnp.argsort(shuffle)])
    fresh = start % config.steps_per_epoch == 0
    zeroed = {total: jnp.where(fresh, 0, getattr(state, total)) for total in ("steps", "loss", "solved")}
    return lax.fori_loop(start, stop, partial(pretrain_step, lane), state.replace(**zeroed))


def pretrain_step(lane: PretrainingLane, step: jax.Array, state: PretrainState) -> PretrainState:
    """Makes one step of pretraining with Adam at `pretrain_lr`, which falls to 0 along a half cosine."""
    hparams, size = lane.hparams, lane.config.batch_size
    first = (step % lane.config.steps_per_epoch) * size
    images = lane.data.images[lax.dynamic_slice(lane.order, (first,), (size,))]
    (loss, (solved, statistics)), grads = pretrain_gradients(lane, state, images, step)
    finite = (state.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(global_norm(grads))
    lr = hparams.scalars["pretrain_lr"] * 0.5 * (1 + jnp.cos(jnp.pi * step / hparams.pretrain_steps))

    def update(state: PretrainState) -> PretrainState:
        down, adam = ADAM.update(grads, state.adam, state.params)
        return state.replace(
            params=jax.tree.map(lambda p, d: p - lr * d, state.params, down),
            statistics=statistics,
            adam=adam,
            steps=state.steps + 1,
            loss=state.loss + loss,
            solved=state.solved + solved,
        )

    def freeze(state: PretrainState) -> PretrainState:
        return state.replace(first_bad_step=jnp.where(state.first_bad_step < 0, step, state.first_bad_step))

    return lax.cond(finite, update, freeze, state)


def pretrain_gradients(lane: PretrainingLane, state: PretrainState, images: jax.Array, step: jax.Array) -> Any:
    """Computes `((loss, (solved, statistics)), gradients)` of the objective on images [b, h, w, c]."""
    key = stream_key(lane.hparams.keys, "pretrain", step)
    rngs = {stream: jax.random.fold_in(key, j) for j, stream in enumerate(RNGS)}

    def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        variables = lane.variables(params, state.statistics)
        outputs, changed = lane.objective.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])
        losses, solved = outputs
        solved = jnp.float32(jnp.nan) if solved is None else solved.mean()
        return losses.mean(), (solved, changed.get("batch_stats", {}))

    return jax.value_and_grad(loss_of, has_aux=True)(state.params)


def apply_pretrained(config: ProgramConfig, lanes: LaneState, states: PretrainState, members: jax.Array) -> LaneState:
    """Lanes before their first step, those in `members` ([lane] bool) with the backbones that were pretrained."""

    def apply(arguments: tuple[jax.Array, Any, Any, PretrainState]) -> tuple[Any, Any]:
        member, params, statistics, state = arguments
        head = MODELS[config.recipe.model].head_modules(params)

        def choose(own: Any, pretrained: Any) -> Any:
            return jax.tree.map(partial(jnp.where, member), transfer_trunk(own, pretrained, head), own)

        return choose(params, state.params), choose(statistics, state.statistics)

    return lanes.with_initial(*lax.map(apply, (members, lanes.params, lanes.statistics, states)))
