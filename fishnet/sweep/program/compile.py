"""Functions compiled for several devices and called on all of them at once.

Lanes never talk to each other, so each device runs the same single-device program over its own lanes. XLA would
simplify a program that is partitioned over devices differently on two devices than on one, and a lane's last bits would
depend on their number. CPU devices are all the same one, whose executions run side by side when different threads call:
a program is compiled once, not once a core.
"""

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from fishnet.host.best_effort import best_effort
from fishnet.host.compile import compile_functions, compiler_options
from fishnet.host.interrupt import Interrupt
from fishnet.host.jax_settings import hold_settings
from fishnet.host.machine import Device
from fishnet.host.memory import OutOfMemory, check_memory, out_of_memory, tree_bytes
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.lane_groups import LaneGroups
from fishnet.sweep.program.state import DeviceData
from fishnet.sweep.program.traced_config import TracedConfig


@dataclass(frozen=True)
class GroupWindow:
    """Lane groups that one call works on."""

    groups: np.ndarray  # [device, group, width] int32, lanes by position; padding is the number of lanes of a device
    window: np.ndarray  # [device, 2] int32, the first group of each device and the one after the last

    @property
    def devices(self) -> list[int]:
        """Numbers of the devices that have something to do."""
        return np.flatnonzero(self.window[:, 1] > self.window[:, 0]).tolist()


class BoundProgram:
    """Functions compiled for a number of devices, bound to the traced values and images that these hold.

    Subclasses say what the functions are, what their arguments look like, and how large the state is.

    Args:
        devices: that call side by side; one of them several times on CPU.
        traced: values of the lanes of each device, [lane, ...].
        data: of each device.
        available: bytes of memory before anything was there; None: not known.
    """

    functions: Any  # jitted, as attributes

    def __init__(
        self,
        config: ProgramConfig,
        devices: list[Device],
        traced: list[TracedConfig],
        data: list[DeviceData],
        available: int | None,
    ) -> None:
        self.config, self.devices, self.traced, self.data, self.available = config, devices, traced, data, available
        self.lanes = len(traced[0].hparams.keys)
        self._compiled: dict[str, list[jax.stages.Compiled]] = {}
        self._threads = ThreadPoolExecutor(len(devices))
        self._tracing = RLock()

    def arguments(self, device: int) -> dict[str, tuple]:
        """Arguments of each function on one device, or arrays of their shapes."""
        raise NotImplementedError

    @property
    def held_bytes(self) -> int:
        """Bytes that each device holds between calls beside the images."""
        raise NotImplementedError

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of the lanes of a device, of which the host keeps copies for checkpoints."""
        raise NotImplementedError

    def trace(self, name: str, device: int = 0) -> jax.stages.Traced:
        """Traces one of the functions in `arguments` for a device."""
        sharding = SingleDeviceSharding(self.devices[device])

        def place(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        with self._tracing:  # of one device while the others wait: what they ask for is the same and is kept
            return getattr(self.functions, name).trace(*jax.tree.map(place, self.arguments(device)[name]))

    def lane_groups(self, work: GroupWindow, device: int) -> LaneGroups:
        """Groups of a device that a call works on."""
        return LaneGroups(self.traced[device], self.data[device], work.groups[device], work.window[device])

    def compile(self, names: Sequence[str], interrupt: Interrupt) -> None:
        """Compiles functions in `arguments` for all devices, as many times as there are different ones.

        Raises:
            OutOfMemory: a call would need more than there is.
            UserError: a function could not be compiled.
        """
        first = {device: number for number, device in reversed(list(enumerate(self.devices)))}
        wanted = [(name, device) for name in names for device in first]

        def lower(name: str, device: Device) -> jax.stages.Lowered:
            return self.trace(name, first[device]).lower()

        options = compiler_options(self.devices[0].platform)
        compiled = compile_functions([partial(lower, *of) for of in wanted], options, interrupt)
        found = dict(zip(wanted, compiled, strict=True))
        check = partial(self._check_memory, [(name, function) for (name, _), function in found.items()])
        best_effort("whether the program fits into memory", check, warnings.warn, None)
        self._compiled |= {name: [found[name, device] for device in self.devices] for name in names}

    def _check_memory(self, compiled: list[tuple[str, jax.stages.Compiled]]) -> None:
        images = tree_bytes(self.data[0])
        one_memory = self.devices[0].platform == "cpu"  # of all devices, and of the copies for checkpoints
        check_memory(
            compiled,
            {name: self.held_bytes + images for name, _ in compiled if name != "init"},
            shared=images,
            lanes=self.state_bytes if one_memory else 0,
            devices=len(self.devices) if one_memory else 1,
            available=self.available,
        )

    def call(self, name: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        """Calls a compiled function on several devices at once and waits for all of them.

        Host arrays among the arguments of a device are put there, the only transfer of a call.

        Raises:
            OutOfMemory: the backend ran out of it.
        """

        def put(leaf: Any, device: int) -> Any:
            return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf, self.devices[device])

        @hold_settings()
        def call(device: int) -> Any:
            placed = jax.tree.map(partial(put, device=device), arguments[device])
            return jax.block_until_ready(self._compiled[name][device](*placed))

        try:
            return dict(zip(arguments, self._threads.map(call, arguments), strict=True))
        except jax.errors.JaxRuntimeError as error:
            if out_of_memory(error):
                raise OutOfMemory from error
            raise

    def compiled(self, name: str, device: int = 0) -> jax.stages.Compiled:
        """Compiled function of one device."""
        return self._compiled[name][device]

    def update(self, name: str, states: Sequence[Any], arguments: Mapping[int, tuple]) -> list[Any]:
        """Calls a function that returns the state of a device; states of the other devices stay."""
        return list((dict(enumerate(states)) | self.call(name, arguments)).values())

    def split(self, tree: Any) -> list[Any]:
        """Host arrays with a leading axis of all lanes, by position -> one tree a device."""
        return split_lanes(tree, self.devices)


def split_lanes(tree: Any, devices: Sequence[Device]) -> list[Any]:
    """Host arrays with a leading axis of all lanes, by position -> one tree a device, on that device."""
    lanes = len(jax.tree.leaves(tree)[0]) // len(devices)
    return [
        jax.device_put(jax.tree.map(lambda leaf, i=i: leaf[i * lanes : (i + 1) * lanes], tree), device)
        for i, device in enumerate(devices)
    ]
