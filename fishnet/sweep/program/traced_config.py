"""Traced values of recipes: what may differ between the lanes of a compiled program."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np
from flax import struct

from fishnet.augment.mixing import beta_table
from fishnet.augment.sampling import class_mask, sampling_weights
from fishnet.data import Task
from fishnet.losses import LossNumbers, class_weights, ldam_margins, log_priors
from fishnet.nn.dropout import DROPOUTS
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norm_formulas import KINDS
from fishnet.optim.freezing import LayerScales, layer_scales
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep.program.config import (
    IMPLIED_WEIGHTING,
    ProgramFeatures,
    clipping,
    estimates_statistics,
    family,
    hard_augment,
    hard_class_names,
    layer_mask,
)
from fishnet.sweep.program.rng import stream_keys
from fishnet.sweep.spec.recipe import SCALAR_FIELDS, Recipe, is_used

LSUV_ROUNDS = 10  # as often as a kernel is rescaled, at most; one or two do for most


class BranchIds(struct.PyTreeNode):
    """Choices among functions. Lanes that are vectorized together agree in them, so each is one real branch."""

    activation: jax.Array  # [lane] int32, position in the features
    optimizer: jax.Array  # [lane] int32, position in the features
    augment: jax.Array  # [lane] int32, position in the features
    hard_augment: jax.Array  # [lane] int32, position in the features' augmentations, for the hard classes
    clipping: jax.Array  # [lane] int32, position in the features
    loss: jax.Array  # [lane] int32, position in the features' families
    dropout: jax.Array  # [lane] bool, whether any feature is dropped


class Hyperparameters(struct.PyTreeNode):
    """Traced values that differ from lane to lane within a vectorized group."""

    keys: jax.Array  # [lane, stream, 2] uint32, see rng.py
    scalars: dict[str, jax.Array]  # recipe field -> [lane] float32 or int32: the number as the recipe has it
    act_coefficient: jax.Array  # [lane] float32, NaN for the activation's own
    norm: jax.Array  # [lane, site] int32, position in KINDS of the norm after each layer
    init_scale: jax.Array  # [lane] float32
    init_fan: jax.Array  # [lane] int32
    init_distribution: jax.Array  # [lane] int32
    init_gain: jax.Array  # [lane] float32
    lr_floor: jax.Array  # [lane] float32, lowest learning rate over peak
    clip: jax.Array  # [lane] float32, inf for none
    schedule: jax.Array  # [lane] int32, position in SCHEDULES
    total_steps: jax.Array  # [lane] float32
    loss: LossNumbers  # [lane, ...]
    max_norm: jax.Array  # [lane, layer] float32, inf for none; the head last
    layer_rates: LayerScales  # [lane, ...]
    hard: jax.Array  # [lane, class] bool
    precise: jax.Array  # [lane] bool
    batch_evaluation: jax.Array  # [lane] bool
    lsuv_rounds: jax.Array  # [lane] int32, 0 for none
    pretrain_steps: jax.Array  # [lane] float32, of the whole pretraining
    dropout_kind: jax.Array  # [lane] int32, position in DROPOUTS
    mixup: jax.Array  # [lane, 257] int32, table of shares
    cutmix: jax.Array  # [lane, 257] int32, table of shares
    sampling: jax.Array  # [lane, class] int32, weights


class TracedConfig(struct.PyTreeNode):
    """Traced per-run hyper-parameters and branch ids of a compiled program."""

    ids: BranchIds
    hparams: Hyperparameters


def trace_recipes(
    recipes: Sequence[Recipe], features: ProgramFeatures, task: Task, sites: int, steps_per_epoch: int
) -> TracedConfig:
    """Traced values of the runs of a cohort, as NumPy arrays with a leading run axis.

    Recipes (without `auto`) that differ in their seed alone are looked at once.
    """
    numbers: dict[Recipe, int] = {}
    arm = [numbers.setdefault(dataclasses.replace(recipe, seed=0), len(numbers)) for recipe in recipes]
    arms = [trace_arm(recipe, features, task, sites, steps_per_epoch) for recipe in numbers]
    traced = jax.tree.map(lambda *leaves: np.stack(leaves)[arm], *arms)
    return traced.replace(hparams=traced.hparams.replace(keys=stream_keys([recipe.seed for recipe in recipes])))


def _leaves(**values: Any) -> dict[str, Any]:
    """NumPy values for fields that programs see as arrays of JAX."""
    return values


def trace_arm(recipe: Recipe, features: ProgramFeatures, task: Task, sites: int, steps_per_epoch: int) -> TracedConfig:
    """Traced values of one resolved recipe but its keys, as NumPy scalars and vectors.

    Args:
        task: supplies the class counts of the training split.
        sites: how many norms the model has.
        steps_per_epoch: batches an epoch.
    """
    init: Any = INITIALIZERS[recipe.init]
    norm = np.where(layer_mask(recipe.norm_layers, sites), KINDS.index(recipe.norm), KINDS.index("none"))
    hard = class_mask(task.classes, hard_class_names(recipe, task.classes))
    limit = recipe.max_norm or np.inf
    counts = np.bincount(task.labels[task.splits["train"]], minlength=len(task.classes))
    return TracedConfig(
        BranchIds(
            **_leaves(
                activation=np.int32(features.activation.index(recipe.activation)),
                optimizer=np.int32(features.optimizer.index(recipe.optimizer)),
                augment=np.int32(features.augment.index(recipe.augment)),
                hard_augment=np.int32(features.augment.index(hard_augment(recipe))),
                clipping=np.int32(features.clipping.index(clipping(recipe))),
                loss=np.int32(features.families.index(family(recipe))),
                dropout=np.bool_(recipe.dropout > 0),
            )
        ),
        Hyperparameters(
            **_leaves(
                keys=np.uint32(0),  # of each run
                scalars={name: as_scalar(getattr(recipe, name)) for name in SCALAR_FIELDS},
                act_coefficient=np.float32(np.nan if recipe.act_coefficient == "auto" else recipe.act_coefficient),
                norm=np.asarray(norm, np.int32),
                init_scale=np.float32(init.scale),
                init_fan=np.int32(init.fan),
                init_distribution=np.int32(init.distribution),
                init_gain=np.float32(init.gain * recipe.init_gain),
                lr_floor=np.float32(recipe.lr_min / cast(float, recipe.lr)),
                clip=np.float32(recipe.clip or np.inf),
                schedule=np.int32(list(SCHEDULES).index(recipe.schedule)),
                total_steps=np.float32(steps_per_epoch * recipe.epochs),
                loss=loss_numbers(recipe, counts),
                max_norm=np.where(layer_mask(recipe.max_norm_layers, sites + 1), limit, np.inf).astype(np.float32),
                layer_rates=layer_scales(
                    sites, recipe.layer_rate, recipe.unfreeze, recipe.unfreeze_rates, steps_per_epoch
                ),
                hard=hard,
                precise=np.bool_(estimates_statistics(recipe)),
                batch_evaluation=np.bool_(recipe.eval_statistics == "batch"),
                pretrain_steps=np.float32(steps_per_epoch * recipe.pretrain_epochs),
                lsuv_rounds=np.int32(LSUV_ROUNDS if init.unit_variance else 0),
                dropout_kind=np.int32(DROPOUTS.index(recipe.dropout_kind)),
                mixup=beta_table(recipe.mixup),
                cutmix=beta_table(recipe.cutmix),
                sampling=sampling_weights(counts, recipe.class_sampling, np.where(hard, recipe.hard_sampling, 1.0)),
            )
        ),
    )


def as_scalar(value: int | float) -> np.int32 | np.float32:
    """A number of a recipe in the precision that programs compute in."""
    return np.int32(value) if isinstance(value, int) else np.float32(value)


def loss_numbers(recipe: Recipe, counts: np.ndarray) -> LossNumbers:
    """Numbers of a recipe's loss, where `counts` [k] are the training images of each class."""
    weighting = recipe.class_weighting
    if weighting == "none":
        weighting = IMPLIED_WEIGHTING.get(recipe.loss, "none")
    nothing = np.zeros(len(counts), np.float32)
    return LossNumbers(
        class_weights=np.asarray(class_weights(counts, weighting), np.float32),
        gamma=np.float32(recipe.focal_gamma if is_used(recipe, "focal_gamma") else 0.0),
        smoothing=np.float32(recipe.label_smoothing),
        poly=np.float32(recipe.poly_epsilon if is_used(recipe, "poly_epsilon") else 0.0),
        scale=np.float32(recipe.ldam_scale if is_used(recipe, "ldam_scale") else 1.0),
        margins=np.float32(ldam_margins(counts, recipe.ldam_margin)) if recipe.loss == "ldam" else nothing,
        offsets=np.float32(log_priors(counts, recipe.logit_tau)) if recipe.loss == "logit_adjusted" else nothing,
    )
