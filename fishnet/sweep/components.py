"""Recipes name things; here the names become objects and traced numbers. The only place that does so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from fishnet.augment import AUGMENTATIONS
from fishnet.data import Task
from fishnet.losses import class_weights
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.lowerings import LOWERINGS
from fishnet.nn.norms import KINDS, NORMS, MomentNorm
from fishnet.nn.pooling import POOLS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep.random import stream_keys
from fishnet.sweep.recipe import Recipe

# Fields that change shapes or the structure of the program: runs that differ in one of them cannot share a program.
STATIC_FIELDS = (
    *("task", "image_size", "model", "widths", "depth", "stem_stride", "pool", "precision", "batch_size"),
    "norm_position",
)
MODEL_OPTIONS = ("stem_stride",)  # fields that some models have
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True)
class Menu:
    """The table entries that the lanes of a cohort choose among: a program holds these and no others.

    There are at least two of each, so that a choice is always a real branch: XLA would put a single one in line and
    fuse it with its neighbours, and a run alone would round otherwise than beside others.
    """

    activation: tuple[str, ...]
    optimizer: tuple[str, ...]
    augment: tuple[str, ...]

    @classmethod
    def of(cls, recipes: Sequence[Recipe]) -> "Menu":
        """What `recipes` name, in the order of the tables."""

        def used(field: str, table: Mapping[str, Any]) -> tuple[str, ...]:
            names = {getattr(recipe, field) for recipe in recipes}
            if len(names) == 1:
                names.add(next(name for name in table if name not in names))
            return tuple(name for name in table if name in names)

        return cls(used("activation", ACTIVATIONS), used("optimizer", OPTIMIZERS), used("augment", AUGMENTATIONS))


@struct.dataclass
class Kinds:
    """Choices among functions. Lanes that are vectorised together agree in them, so each is one real branch."""

    activation: jax.Array  # [lane] int32, position in the menu
    optimizer: jax.Array  # [lane] int32, position in the menu
    augment: jax.Array  # [lane] int32, position in the menu
    dropout: jax.Array  # [lane] bool, whether any feature is dropped


@struct.dataclass
class Numbers:
    """Traced values that differ from lane to lane within a vectorised group."""

    keys: jax.Array  # [lane, stream, 2] uint32, see random.py
    norm: jax.Array  # [lane, site] int32, position in KINDS of the norm after each layer
    init_scale: jax.Array  # [lane] float32
    init_fan: jax.Array  # [lane] int32
    init_distribution: jax.Array  # [lane] int32
    init_gain: jax.Array  # [lane] float32
    lr: jax.Array  # [lane] float32, peak, per step
    momentum: jax.Array  # [lane] float32
    weight_decay: jax.Array  # [lane] float32
    clip: jax.Array  # [lane] float32, inf for none
    schedule: jax.Array  # [lane] int32, position in SCHEDULES
    warmup: jax.Array  # [lane] float32, fraction of the run
    total_steps: jax.Array  # [lane] float32
    class_weights: jax.Array  # [lane, class] float32
    gamma: jax.Array  # [lane] float32
    smoothing: jax.Array  # [lane] float32
    dropout: jax.Array  # [lane] float32


@struct.dataclass
class Knobs:
    """By what the lanes of one program differ."""

    kinds: Kinds
    numbers: Numbers


def knobs_of(recipe: Recipe, menu: Menu, task: Task, sites: int, steps_per_epoch: int) -> Knobs:
    """The traced values of one resolved recipe, as NumPy scalars and vectors.

    Args:
        recipe: without `auto`.
        menu: of the cohort.
        task: supplies the class counts of the training split.
        sites: how many norms the model has.
        steps_per_epoch: batches an epoch.
    """
    init = INITIALIZERS[recipe.init]
    layers = range(1, sites + 1) if recipe.norm_layers == "all" else recipe.norm_layers
    norm = [KINDS.index(recipe.norm) if site + 1 in layers else KINDS.index("none") for site in range(sites)]
    # The loss named class_weighted is cross-entropy with weights: without a choice of weights, the usual ones.
    weighting = (
        "inverse" if (recipe.loss, recipe.class_weighting) == ("class_weighted", "none") else recipe.class_weighting
    )
    counts = np.bincount(task.labels[task.splits["train"]], minlength=len(task.classes))
    return Knobs(
        Kinds(
            activation=np.int32(menu.activation.index(recipe.activation)),
            optimizer=np.int32(menu.optimizer.index(recipe.optimizer)),
            augment=np.int32(menu.augment.index(recipe.augment)),
            dropout=np.bool_(recipe.dropout > 0),
        ),
        Numbers(
            keys=stream_keys(recipe.seed),
            norm=np.asarray(norm, np.int32),
            init_scale=np.float32(init.scale),
            init_fan=np.int32(init.fan),
            init_distribution=np.int32(init.distribution),
            init_gain=np.float32(init.gain * recipe.init_gain),
            lr=np.float32(recipe.lr),
            momentum=np.float32(recipe.momentum),
            weight_decay=np.float32(recipe.weight_decay),
            clip=np.float32(recipe.clip or np.inf),
            schedule=np.int32(list(SCHEDULES).index(recipe.schedule)),
            warmup=np.float32(recipe.warmup),
            total_steps=np.float32(steps_per_epoch * recipe.epochs),
            class_weights=np.asarray(class_weights(counts, weighting), np.float32),
            gamma=np.float32(recipe.focal_gamma if recipe.loss == "focal" else 0.0),
            smoothing=np.float32(recipe.label_smoothing),
            dropout=np.float32(recipe.dropout),
        ),
    )


def lane_model(recipe: Recipe, menu: Menu, classes: int, lowering: str, kinds: Kinds, numbers: Numbers) -> nn.Module:
    """The model of one lane: structure from the recipe's static fields, everything else from traced knobs.

    Args:
        recipe: of the cohort.
        menu: of the cohort.
        classes: number of classes.
        lowering: a name in `LOWERINGS`.
        kinds, numbers: the lane's knobs, without the lane axis.
    """
    act = switch_activation(tuple(ACTIVATIONS[name] for name in menu.activation), kinds.activation)
    init = VarianceScaling(numbers.init_scale, numbers.init_fan, numbers.init_distribution, numbers.init_gain)
    norms = tuple(partial(MomentNorm, numbers.norm[site]) for site in range(numbers.norm.shape[-1]))
    return _build(recipe, classes, LOWERINGS[lowering], act, norms, init, numbers.dropout)


def plain_model(recipe: Recipe, classes: int, sites: int) -> nn.Module:
    """The same model as an ordinary Linen module with static components.

    Args:
        recipe: of the run, without `auto`.
        classes: number of classes.
        sites: how many norms the model has.
    """
    layers = range(1, sites + 1) if recipe.norm_layers == "all" else recipe.norm_layers
    norms = tuple(NORMS[recipe.norm] if site + 1 in layers else NORMS["none"] for site in range(sites))
    init = INITIALIZERS[recipe.init]
    act = ACTIVATIONS[recipe.activation]
    return _build(recipe, classes, lax.conv_general_dilated, act, norms, init, recipe.dropout)


def _build(recipe: Recipe, classes: int, conv: Callable, act: Callable, norm: Any, init: Callable, dropout: Any):
    model = MODELS[recipe.model]
    options = {name: getattr(recipe, name) for name in MODEL_OPTIONS if name in model.__dataclass_fields__}
    return model(
        classes=classes,
        widths=recipe.widths,
        depth=recipe.depth,
        act=act,
        norm=norm,
        conv=conv,
        pool=POOLS[recipe.pool],
        kernel_init=init,
        dropout=dropout,
        norm_position=recipe.norm_position,
        dtype=DTYPES[recipe.precision],
        **options,
    )


def switch_activation(functions: tuple[Callable, ...], index: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """`functions[index]` for a traced index, with the input as the only residual of its gradient.

    Plain autodiff of `lax.switch` keeps the residuals of every branch, zero-filled for those not taken; here the
    backward pass recomputes the chosen function's derivative from the input.
    """

    @jax.custom_vjp
    def act(x: jax.Array, index: jax.Array) -> jax.Array:
        return lax.switch(index, functions, x)

    def forward(x: jax.Array, index: jax.Array):
        return act(x, index), (x, index)

    def backward(residuals, cotangent: jax.Array):
        x, index = residuals
        pullbacks = [lambda x, g, f=f: jax.vjp(f, x)[1](g)[0] for f in functions]
        return lax.switch(index, pullbacks, x, cotangent), np.zeros((), jax.dtypes.float0)

    act.defvjp(forward, backward)
    return lambda x: act(x, index)


def switch_augmentation(menu: Menu, index: jax.Array, key: jax.Array, images: jax.Array) -> jax.Array:
    """Augments uint8 images [b, h, w, c] by the function at a traced position of the menu."""
    return lax.switch(index, tuple(AUGMENTATIONS[name] for name in menu.augment), key, images)


def schedule_multiplier(index: jax.Array, progress: jax.Array) -> jax.Array:
    """The schedule at a traced position of SCHEDULES; all are computed, each is a few scalar operations."""
    return lax.select_n(index, *[jnp.asarray(shape(progress), jnp.float32) for shape in SCHEDULES.values()])
