"""What a program is compiled for: the static fields of its runs, and the table entries that they name."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fishnet.augment.images import AUGMENTATIONS
from fishnet.data.corruption_spec import classes_named
from fishnet.losses import FAMILIES
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import DISTRIBUTIONS, INITIALIZERS
from fishnet.nn.norm_formulas import WEIGHT_KINDS
from fishnet.optim.clipping import CLIPPINGS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep.spec.recipe import Recipe

# Fields that change shapes or the structure of the program: runs that differ in one of them cannot share a program.
STATIC_FIELDS = (
    *("task", "image_size", "model", "widths", "depth", "stem_stride", "pool", "precision", "batch_size"),
    *("norm_position", "ghost_batch", "dropout_layers", "input_norm", "block", "shortcut", "se_reduction", "compound"),
    *("freeze", "probes", "probe_every", "probe_epochs", "probe_images"),
)
# Fields by which lanes that are vectorised together must agree, as they choose among functions.
KIND_FIELDS = ("activation", "optimizer", "augment")
# The weighting that a loss implies where none is chosen.
IMPLIED_WEIGHTING = {"class_weighted": "inverse", "class_balanced_focal": "effective"}
FOCAL = ("focal", "class_balanced_focal")


def static_key(recipe: Recipe) -> tuple:
    """What must be equal for runs to share a program: the static fields, and what sets a run apart from others.

    Args:
        recipe: without `auto`.

    Returns:
        The values of `STATIC_FIELDS`, the optimizer if it steps in its own way, the norm if its statistics have a
        shape of their own, and the classes that have an expert head; None where there is no such thing.
    """
    optimizer = OPTIMIZERS.get(recipe.optimizer)  # a saved run's may be the user's own, and not here
    own = recipe.optimizer if optimizer and optimizer.own_program else None
    norm = recipe.norm if recipe.norm == "layer_channel" else None
    experts = recipe.hard_classes if recipe.model == "hybrid" else None
    return (*(getattr(recipe, name) for name in STATIC_FIELDS), own, norm, experts)


def family(recipe: Recipe) -> str:
    """The family in `FAMILIES` that a recipe's loss belongs to."""
    return recipe.loss if recipe.loss in FAMILIES else "softmax"


@dataclass(frozen=True)
class ProgramFeatures:
    """The table entries that the lanes of a cohort choose among, and the parts they need: a program holds no others.

    There are at least two entries of each table, so that a choice is always a real branch: XLA would put a single one
    in line and fuse it with its neighbours, and a run alone would round otherwise than beside others. A part that only
    some lanes use is a conditional of its own, for the same reason.
    """

    activation: tuple[str, ...]
    optimizer: tuple[str, ...]
    augment: tuple[str, ...]
    clipping: tuple[str, ...]
    families: tuple[str, ...]  # of losses
    distributions: tuple[int, ...]  # of initial kernels, indices into `DISTRIBUTIONS`
    own_optimizer: str | None  # the one all lanes have, if it steps in its own way
    pixel_norm: bool  # whether the lanes normalise over the channels of each pixel
    weight_norm: bool  # whether some lane normalises kernels
    mixed_dropout: bool  # whether some lane drops other than single entries
    stochastic_depth: bool
    mixing: bool  # mixup, cutmix or cutout
    sampling: bool  # class-balanced
    penalties: bool  # L1 or L2 in the loss
    max_norm: bool
    average: bool  # whether some lane is evaluated at other parameters than it trains
    layer_rates: bool  # whether layers of some lane learn at other rates, or later, than its head
    hard_augment: bool  # whether some lane augments its hard classes in another way
    precise: bool  # whether some lane is evaluated with statistics that are estimated anew
    batch_evaluation: bool  # whether some lane is evaluated with the statistics of the batch at hand
    unit_variance: bool  # whether the kernels of some lane begin by being rescaled on data

    @classmethod
    def of(cls, recipes: Sequence[Recipe]) -> "ProgramFeatures":
        """What `recipes` name, in the order of the tables."""

        def used(table: Collection, *names: Any) -> tuple:
            found = set(names)
            if len(found) == 1:
                found.add(next(name for name in table if name not in found))
            return tuple(name for name in table if name in found)

        def some(*fields: str) -> bool:
            return any(getattr(recipe, field) for recipe in recipes for field in fields)

        norms = {recipe.norm for recipe in recipes}
        own = recipes[0].optimizer if OPTIMIZERS[recipes[0].optimizer].own_program else None
        return cls(
            activation=used(ACTIVATIONS, *(r.activation for r in recipes)),
            optimizer=used(OPTIMIZERS, *(r.optimizer for r in recipes)),
            augment=used(AUGMENTATIONS, *(r.augment for r in recipes), *(hard_augment(r) for r in recipes)),
            clipping=used(("none", *CLIPPINGS), *map(clipping, recipes)),
            families=used(FAMILIES, *map(family, recipes)),
            distributions=used(range(len(DISTRIBUTIONS)), *(INITIALIZERS[r.init].distribution for r in recipes)),
            own_optimizer=own,
            pixel_norm="layer_channel" in norms,
            weight_norm=not norms.isdisjoint(WEIGHT_KINDS),
            mixed_dropout=any(recipe.dropout_kind != "plain" for recipe in recipes),
            stochastic_depth=some("stochastic_depth"),
            mixing=some("mixup", "cutmix", "cutout"),
            sampling=some("class_sampling") or any(recipe.hard_sampling != 1 for recipe in recipes),
            penalties=some("l1", "l2"),
            max_norm=some("max_norm"),
            average=any(map(averages_weights, recipes)),
            layer_rates=any(
                recipe.layer_rate != 1 or recipe.unfreeze != (0,) or recipe.unfreeze_rates != (1.0,)
                for recipe in recipes
            ),
            hard_augment=any(hard_augment(recipe) != recipe.augment for recipe in recipes),
            precise=any(map(estimates_statistics, recipes)),
            batch_evaluation=any(recipe.eval_statistics == "batch" for recipe in recipes),
            unit_variance=any(INITIALIZERS[recipe.init].unit_variance for recipe in recipes),
        )


def clipping(recipe: Recipe) -> str:
    """The way in which a recipe clips gradients: a name in `CLIPPINGS`, or none."""
    return recipe.clip_by if recipe.clip else "none"


def hard_augment(recipe: Recipe) -> str:
    """The augmentation of the hard classes: a name in `AUGMENTATIONS`."""
    return recipe.augment if recipe.hard_augment == "same" else recipe.hard_augment


def averages_weights(recipe: Recipe) -> bool:
    """Whether the weights that a run evaluates are an average of those that it trains."""
    return recipe.ema > 0 or OPTIMIZERS[recipe.optimizer].evaluate is not None


def estimates_statistics(recipe: Recipe) -> bool:
    """Whether a run estimates batch norm's statistics anew at the end of each epoch.

    It does where it is asked to, and where it evaluates averaged weights: running statistics are those of the weights
    that are trained, and no average of them is what an average of weights gives rise to.
    """
    batch_norm = recipe.norm == "batch" or recipe.input_norm == "batch"
    return batch_norm and (recipe.eval_statistics == "precise" or averages_weights(recipe))


def hard_class_names(recipe: Recipe, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes in `hard_classes`, named as the task has them.

    Args:
        recipe: its `hard_classes`.
        classes: of the task.

    Raises:
        UsageError: a name that is no class, or one that is there twice.
    """
    return () if recipe.hard_classes == "none" else classes_named(recipe.hard_classes, classes)


def layer_mask(layers: tuple[int, ...] | str, count: int) -> np.ndarray:
    """Which of `count` layers are named in a recipe's list of layers from 1, or in "all": [count] bool."""
    return np.array([layers == "all" or layer + 1 in layers for layer in range(count)], bool)
