"""Static configuration of a compiled program: the static recipe fields and the table entries that its runs use."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fishnet.augment.images import AUGMENTATIONS
from fishnet.data.corruption_spec import parse_classes
from fishnet.losses import FAMILIES
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import DISTRIBUTIONS, INITIALIZERS
from fishnet.nn.norm_formulas import WEIGHT_KINDS
from fishnet.optim.clipping import CLIPPINGS
from fishnet.optim.optimizers import OPTIMIZERS, Optimizer
from fishnet.probes import PROBES, Probe
from fishnet.sweep.spec.recipe import STATIC_FIELDS, Recipe

# The weighting that a loss implies where none is chosen.
IMPLIED_WEIGHTING = {"class_weighted": "inverse", "class_balanced_focal": "effective"}


def static_key(recipe: Recipe) -> tuple:
    """Key of the program that a run needs: its static fields, and what sets it apart from others.

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
    """Family in `FAMILIES` that a recipe's loss belongs to."""
    return recipe.loss if recipe.loss in FAMILIES else "softmax"


@dataclass(frozen=True)
class ProgramFeatures:
    """Table entries that the lanes of a program choose among, and the optional operations that some lane needs.

    Each table has at least two entries, so that the choice is always a real branch: XLA would inline a single one and
    fuse it with its neighbors, and a run alone would round differently than in a larger sweep. For the same reason an
    operation that only some lanes use is a conditional.
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
        """Table entries and operations that `recipes` need, in the order of the tables."""

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


@dataclass(frozen=True)
class ProgramConfig:
    """Static configuration of a compiled program."""

    recipe: Recipe  # only its static fields matter
    features: ProgramFeatures
    classes: int
    experts: tuple[int, ...]  # positions of the classes with an expert head
    image_shape: tuple[int, int, int]
    train_images: int
    lowering: str
    lane_width: int
    share_batches: bool = False  # whether the lanes of a group have one seed, and with it the same images in each step

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Optimizers that the lanes choose among."""
        return tuple(OPTIMIZERS[name] for name in self.features.optimizer)

    @property
    def own_optimizer(self) -> Optimizer | None:
        """Optimizer of all lanes, where it steps in its own way."""
        return OPTIMIZERS[self.features.own_optimizer] if self.features.own_optimizer else None

    @property
    def batch_size(self) -> int:
        """Images a batch, as a number also where the recipe says all."""
        return self.train_images if self.recipe.batch_size == "all" else self.recipe.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training split."""
        return self.train_images // self.batch_size

    def probes(self, kind: str) -> dict[str, Probe]:
        """Probes of one kind ("step", "epoch", "failure"), in the order of the recipe."""
        return {name: PROBES[name] for name in self.recipe.probes if PROBES[name].kind == kind}

    @property
    def evaluation_chunk(self) -> int:
        """Images of an evaluation step: about a million first-layer values, between 16 and 256."""
        height, width, _ = self.image_shape
        values = (1 if self.recipe.model == "mlp" else height * width) * self.recipe.widths[0]
        return int(np.clip(2 ** int(np.log2(max(2**20 // max(values, 1), 1))), 16, 256))

    @property
    def measurements(self) -> int:
        """Number of measurements that step probes take in an epoch."""
        return -(-self.steps_per_epoch // self.recipe.probe_every)

    @property
    def probe_batches(self) -> int:
        """Number of batches that epoch probes look at."""
        images = min(self.recipe.probe_images or self.train_images, self.train_images)
        return max(1, images // self.batch_size)


def clipping(recipe: Recipe) -> str:
    """Name in `CLIPPINGS` of the way in which a recipe clips gradients, or none."""
    return recipe.clip_by if recipe.clip else "none"


def hard_augment(recipe: Recipe) -> str:
    """Augmentation of the hard classes: a name in `AUGMENTATIONS`."""
    return recipe.augment if recipe.hard_augment == "same" else recipe.hard_augment


def averages_weights(recipe: Recipe) -> bool:
    """Tells whether a run evaluates an average of the weights that it trains."""
    return recipe.ema > 0 or OPTIMIZERS[recipe.optimizer].evaluate is not None


def estimates_statistics(recipe: Recipe) -> bool:
    """Tells whether a run estimates batch norm's statistics anew at the end of each epoch.

    It does where it is asked to, and where it evaluates averaged weights: running statistics are those of the weights
    that are trained, and no average of them is what an average of weights gives rise to.
    """
    batch_norm = recipe.norm == "batch" or recipe.input_norm == "batch"
    return batch_norm and (recipe.eval_statistics == "precise" or averages_weights(recipe))


def hard_class_names(recipe: Recipe, classes: Sequence[str]) -> tuple[str, ...]:
    """Classes in a recipe's `hard_classes`, named as the task's `classes` have them.

    Raises:
        UsageError: a name that is no class, or one that is there twice.
    """
    return () if recipe.hard_classes == "none" else parse_classes(recipe.hard_classes, classes)


def layer_mask(layers: tuple[int, ...] | str, count: int) -> np.ndarray:
    """Mask [count] bool of the layers that are named in a recipe's list of layers from 1, or in "all"."""
    return np.array([isinstance(layers, str) or layer + 1 in layers for layer in range(count)], bool)
