"""State and data of the lanes of a compiled program."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fishnet.augment.sampling import balanced_positions
from fishnet.optim.optimizer_state import OptimizerState
from fishnet.sweep.program.config import ProgramConfig
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.traced_config import BranchIds, Hyperparameters


class LaneState(struct.PyTreeNode):
    """Training state of the lanes of a program: arrays only, each with a leading lane axis."""

    params: Any  # [lane, ...] float32
    statistics: Any  # [lane, ...] float32, running moments of batch norm under `params`
    slots: OptimizerState  # [lane, ...]
    average: Any  # [lane, ...] float32, averaged parameters to evaluate; () where no lane averages
    estimated: Any  # [lane, ...] float32, moments estimated anew to evaluate with; () where no lane estimates
    best_params: Any  # [lane, ...] float32, at the epoch that validation selected
    best_statistics: Any  # [lane, ...] float32
    first_bad_step: jax.Array  # [lane] int32, -1 while everything was finite
    lr: jax.Array  # [lane] float32, learning rate of the last step
    epoch: "EpochSums"
    probed: Any = ()  # `ProbeState`; () where no probe looks at steps

    @property
    def evaluated(self) -> Any:
        """Parameters to validate and keep, [lane, ...] float32."""
        return self.params if isinstance(self.average, tuple) else self.average

    @property
    def evaluated_statistics(self) -> Any:
        """Batch norm's moments under the `evaluated` parameters, [lane, ...] float32, at the end of an epoch."""
        return self.statistics if isinstance(self.estimated, tuple) else self.estimated

    def with_initial(self, params: Any, statistics: Any) -> "LaneState":
        """Initial state with other variables, such as pretrained ones."""

        def copy(tree: Any) -> Any:  # a buffer that is donated twice is an error
            return jax.tree.map(jnp.copy, tree)

        return self.replace(
            params=params,
            statistics=statistics,
            average=self.average if isinstance(self.average, tuple) else copy(params),
            estimated=self.estimated if isinstance(self.estimated, tuple) else copy(statistics),
            best_params=copy(params),
            best_statistics=copy(statistics),
        )


class EpochSums(struct.PyTreeNode):
    """Sums over the finite steps of the current epoch."""

    steps: jax.Array  # [lane] int32
    loss: jax.Array  # [lane] float32, sum over steps of the objective
    correct: jax.Array  # [lane] int32, examples
    grad_norm: jax.Array  # [lane] float32, sum over steps of the global gradient norm, before clipping
    clipped: jax.Array  # [lane] float32, sum over steps of the fraction of the gradient that was clipped
    class_loss: jax.Array  # [lane, class] float32, sum over examples of the cross-entropy
    class_count: jax.Array  # [lane, class] float32, examples


class ProbeState(struct.PyTreeNode):
    """Measurements of the step probes in the current epoch, and what they need for the next one."""

    steps: dict[str, jax.Array]  # measure -> [lane, measurement, ...] float32, NaN until it is measured
    before: Any  # [lane, ...] gradients of the step before a measurement, or ()
    failure: Any  # [lane, 2] int32, phase and layer of the first non-finite value, -1 for none; or ()


class DeviceData(struct.PyTreeNode):
    """Images of a task on a device."""

    images: jax.Array  # [n, h, w, c] uint8
    labels: jax.Array  # [n] int32
    train: jax.Array  # [n_train] int32, positions in images
    mean: jax.Array  # [c] float32, of the training split
    std: jax.Array  # [c] float32


@dataclass(frozen=True)
class Lane:
    """One run inside a program: everything that its steps share. Nothing in it has a lane axis."""

    config: ProgramConfig
    ids: BranchIds
    hparams: Hyperparameters
    data: DeviceData

    def variables(self, params: Any, statistics: Any) -> dict[str, Any]:
        """Variables of the lane's network."""
        constants = pixel_constants(self.data.mean, self.data.std)
        return {"params": params, "batch_stats": statistics, "constants": constants}


@dataclass(frozen=True)
class TrainingLane(Lane):
    """One run in the calls of one epoch."""

    order: jax.Array  # [n_train] int32, positions of the training images in the order of the epoch
    lr_scale: jax.Array  # [] float32, factor on the learning rate that the host sets between epochs
    layers: tuple[str, ...]  # names of the network's layers; () where no probe looks at steps


def pixel_constants(mean: jax.Array, std: jax.Array) -> dict[str, Any]:
    """Collection of variables with the pixel statistics of the training split, mean and std [c]."""
    return {"standardize": {"mean": mean, "std": std}}


def epoch_order(lane: Lane, epoch: jax.Array | int) -> jax.Array:
    """Order in which an epoch (from 0) shows the training images: positions in `data.images`, [n_train] int32.

    Runs of one seed agree in it, unless they differ in class or hard sampling.
    """
    hparams, data = lane.hparams, lane.data
    shuffle = jax.random.bits(stream_key(hparams.keys, "order", epoch), data.train.shape)
    order = data.train[jnp.argsort(shuffle)]
    if lane.config.features.sampling:
        order = balanced_positions(stream_key(hparams.keys, "sample", epoch), order, data.labels, hparams.sampling)
    return order
