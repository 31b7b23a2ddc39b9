"""What a program works on: the state of its lanes, the images, and the static part of its shape."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fishnet.optim.optimizer_state import OptimizerState
from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.probes import PROBES, Probe
from fishnet.sweep.program.features import ProgramFeatures
from fishnet.sweep.spec.recipe import Recipe


@struct.dataclass
class LaneState:
    """The state of the runs of a cohort: arrays only, each with a leading lane axis."""

    params: Any  # [lane, ...] float32
    statistics: Any  # [lane, ...] float32, running moments of batch norm, of `params`
    slots: OptimizerState  # [lane, ...] what the optimizer remembers
    average: Any  # [lane, ...] float32, the parameters to evaluate, where the menu has others than `params`; or ()
    estimated: (
        Any  # [lane, ...] float32, the moments to evaluate with, where the menu has others than `statistics`; or ()
    )
    best_params: Any  # [lane, ...] float32, at the epoch that validation selected
    best_statistics: Any  # [lane, ...] float32
    first_bad_step: jax.Array  # [lane] int32, -1 while everything was finite
    lr: jax.Array  # [lane] float32, learning rate of the last step
    epoch: "EpochSums"
    probed: Any = ()  # `ProbeState`, or () where no probe looks at steps

    @property
    def evaluated(self) -> Any:
        """The parameters to validate and keep, [lane, ...] float32."""
        return self.params if isinstance(self.average, tuple) else self.average

    @property
    def evaluated_statistics(self) -> Any:
        """Batch norm's statistics under the `evaluated` parameters, [lane, ...] float32, at the end of an epoch."""
        return self.statistics if isinstance(self.estimated, tuple) else self.estimated

    def beginning_with(self, params: Any, statistics: Any) -> "LaneState":
        """These lanes before their first step, but with other variables."""

        def copy(tree: Any) -> Any:  # a buffer that is given up twice is an error
            return jax.tree.map(jnp.copy, tree)

        return self.replace(
            params=params,
            statistics=statistics,
            average=self.average if isinstance(self.average, tuple) else copy(params),
            estimated=self.estimated if isinstance(self.estimated, tuple) else copy(statistics),
            best_params=copy(params),
            best_statistics=copy(statistics),
        )


@struct.dataclass
class EpochSums:
    """Sums over the finite steps of the current epoch."""

    steps: jax.Array  # [lane] int32
    loss: jax.Array  # [lane] float32, sum over steps of the objective
    correct: jax.Array  # [lane] int32, examples
    grad_norm: jax.Array  # [lane] float32, sum over steps of the global gradient norm, before clipping
    clipped: jax.Array  # [lane] float32, sum over steps of the share of the gradient that was clipped
    class_loss: jax.Array  # [lane, class] float32, sum over examples of the cross-entropy
    class_count: jax.Array  # [lane, class] float32, examples


@struct.dataclass
class ProbeState:
    """What probes have seen of the steps of the current epoch, and what they need for the next."""

    steps: dict[str, jax.Array]  # figure -> [lane, measurement, ...] float32, NaN until it is measured
    before: Any  # [lane, ...] the gradients of the step before a measurement, or ()
    failure: Any  # [lane, 2] int32, phase and layer of the first non-finite value, -1 for none; or ()


@struct.dataclass
class DeviceData:
    """A task's images on the device."""

    images: jax.Array  # [n, h, w, c] uint8
    labels: jax.Array  # [n] int32
    train: jax.Array  # [n_train] int32, positions in images
    mean: jax.Array  # [c] float32, of the training split
    std: jax.Array  # [c] float32


@dataclass(frozen=True)
class ProgramConfig:
    """The static part of a cohort: what its program is compiled for."""

    recipe: Recipe  # only the static fields matter
    menu: ProgramFeatures
    classes: int
    experts: tuple[int, ...]  # positions of the classes with an expert head
    image_shape: tuple[int, int, int]
    train_images: int
    lowering: str
    lane_width: int
    share_batches: bool = False  # whether the lanes of a group have one seed, and with it the same images in each step

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Those on the menu."""
        return tuple(OPTIMIZERS[name] for name in self.menu.optimizer)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training split."""
        return self.train_images // self.recipe.batch_size

    def probes(self, kind: str) -> dict[str, Probe]:
        """Those of one kind ("step", "epoch", "failure"), in the order of the recipe."""
        return {name: PROBES[name] for name in self.recipe.probes if PROBES[name].kind == kind}

    @property
    def measurements(self) -> int:
        """How often the probes of a step measure in an epoch."""
        return -(-self.steps_per_epoch // self.recipe.probe_every)

    @property
    def probe_batches(self) -> int:
        """How many batches the probes of an epoch look at."""
        images = min(self.recipe.probe_images or self.train_images, self.train_images)
        return max(1, images // self.recipe.batch_size)


def constants(mean: jax.Array, std: jax.Array) -> dict[str, Any]:
    """The collection that holds the training split's pixel statistics."""
    return {"standardize": {"mean": mean, "std": std}}
