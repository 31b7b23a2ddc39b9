"""Compiled programs of a cohort: training, evaluation, probes and pretraining, each called in one way."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.data import Task
from fishnet.host.best_effort import best_effort
from fishnet.host.machine import Device
from fishnet.host.memory import available_bytes, tree_bytes
from fishnet.sweep.program.compile import BoundProgram, GroupWindow, split_lanes
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.lane_groups import (
    LaneGroups,
    evaluate_groups,
    evaluation_capacity,
    init_lanes,
    keep_best,
    probe_groups,
    train_groups,
)
from fishnet.sweep.program.pretrain_step import PretrainState, apply_pretrained, init_pretrain, pretrain_groups
from fishnet.sweep.program.state import DeviceData, LaneState
from fishnet.sweep.program.traced_config import TracedConfig


class ProgramFunctions:
    """Jitted functions of a program; JAX keeps what they were traced to."""

    def __init__(self, config: ProgramConfig) -> None:
        self.config = config
        self.init = jax.jit(partial(init_lanes, config))
        self.train = jax.jit(partial(train_groups, config), donate_argnums=1)
        self.evaluate = jax.jit(partial(evaluate_groups, config))
        self.keep = jax.jit(keep_best, donate_argnums=0)
        self.probe = jax.jit(partial(probe_groups, config))


class PretrainFunctions:
    """Jitted functions of pretraining with one objective."""

    def __init__(self, config: ProgramConfig, objective: str) -> None:
        self.init = jax.jit(partial(init_pretrain, config, objective))
        self.train = jax.jit(partial(pretrain_groups, config, objective), donate_argnums=1)
        self.apply = jax.jit(partial(apply_pretrained, config))


def abstract_arguments(
    config: ProgramConfig, traced: TracedConfig, data: DeviceData, state: LaneState, chunks: int
) -> dict[str, tuple]:
    """Shapes of the arguments of each function of a program on a device that evaluates so many chunks of images."""
    lanes = traced.hparams.keys.shape[0]

    def array(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    work = LaneGroups(traced, data, array(lanes, config.lane_width), array(2))
    variables = state.params, state.statistics
    probed = array(config.probe_batches, config.batch_size)
    return {
        "init": (traced, data),
        "train": (work, state, array(lanes, dtype=jnp.float32), array(2)),
        "evaluate": (work, *variables, array(chunks, config.evaluation_chunk), array()),
        "probe": (work, *variables, state.lr, probed, array()),
        "keep": (state, array(lanes, dtype=jnp.bool_)),
    }


MOST_KEPT = 8  # programs whose traces a process keeps for later sweeps
_kept: dict[tuple, ProgramFunctions] = {}
_traced: dict[str, str] = {}  # digests of the user's components when they were last traced


def get_functions(config: ProgramConfig, made_of: Mapping[str, str]) -> ProgramFunctions:
    """Functions of a program, as an earlier sweep of this process has traced them, if one has.

    A trace holds the values that the user's components read when it was made. If one of them has changed since this
    process last traced it, or has not been traced here, JAX forgets all traces of the process (`jax.clear_caches`):
    those of functions inside a program, and of what the user has jitted.

    Args:
        made_of: digests of the user's components that the functions are made of, by "field=name".
    """
    if any(_traced.get(name) != now for name, now in made_of.items()):
        jax.clear_caches()
    _traced.update(made_of)
    key = (config, *made_of.items())
    _kept[key] = _kept.pop(key, None) or ProgramFunctions(config)
    for oldest in list(_kept)[:-MOST_KEPT]:
        del _kept[oldest]
    return _kept[key]


class CompiledProgram(BoundProgram):
    """Training, evaluation and probes of the lanes of a cohort.

    The state of the lanes is a list with an entry for each device; states that go into `train` and `keep` are donated.

    Args:
        traced: values of all lanes, [devices * lanes] leading, in the order of their positions.
        task: the images.
        devices: where to run; lanes are split evenly among them.
        functions: of the same program, where somebody has traced them before.
    """

    def __init__(
        self,
        config: ProgramConfig,
        traced: TracedConfig,
        task: Task,
        devices: Sequence[Device],
        functions: ProgramFunctions | None = None,
    ) -> None:
        free = partial(available_bytes, devices[0])  # before anything is there
        available = best_effort("how much memory there is", free, warnings.warn, None)
        devices = [devices[0]] * len(devices) if devices[0].platform == "cpu" else list(devices)
        train = np.asarray(task.splits["train"], np.int32)
        arrays: Any = (task.images, task.labels, train, task.mean, task.std)
        data = DeviceData(*arrays)
        placed = {device: jax.device_put(data, device) for device in dict.fromkeys(devices)}
        super().__init__(
            config, devices, split_lanes(traced, devices), [placed[device] for device in devices], available
        )
        self.functions, self.chunk = functions or ProgramFunctions(config), config.evaluation_chunk
        self.chunks = count_chunks(task, self.chunk)
        self.capacity = min(self.lanes, evaluation_capacity(config, self.chunks * self.chunk))

    def init(self) -> list[LaneState]:
        """State of all lanes before their first step."""
        return list(self.call("init", dict(enumerate(zip(self.traced, self.data, strict=True)))).values())

    def train(
        self, states: Sequence[LaneState], lr_scales: Sequence[np.ndarray], work: GroupWindow, start: int, stop: int
    ) -> list[LaneState]:
        """Trains lane groups from step `start` to step `stop` of the same epoch; the states of the devices are donated.

        `lr_scales` are factors on the learning rates of the lanes of each device, [lane] float32.
        """
        steps = np.array([start, stop], np.int32)
        arguments = {i: (self.lane_groups(work, i), states[i], lr_scales[i], steps) for i in work.devices}
        return self.update("train", states, arguments)

    def evaluate(
        self, variables: Sequence[tuple[Any, Any]], work: GroupWindow, positions: np.ndarray, chunks: int
    ) -> dict[int, np.ndarray]:
        """Logits [group, width, chunk, image, class] float32 of lane groups, by device; at most `capacity` groups each.

        Args:
            variables: parameters and running statistics of the lanes of each device.
            work: which groups.
            positions: [chunk, image] int32, which images; the first `chunks` rows are computed.
        """
        rest = positions, np.int32(chunks)
        arguments = {i: (self.lane_groups(work, i), *variables[i], *rest) for i in work.devices}
        found = self.call("evaluate", arguments)
        return {i: np.asarray(logits)[: np.diff(work.window[i])[0]] for i, logits in found.items()}

    def probe(
        self, states: Sequence[LaneState], work: GroupWindow, positions: np.ndarray, steps: int
    ) -> dict[int, dict[str, np.ndarray]]:
        """Measures of the epoch probes of lane groups that have made so many steps, by device and name.

        Each is [group, width, ...] float32, on the training images `positions` [batch, image] int32.
        """
        arguments = {}
        for i in work.devices:
            of_lanes = states[i].params, states[i].statistics, states[i].lr
            arguments[i] = (self.lane_groups(work, i), *of_lanes, positions, np.int32(steps))
        found = self.call("probe", arguments)
        return {
            i: {name: np.asarray(values)[slice(*work.window[i])] for name, values in measures.items()}
            for i, measures in found.items()
        }

    def keep(self, states: Sequence[LaneState], better: Sequence[np.ndarray]) -> list[LaneState]:
        """Keeps the evaluated variables of the lanes in `better` ([lane] bool of each device) as their best ones."""
        return self.update("keep", states, {i: (states[i], of) for i, of in enumerate(better) if of.any()})

    def arguments(self, device: int) -> dict[str, tuple]:
        """Arguments of each function on one device, or arrays of their shapes."""
        traced, data = self.traced[device], self.data[device]
        return abstract_arguments(self.config, traced, data, self.abstract_state, self.chunks)

    @cached_property
    def abstract_state(self) -> LaneState:
        """Shapes and types of the state of the lanes of one device."""
        with self._tracing:
            return self.functions.init.eval_shape(self.traced[0], self.data[0])

    @property
    def held_bytes(self) -> int:
        """Bytes that each device holds between calls beside the images."""
        return tree_bytes(self.traced[0]) + self.state_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of the lanes of a device."""
        return tree_bytes(self.abstract_state)


class PretrainProgram(BoundProgram):
    """Pretraining of the lanes of a cohort, whose program's traced values and images are used, with one objective."""

    def __init__(self, program: CompiledProgram, name: str) -> None:
        super().__init__(program.config, program.devices, program.traced, program.data, program.available)
        self.program, self.functions = program, PretrainFunctions(program.config, name)

    def init(self, lanes: Sequence[LaneState]) -> list[PretrainState]:
        """State before the first step, around the trunks of the lanes of each device."""
        return list(self.call("init", dict(enumerate(zip(self.traced, lanes, self.data, strict=True)))).values())

    def train(self, states: Sequence[PretrainState], work: GroupWindow, start: int, stop: int) -> list[PretrainState]:
        """Pretrains lane groups from step `start` to step `stop` of the same epoch; `states` are donated."""
        steps = np.array([start, stop], np.int32)
        arguments = {i: (self.lane_groups(work, i), states[i], steps) for i in work.devices}
        return self.update("train", states, arguments)

    def apply(
        self, lanes: Sequence[LaneState], states: Sequence[PretrainState], members: Sequence[np.ndarray]
    ) -> list[LaneState]:
        """Lanes of each device that begin with the pretrained trunks, where `members` ([lane] bool) says so."""
        return [self.functions.apply(*of) for of in zip(lanes, states, members, strict=True)]

    def arguments(self, device: int) -> dict[str, tuple]:
        """Arguments of each function on one device, or arrays of their shapes."""
        (work, *_), lanes = self.program.arguments(device)["train"], self.program.abstract_state
        steps = jax.ShapeDtypeStruct((2,), jnp.int32)
        return {"init": (work.traced, lanes, work.data), "train": (work, self.abstract_state, steps)}

    @cached_property
    def abstract_state(self) -> PretrainState:
        """Shapes and types of the state of the lanes of one device."""
        return self.functions.init.eval_shape(self.traced[0], self.program.abstract_state, self.data[0])

    @property
    def held_bytes(self) -> int:
        """Bytes that each device holds between calls beside the images."""
        return self.program.held_bytes + tree_bytes(self.abstract_state)

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of the lanes of a device, before pretraining."""
        return self.program.state_bytes


def count_chunks(task: Task, chunk: int) -> int:
    """Number of evaluation steps of `chunk` images for the longer of the splits that are evaluated."""
    return -(-max(len(task.splits["val"]), len(task.splits["test"])) // chunk)
