"""One compiled program trains every lane of a cohort: lane groups -> vmap -> steps.

Lanes never talk to each other, so each device runs the same single-device program over its own lanes. A program
partitioned over devices (`shard_map`) would be simplified by XLA otherwise on two devices than on one (divisions become
products with reciprocals or stay), and a lane's last bits would depend on how many devices there are.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from fishnet.data import Task
from fishnet.sweep.groups import evaluate_groups, evaluation_capacity, initial_lanes, keep_best, train_groups
from fishnet.sweep.knobs import Knobs
from fishnet.sweep.lane import Lanes, Pixels, Shape


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

        init(knobs, pixels) -> lanes; train(knobs, lanes, rates, pixels, groups, window, steps) -> lanes;
        evaluate(knobs, params, statistics, pixels, groups, window, positions, chunks) -> logits;
        keep(lanes, better) -> lanes. Lanes that go in are given up.
        """
        own = partial(abstract, self.devices[device])
        knobs, pixels = self.knobs[device], self.pixels[device]
        lanes = jax.tree.map(lambda leaf: own(leaf.shape, leaf.dtype), self.abstract_lanes())
        groups = own((self.lanes, self.shape.lane_width))
        if name == "init":
            return self._init.lower(knobs, pixels)
        if name == "train":
            rates = own((self.lanes,), jnp.float32)
            return self._train.lower(knobs, lanes, rates, pixels, groups, own((2,)), own((2,)))
        if name == "evaluate":
            positions = own((self.chunks, self.chunk))
            return self._evaluate.lower(
                knobs, lanes.params, lanes.statistics, pixels, groups, own((2,)), positions, own(())
            )
        return self._keep.lower(lanes, own((self.lanes,), jnp.bool_))

    def abstract_lanes(self) -> Lanes:
        """Shapes and types of the state of the lanes of one device."""
        return jax.eval_shape(partial(initial_lanes, self.shape), self.knobs[0], self.pixels[0])


def abstract(device: jax.Device, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    """An array on `device` that a function is to be compiled for."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))
