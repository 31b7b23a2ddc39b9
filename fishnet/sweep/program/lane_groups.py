"""Lanes in groups: read, vectorised, trained or evaluated one group after the other, written back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fishnet.sweep.program.state import DeviceData, LaneState, ProgramConfig
from fishnet.sweep.program.traced_config import BranchIds, Hyperparameters, TracedConfig
from fishnet.sweep.program.train_step import evaluate_lane, init_lane, probe_lane, train_lane


def init_lanes(shape: ProgramConfig, knobs: TracedConfig, pixels: DeviceData) -> LaneState:
    """The state of all lanes before their first step, made one lane at a time."""
    return lax.map(lambda k: init_lane(shape, k.kinds, k.numbers, pixels), knobs)


def vectorised(function: Callable, shape: ProgramConfig) -> Callable:
    """`function(kinds, numbers, tree)` over a group of lanes that agree in their kinds, of the width in `shape`.

    At width 1 it is called without `vmap`, so that every `lax.cond` and `lax.switch` stays a real branch. Wider
    groups share one (unbatched) set of kinds, so that choosing an activation stays a real branch there too, and where
    they have one seed one set of keys: what depends on it alone, such as a batch and its augmentation, is computed
    once, and the products of the first layer with the batch become one.
    """

    def group(kinds: BranchIds, numbers: Hyperparameters, tree: Any) -> Any:
        first = jax.tree.map(lambda kind: kind[0], kinds)
        if shape.lane_width == 1:
            result = function(first, *jax.tree.map(lambda leaf: leaf[0], (numbers, tree)))
            return jax.tree.map(lambda leaf: leaf[None], result)
        axes = jax.tree.map(lambda _: 0, numbers)
        if shape.share_batches:
            numbers, axes = numbers.replace(keys=numbers.keys[0]), axes.replace(keys=None)
        return jax.vmap(partial(function, first), in_axes=(axes, 0))(numbers, tree)

    return group


def gather(tree: Any, members: jax.Array) -> Any:
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


def scatter(tree: Any, members: jax.Array, lanes: Any) -> Any:
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
    shape: ProgramConfig,
    knobs: TracedConfig,
    lanes: LaneState,
    rates: jax.Array,
    pixels: DeviceData,
    groups: jax.Array,
    window: jax.Array,
    steps: jax.Array,
) -> LaneState:
    """Trains the lane groups in `window`, one after the other.

    Args:
        rates: [lane] float32, `rate` of `train_lane`.
        groups: [group, width] int32, lanes by position; padding is the number of lanes.
        window: [2] int32, the first group to train and the one after the last.
        steps: [2] int32, `start` and `stop` of `train_lane`.
    """

    def train(kinds: BranchIds, numbers: Hyperparameters, state: tuple[LaneState, jax.Array]) -> LaneState:
        return train_lane(shape, kinds, numbers, *state, pixels, steps[0], steps[1])

    return over_groups(train, shape, knobs, lanes, (rates,), groups, window)


def over_groups(
    function: Callable,
    shape: ProgramConfig,
    knobs: TracedConfig,
    lanes: Any,
    beside: tuple,
    groups: jax.Array,
    window: jax.Array,
) -> Any:
    """The state of lanes after `function(kinds, numbers, (lane, *beside)) -> lane`, one group after the other.

    Args:
        function: of one lane.
        shape: of the cohort.
        knobs: of all lanes.
        lanes: their state, each leaf [lane, ...].
        beside: what else the function is told of each lane, each leaf [lane, ...].
        groups, window: as for `train_groups`.
    """

    def one_group(i: jax.Array, lanes: Any) -> Any:
        members = lax.dynamic_index_in_dim(groups, i, keepdims=False)
        mine = gather(knobs, members)
        state = gather((lanes, *beside), members)
        return scatter(lanes, members, vectorised(function, shape)(mine.kinds, mine.numbers, state))

    return lax.fori_loop(window[0], window[1], one_group, lanes)


def evaluate_groups(
    shape: ProgramConfig,
    knobs: TracedConfig,
    params: Any,
    statistics: Any,
    pixels: DeviceData,
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

    def evaluate(kinds: BranchIds, numbers: Hyperparameters, variables: tuple[Any, Any]) -> jax.Array:
        return evaluate_lane(shape, kinds, numbers, *variables, pixels, positions, chunks)

    def one_group(i: jax.Array, logits: jax.Array) -> jax.Array:
        members = lax.dynamic_index_in_dim(groups, i, keepdims=False)
        mine = gather(knobs, members)
        result = vectorised(evaluate, shape)(mine.kinds, mine.numbers, gather((params, statistics), members))
        return lax.dynamic_update_index_in_dim(logits, result, i - window[0], 0)

    capacity = min(groups.shape[0], evaluation_capacity(shape, positions.shape[0] * positions.shape[1]))
    empty = jnp.zeros((capacity, shape.lane_width, *positions.shape, shape.classes), jnp.float32)
    return lax.fori_loop(window[0], window[1], one_group, empty)


def probe_groups(
    shape: ProgramConfig,
    knobs: TracedConfig,
    params: Any,
    statistics: Any,
    lr: jax.Array,
    pixels: DeviceData,
    groups: jax.Array,
    window: jax.Array,
    positions: jax.Array,
    steps: jax.Array,
) -> dict[str, jax.Array]:
    """All figures of the probes of an epoch, of the lanes of the groups in a window.

    Args:
        shape, knobs, pixels, groups, window: as for `train_groups`.
        params, statistics, lr: of all lanes, [lane, ...].
        positions, steps: as for `probe_lane`.

    Returns:
        [group, width, ...] float32 each; of groups outside of the window it means nothing.
    """

    def probe(kinds: BranchIds, numbers: Hyperparameters, state: tuple[Any, Any, jax.Array]) -> dict[str, jax.Array]:
        return probe_lane(shape, kinds, numbers, *state, pixels, positions, steps)

    def of_group(i: jax.Array) -> dict[str, jax.Array]:
        members = lax.dynamic_index_in_dim(groups, i, keepdims=False)
        mine = gather(knobs, members)
        state = gather((params, statistics, lr), members)
        return vectorised(probe, shape)(mine.kinds, mine.numbers, state)

    def one_group(i: jax.Array, figures: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return jax.tree.map(lambda all, own: all.at[i].set(own), figures, of_group(i))

    shapes = jax.eval_shape(of_group, window[0])
    empty = jax.tree.map(lambda leaf: jnp.zeros((groups.shape[0], *leaf.shape), leaf.dtype), shapes)
    return lax.fori_loop(window[0], window[1], one_group, empty)


def evaluation_capacity(shape: ProgramConfig, images: int) -> int:
    """How many groups one evaluation call holds: 32 MiB of logits a device, at least one group."""
    return max(1, 2**25 // (4 * shape.lane_width * images * shape.classes))


def keep_best(lanes: LaneState, better: jax.Array) -> LaneState:
    """Copies the current variables of some lanes into their best ones.

    Args:
        lanes: the state.
        better: [lane] bool, which lanes.
    """

    def choose(best: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (now.ndim - 1)), now, best)

    return lanes.replace(
        best_params=jax.tree.map(choose, lanes.best_params, lanes.evaluated),
        best_statistics=jax.tree.map(choose, lanes.best_statistics, lanes.evaluated_statistics),
    )
