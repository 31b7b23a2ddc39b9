"""Lanes in groups: read, vectorized, trained or evaluated one group after the other, written back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from fishnet.sweep.program.build import init_lane
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.eval_step import evaluate_lane, probe_lane
from fishnet.sweep.program.state import DeviceData, Lane, LaneState
from fishnet.sweep.program.traced_config import TracedConfig
from fishnet.sweep.program.train_step import train_lane


class LaneGroups(struct.PyTreeNode):
    """Lane groups of a device that one call works on, one after the other."""

    traced: TracedConfig  # [lane, ...]
    data: DeviceData
    groups: jax.Array  # [group, width] int32, lanes by position; padding is the number of lanes
    window: jax.Array  # [2] int32, the first group to work on and the one after the last

    def run(self, config: ProgramConfig, function: Callable, arguments: tuple, i: jax.Array) -> tuple[jax.Array, Any]:
        """Calls `function(lane, *arguments)` on group `i`: the group's lanes [width] and the results [width, ...].

        At width 1 there is no `vmap`, so that every `lax.cond` and `lax.switch` stays a real branch. Wider groups share
        one unbatched set of branch ids, so that choosing an activation stays a real branch there too. Where they share
        batches they also share one set of keys: a batch and its augmentation are then computed once, and the products
        of the first layer with the batch become one. Leaves of `arguments` are of all lanes, [lane, ...].
        """
        members = lax.dynamic_index_in_dim(self.groups, i, keepdims=False)
        mine = gather(self.traced, members)
        arguments, hparams = gather(arguments, members), mine.hparams
        ids = jax.tree.map(lambda leaf: leaf[0], mine.ids)

        def run(hparams: Any, arguments: tuple) -> Any:
            return function(Lane(config, ids, hparams, self.data), *arguments)

        if config.lane_width == 1:
            result = run(*jax.tree.map(lambda leaf: leaf[0], (hparams, arguments)))
            return members, jax.tree.map(lambda leaf: leaf[None], result)
        axes = jax.tree.map(lambda _: 0, hparams)
        if config.share_batches:
            hparams, axes = hparams.replace(keys=hparams.keys[0]), axes.replace(keys=None)
        return members, jax.vmap(run, in_axes=(axes, 0))(hparams, arguments)

    def update(self, config: ProgramConfig, function: Callable, state: Any, *extra: Any) -> Any:
        """State of all lanes after `function(lane, state, *extra) -> state` on each group; leaves [lane, ...]."""

        def one_group(i: jax.Array, state: Any) -> Any:
            members, result = self.run(config, function, (state, *extra), i)
            return scatter(state, members, result)

        return lax.fori_loop(self.window[0], self.window[1], one_group, state)


def init_lanes(config: ProgramConfig, traced: TracedConfig, data: DeviceData) -> LaneState:
    """State of all lanes before their first step, made one lane at a time."""
    return lax.map(lambda own: init_lane(Lane(config, own.ids, own.hparams, data)), traced)


def train_groups(
    config: ProgramConfig, work: LaneGroups, state: LaneState, lr_scales: jax.Array, steps: jax.Array
) -> LaneState:
    """Trains lane groups from step `steps[0]` to step `steps[1]`, see `train_lane`; `lr_scales` [lane] float32."""

    def train(lane: Lane, state: LaneState, lr_scale: jax.Array) -> LaneState:
        return train_lane(lane, state, lr_scale, steps[0], steps[1])

    return work.update(config, train, state, lr_scales)


def evaluate_groups(
    config: ProgramConfig, work: LaneGroups, params: Any, statistics: Any, positions: jax.Array, chunks: jax.Array
) -> jax.Array:
    """Logits of lane groups, [group, width, chunk, image, class] float32, the first group of the window first.

    Args:
        params, statistics: variables of all lanes, [lane, ...].
        positions, chunks: as for `evaluate_lane`.
    """

    def evaluate(lane: Lane, params: Any, statistics: Any) -> jax.Array:
        return evaluate_lane(lane, params, statistics, positions, chunks)

    def one_group(i: jax.Array, logits: jax.Array) -> jax.Array:
        _, result = work.run(config, evaluate, (params, statistics), i)
        return lax.dynamic_update_index_in_dim(logits, result, i - work.window[0], 0)

    capacity = min(work.groups.shape[0], evaluation_capacity(config, positions.shape[0] * positions.shape[1]))
    empty = jnp.zeros((capacity, config.lane_width, *positions.shape, config.classes), jnp.float32)
    return lax.fori_loop(work.window[0], work.window[1], one_group, empty)


def probe_groups(
    config: ProgramConfig,
    work: LaneGroups,
    params: Any,
    statistics: Any,
    lr: jax.Array,
    positions: jax.Array,
    steps: jax.Array,
) -> dict[str, jax.Array]:
    """Measures of the epoch probes of lane groups, [group, width, ...] float32; undefined outside of the window.

    Args:
        params, statistics, lr: of the state of all lanes, [lane, ...].
        positions, steps: as for `probe_lane`.
    """

    def probe(lane: Lane, params: Any, statistics: Any, lr: jax.Array) -> dict[str, jax.Array]:
        return probe_lane(lane, params, statistics, lr, positions, steps)

    def of_group(i: jax.Array) -> dict[str, jax.Array]:
        return work.run(config, probe, (params, statistics, lr), i)[1]

    def one_group(i: jax.Array, found: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return jax.tree.map(lambda all, own: all.at[i].set(own), found, of_group(i))

    shapes = jax.eval_shape(of_group, work.window[0])
    empty = jax.tree.map(lambda leaf: jnp.zeros((work.groups.shape[0], *leaf.shape), leaf.dtype), shapes)
    return lax.fori_loop(work.window[0], work.window[1], one_group, empty)


def keep_best(state: LaneState, better: jax.Array) -> LaneState:
    """Copies the evaluated variables of the lanes in `better` ([lane] bool) into their best ones."""

    def choose(best: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (now.ndim - 1)), now, best)

    return state.replace(
        best_params=jax.tree.map(choose, state.best_params, state.evaluated),
        best_statistics=jax.tree.map(choose, state.best_statistics, state.evaluated_statistics),
    )


def evaluation_capacity(config: ProgramConfig, images: int) -> int:
    """Number of groups in one evaluation call: 32 MiB of logits a device, at least one group."""
    return max(1, 2**25 // (4 * config.lane_width * images * config.classes))


def gather(tree: Any, members: jax.Array) -> Any:
    """Reads lanes `members` [width] int32 of arrays [lane, ...]: [width, ...]; padding members read the last lane."""
    if members.shape[0] == 1:
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, members[0], 1), tree)
    return jax.tree.map(lambda leaf: leaf.at[members].get(mode="clip"), tree)


def scatter(tree: Any, members: jax.Array, lanes: Any) -> Any:
    """Writes `lanes` [width, ...] to places `members` [width] of arrays [lane, ...]; padding members write nowhere."""
    if members.shape[0] == 1:
        return jax.tree.map(lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, members[0], 0), tree, lanes)
    return jax.tree.map(lambda leaf, new: leaf.at[members].set(new, mode="drop", unique_indices=False), tree, lanes)
