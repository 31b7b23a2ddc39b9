"""One compiled program trains every lane of a cohort: lane groups -> vmap -> steps.

Lanes never talk to each other, so each device runs the same single-device program over its own lanes. A program
partitioned over devices (`shard_map`) would be simplified by XLA otherwise on two devices than on one (divisions become
products with reciprocals or stay), and a lane's last bits would depend on how many devices there are.

CPU devices are all the same one: its executions run side by side when different threads call, so that a program is
compiled once, not once a core.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from fishnet.data import Task
from fishnet.host.best_effort import best_effort
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import hold_settings
from fishnet.sweep.program.compile import compiler_options, in_background
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.lane_groups import (
    evaluate_groups,
    evaluation_capacity,
    init_lanes,
    keep_best,
    probe_groups,
    train_groups,
)
from fishnet.sweep.program.memory import OutOfMemory, available_bytes, check_memory, out_of_memory, tree_bytes
from fishnet.sweep.program.state import DeviceData, LaneState
from fishnet.sweep.program.traced_config import TracedConfig


class CompiledCalls:
    """A compiled function, called on several devices at once.

    Args:
        compiled: for each device.
        devices: as many; host arrays among the arguments are put there, the only transfer of a call.
        threads: as many as devices.
    """

    def __init__(
        self, compiled: Sequence[Callable], devices: Sequence[jax.Device], threads: ThreadPoolExecutor
    ) -> None:
        self.compiled, self.devices, self.threads = compiled, devices, threads

    def __call__(self, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        """What the function returns, by the number of the device, when all have finished.

        Args:
            arguments: by the number of the device; the others have nothing to do.

        Raises:
            OutOfMemory: the backend ran out of it.
        """

        def put(leaf: Any, device: int) -> Any:
            return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf, self.devices[device])

        @hold_settings()
        def call(device: int) -> Any:
            placed = jax.tree.map(partial(put, device=device), arguments[device])
            return jax.block_until_ready(self.compiled[device](*placed))

        try:
            return dict(zip(arguments, self.threads.map(call, arguments), strict=True))
        except jax.errors.JaxRuntimeError as error:
            if out_of_memory(error):
                raise OutOfMemory from error
            raise


class ProgramFunctions:
    """The functions of a program; what they are traced to for the same shapes is kept."""

    def __init__(self, config: ProgramConfig) -> None:
        self.config = config
        self.init = jax.jit(partial(init_lanes, config))
        self.train = jax.jit(partial(train_groups, config), donate_argnums=1)
        self.evaluate = jax.jit(partial(evaluate_groups, config))
        self.keep = jax.jit(keep_best, donate_argnums=0)
        self.probe = jax.jit(partial(probe_groups, config))


KEPT = 8  # programs whose traces a process keeps for later sweeps
_kept: dict[tuple, ProgramFunctions] = {}
_traced: dict[str, str] = {}  # the user's components, by what they were made of when they were last traced


def kept_functions(config: ProgramConfig, made_of: Mapping[str, str]) -> ProgramFunctions:
    """The functions of a program, as an earlier sweep of this process has traced them, if one has.

    A trace holds the values that the user's components read when it was made. If one of them is made of something else
    than when this process last traced it, or has not been traced here, JAX forgets all traces of the process
    (`jax.clear_caches`): those of functions inside a program, and of what the user has jitted.

    Args:
        config: of the program.
        made_of: digests of the user's components that the functions are made of, by "field=name".
    """
    if any(_traced.get(name) != now for name, now in made_of.items()):
        jax.clear_caches()
    _traced.update(made_of)
    key = (config, *made_of.items())
    _kept[key] = _kept.pop(key, None) or ProgramFunctions(config)
    for oldest in list(_kept)[:-KEPT]:
        del _kept[oldest]
    return _kept[key]


class Program:
    """The functions of a cohort and what they work on, on each of a number of devices.

    Args:
        config: of the program.
        traced: of all lanes, [devices * lanes] leading, in the order of their positions.
        task: the images.
        devices: where to run; lanes are split evenly among them.
        chunk: images an evaluation step.
        functions: of the same shape, where somebody has traced them before.
    """

    def __init__(
        self,
        config: ProgramConfig,
        traced: TracedConfig,
        task: Task,
        devices: list[jax.Device],
        chunk: int,
        functions: ProgramFunctions | None = None,
    ) -> None:
        self.config, self.chunk, self.functions = config, chunk, functions or ProgramFunctions(config)
        self.devices = [devices[0]] * len(devices) if devices[0].platform == "cpu" else devices
        self.lanes = len(traced.hparams.keys) // len(devices)
        free = partial(available_bytes, devices[0])  # before anything is there
        self.available = best_effort("how much memory there is", free, warnings.warn, None)
        self.traced = self.split(traced)
        train = np.asarray(task.splits["train"], np.int32)
        data = DeviceData(task.images, task.labels, train, task.mean, task.std)
        placed = {device: jax.device_put(data, device) for device in dict.fromkeys(self.devices)}
        self.data = [placed[device] for device in self.devices]
        self.chunks = chunks_of(task, chunk)
        self.capacity = min(self.lanes, evaluation_capacity(config, self.chunks * chunk))
        self._tracing = Lock()
        self._threads = ThreadPoolExecutor(len(devices))

    def split(self, tree: Any) -> list[Any]:
        """Host arrays with a leading axis of all lanes, by position -> one tree a device."""
        parts = [slice(i * self.lanes, (i + 1) * self.lanes) for i in range(len(self.devices))]
        return [
            jax.device_put(jax.tree.map(lambda leaf, part=part: leaf[part], tree), device)
            for part, device in zip(parts, self.devices, strict=True)
        ]

    def lower(self, name: str, device: int) -> jax.stages.Lowered:
        """The function `name` of `trace` for one of the devices, ready to be compiled."""
        return self.trace(name, device).lower()

    def trace(self, name: str, device: int) -> jax.stages.Traced:
        """The function `name` ("init", "train", "evaluate", "probe", "keep") on what one of the devices holds.

        init(traced, data) -> lanes; train(traced, lanes, rates, data, groups, window, steps) -> lanes;
        evaluate(traced, params, statistics, data, groups, window, positions, chunks) -> logits;
        probe(traced, params, statistics, lr, data, groups, window, positions, steps) -> figures;
        keep(lanes, better) -> lanes. Lanes that go in are given up.
        """
        own = partial(abstract, self.devices[device])
        traced, data = self.traced[device], self.data[device]
        lanes = jax.tree.map(lambda leaf: own(leaf.shape, leaf.dtype), self.abstract_lanes)
        groups = own((self.lanes, self.config.lane_width))
        with self._tracing:  # of one device while the others wait: what they ask for is the same and is kept
            if name == "init":
                return self.functions.init.trace(traced, data)
            elif name == "train":
                rates = own((self.lanes,), jnp.float32)
                return self.functions.train.trace(traced, lanes, rates, data, groups, own((2,)), own((2,)))
            elif name == "evaluate":
                positions = own((self.chunks, self.chunk))
                return self.functions.evaluate.trace(
                    traced, lanes.params, lanes.statistics, data, groups, own((2,)), positions, own(())
                )
            elif name == "probe":
                positions = own((self.config.probe_batches, self.config.recipe.batch_size))
                state = lanes.params, lanes.statistics, lanes.lr
                return self.functions.probe.trace(traced, *state, data, groups, own((2,)), positions, own(()))
            else:
                return self.functions.keep.trace(lanes, own((self.lanes,), jnp.bool_))

    def compile(
        self,
        lower: Mapping[str, Callable[[int], jax.stages.Lowered]],
        interrupt: Interrupt,
        beside: int = 0,
    ) -> dict[str, CompiledCalls]:
        """Compiles functions for all devices, as many times as there are different ones.

        Args:
            lower: name -> what lowers the function for a device, given its number; "init" makes a state that is on the
                device when the others are called.
            interrupt: looked at meanwhile.
            beside: bytes that each device holds beside lanes, traced and images.

        Raises:
            OutOfMemory: a call would need more than there is.
            UserError: a function could not be compiled.
        """
        numbers = {device: number for number, device in reversed(list(enumerate(self.devices)))}
        wanted = [(name, device) for name in lower for device in numbers]
        options = compiler_options(self.devices[0].platform)
        compiled = in_background([partial(lower[name], numbers[device]) for name, device in wanted], options, interrupt)
        found = dict(zip(wanted, compiled, strict=True))
        self._check_memory([(name, function) for (name, _), function in found.items()], beside)
        return {
            name: CompiledCalls([found[name, device] for device in self.devices], self.devices, self._threads)
            for name in lower
        }

    def _check_memory(self, compiled: list[tuple[str, jax.stages.Compiled]], beside: int) -> None:
        lanes, images = tree_bytes(self.abstract_lanes), tree_bytes(self.data[0])
        held = tree_bytes(self.traced[0]) + images + lanes + beside
        one_memory = self.devices[0].platform == "cpu"  # of all devices, and of the copies for checkpoints
        check = partial(
            check_memory,
            compiled,
            {name: held for name, _ in compiled if name != "init"},
            shared=images,
            lanes=lanes if one_memory else 0,
            devices=len(self.devices) if one_memory else 1,
            available=self.available,
        )
        best_effort("whether the program fits into memory", check, warnings.warn, None)

    @cached_property
    def abstract_lanes(self) -> LaneState:
        """Shapes and types of the state of the lanes of one device."""
        with self._tracing:
            return self.functions.init.eval_shape(self.traced[0], self.data[0])


def chunks_of(task: Task, chunk: int) -> int:
    """Evaluation steps of `chunk` images for the longer of the splits that are evaluated."""
    return -(-max(len(task.splits["val"]), len(task.splits["test"])) // chunk)


def abstract(device: jax.Device, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    """An array on `device` that a function is to be compiled for."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))
