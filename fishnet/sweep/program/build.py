"""Recipes name things; here the names become objects, chosen by the traced numbers of knobs.py."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from fishnet.augment.images import AUGMENTATIONS
from fishnet.augment.sampling import choose_by_class, class_mask
from fishnet.losses import defer_weights, mixed_loss
from fishnet.models import MODELS
from fishnet.models.network import Network
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.nn.dropout import DROPOUTS
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norm_formulas import KINDS, WEIGHT_KINDS
from fishnet.nn.norms import NORMS, NormByKind
from fishnet.nn.pooling import POOLS
from fishnet.nn.weight_norms import initial_scale
from fishnet.optim.clipping import CLIPPINGS, clipped_fraction, norm_factor
from fishnet.optim.constraints import l1_penalty, l2_penalty
from fishnet.optim.freezing import frozen_layers, frozen_mask, select_by_layer
from fishnet.optim.schedules import CYCLIC, SCHEDULES, with_floor, with_warmup
from fishnet.sweep.program.features import ProgramFeatures, hard_class_names, layer_mask
from fishnet.sweep.program.traced_config import BranchIds, Hyperparameters
from fishnet.sweep.spec.recipe import Recipe

MODEL_OPTIONS = ("stem_stride", "block", "shortcut", "compound")  # fields that some models have
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def lane_model(
    recipe: Recipe,
    menu: ProgramFeatures,
    classes: int,
    experts: tuple[int, ...],
    lowering: str,
    kinds: BranchIds,
    numbers: Hyperparameters,
) -> Network:
    """The model of one lane: structure from the recipe's static fields, everything else from traced knobs.

    Args:
        recipe: of the cohort.
        menu: of the cohort.
        classes: number of classes.
        experts: positions of the hard classes, for a hybrid model.
        lowering: a name in `LOWERINGS`.
        kinds, numbers: the lane's knobs, without the lane axis.
    """
    functions = tuple(ACTIVATIONS[name] for name in menu.activation)
    act = ActivationByIndex(functions, kinds.activation, numbers.act_coefficient)
    init = VarianceScaling(
        numbers.init_scale, numbers.init_fan, numbers.init_distribution, numbers.init_gain, among=menu.distributions
    )
    norms = tuple(
        NormByKind(numbers.norm[site], ghost=recipe.ghost_batch, pixels=menu.pixel_norm, weights=menu.weight_norm)
        for site in range(numbers.norm.shape[-1])
    )
    drops = {"dropout": numbers.scalars["dropout"], "dropping": kinds.dropout}
    if menu.mixed_dropout:
        drops["dropout_kind"] = numbers.dropout_kind
    if menu.stochastic_depth:
        drops["stochastic_depth"] = numbers.scalars["stochastic_depth"]
    return _build(recipe, classes, experts, LOWERINGS[lowering], act, norms, init, drops)


def with_initial_biases(numbers: Hyperparameters, params: Any) -> Any:
    """Parameters whose layers' biases start at the lane's `init_bias`; those of heads, gates and input norms at 0.

    Args:
        numbers: the lane's, without the lane axis.
        params: of the lane, as initialised.
    """

    def started(path: tuple, leaf: jax.Array) -> jax.Array:
        hidden = path[-1].key == "bias" and path[0].key.startswith(("conv_", "dense_", "norm_"))
        return leaf + numbers.scalars["init_bias"] if hidden else leaf

    return jax.tree_util.tree_map_with_path(started, params)


def with_initial_scales(menu: ProgramFeatures, numbers: Hyperparameters, params: Any) -> Any:
    """Parameters with the scales of weight norms at the lengths of the initial kernels, as if there were no norm.

    Args:
        menu: of the cohort.
        numbers: the lane's, without the lane axis.
        params: of the lane, as initialised.
    """
    if not menu.weight_norm:
        return params
    params = dict(params)
    for site in range(numbers.norm.shape[-1]):
        layer = next((name for name in (f"conv_{site}", f"dense_{site}") if name in params), None)
        if layer is None:  # a norm behind a sum, and no kernel ahead of it
            continue
        kernel = params[layer]["kernel"]
        scale = params[f"norm_{site}"]["scale"]
        for kind in WEIGHT_KINDS:
            scale = jnp.where(numbers.norm[site] == KINDS.index(kind), initial_scale(kind, kernel), scale)
        params[f"norm_{site}"] = params[f"norm_{site}"] | {"scale": scale}
    return params


def experts_of(recipe: Recipe, classes: Sequence[str]) -> tuple[int, ...]:
    """The positions of a hybrid model's hard classes; none for other models.

    Args:
        recipe: its `model` and `hard_classes`.
        classes: the task's.

    Raises:
        UsageError: a hard class that does not exist.
    """
    if recipe.model != "hybrid":
        return ()
    return tuple(np.flatnonzero(class_mask(classes, hard_class_names(recipe, classes))).tolist())


def plain_model(recipe: Recipe, classes: Sequence[str], sites: int) -> Network:
    """The same model as an ordinary Linen module with static components.

    Args:
        recipe: of the run, without `auto`.
        classes: the task's.
        sites: how many norms the model has; only looked at where some layers have none.
    """
    norm = partial(NORMS["batch"], ghost=recipe.ghost_batch) if recipe.norm == "batch" else NORMS[recipe.norm]
    norms: Any = norm
    if recipe.norm_layers != "all":
        norms = tuple(norm if here else NORMS["none"] for here in layer_mask(recipe.norm_layers, sites))
    init = INITIALIZERS[recipe.init]
    act = ACTIVATIONS[recipe.activation]
    if recipe.act_coefficient != "auto" and getattr(act, "coefficient", None) is not None:
        act = dataclasses.replace(act, coefficient=recipe.act_coefficient)
    kind = None if recipe.dropout_kind == "plain" else DROPOUTS.index(recipe.dropout_kind)
    drops = {"dropout": recipe.dropout, "dropout_kind": kind, "stochastic_depth": recipe.stochastic_depth or None}
    experts = experts_of(recipe, classes)
    model = _build(recipe, len(classes), experts, lax.conv_general_dilated, act, norms, init, drops)
    frozen = frozen_norms(recipe, [f"norm_{site}" for site in range(sites)] + ["input_norm"])
    return model.clone(batch_statistics=recipe.eval_statistics == "batch", frozen_norms=frozen)


def _build(
    recipe: Recipe,
    classes: int,
    experts: tuple[int, ...],
    conv: Callable,
    act: Any,
    norm: Any,
    init: Callable,
    drops: dict[str, Any],
) -> Network:
    model = MODELS[recipe.model]
    options = {name: getattr(recipe, name) for name in MODEL_OPTIONS if name in model.__dataclass_fields__}
    if "experts" in model.__dataclass_fields__:
        options["experts"] = experts
    return model(
        classes=classes,
        widths=recipe.widths,
        depth=recipe.depth,
        act=act,
        norm=norm,
        conv=conv,
        pool=POOLS[recipe.pool],
        kernel_init=init,
        dropout_layers=tuple(recipe.dropout_layers.split("+")),
        norm_position=recipe.norm_position,
        input_norm=recipe.input_norm,
        se_reduction=None if recipe.se_reduction == "auto" else recipe.se_reduction,
        dtype=DTYPES[recipe.precision],
        **drops,
        **options,
    )


def lane_losses(menu: ProgramFeatures, kinds: BranchIds, numbers: Hyperparameters, progress: jax.Array) -> Callable:
    """The loss of a lane, `f(logits [b, class], labels [b]) -> [b]`.

    Args:
        menu: of the cohort.
        kinds, numbers: the lane's knobs, without the lane axis.
        progress: [] float32, share of the run done.
    """
    weights = defer_weights(numbers.loss.class_weights, progress, numbers.scalars["reweight_from"])
    return partial(mixed_loss, kinds.loss, numbers=numbers.loss.replace(class_weights=weights), families=menu.families)


def augmented(
    menu: ProgramFeatures,
    kinds: BranchIds,
    numbers: Hyperparameters,
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Augments images in the lane's way, those of its hard classes in theirs.

    Args:
        menu: of the cohort.
        kinds, numbers: the lane's knobs, without the lane axis.
        key: a random key.
        images: [b, h, w, c] uint8.
        labels: [b] int32.
    """
    functions = tuple(AUGMENTATIONS[name] for name in menu.augment)
    usual = lax.switch(kinds.augment, functions, key, images)
    if not menu.hard_augment:
        return usual

    def by_class(images: jax.Array, usual: jax.Array) -> jax.Array:
        stronger = lax.switch(kinds.hard_augment, functions, key, images)
        return choose_by_class(labels, numbers.hard, stronger, usual)

    return lax.cond(kinds.hard_augment != kinds.augment, by_class, lambda images, usual: usual, images, usual)


def learning_rates(
    recipe: Recipe, menu: ProgramFeatures, numbers: Hyperparameters, params: Any, step: jax.Array
) -> Any | None:
    """The factor on the learning rate of each leaf in a step, exactly 0 while it is frozen; None: 1 for all, always.

    Args:
        recipe, menu: of the cohort.
        numbers: the lane's, without the lane axis.
        params: of the lane.
        step: [] int32.
    """
    if recipe.freeze == "none" and not menu.layer_rates:
        return None
    layers = numbers.norm.shape[-1]
    at = numbers.layer_rates.at(step) if menu.layer_rates else [jnp.float32(1)] * (layers + 1)
    rates = select_by_layer(params, layers, at)
    return jax.tree.map(lambda rate, stop: jnp.zeros_like(rate) if stop else rate, rates, frozen_leaves(recipe, params))


def frozen_leaves(recipe: Recipe, params: Any) -> Any:
    """Which leaves never learn: a tree like `params` of Python booleans.

    Raises:
        UsageError: see `fishnet.optim.freezing.frozen_mask`.
    """
    return frozen_mask(params, freeze_patterns(recipe), MODELS[recipe.model].head_modules(params))


def freeze_patterns(recipe: Recipe) -> list[str]:
    """The patterns in a recipe's `freeze`."""
    return [] if recipe.freeze == "none" else recipe.freeze.split("+")


def frozen_norms(recipe: Recipe, norms: Collection[str]) -> dict[str, bool]:
    """Which norms are frozen for good, as `Network.frozen_norms` has them.

    Args:
        recipe: of the run.
        norms: the names of all norms of its network.
    """
    head = MODELS[recipe.model].head_modules(norms)
    return dict.fromkeys(frozen_layers(norms, freeze_patterns(recipe), head), True)


def unmeasured_norms(recipe: Recipe, sites: int, measured: Collection[str]) -> list[str]:
    """Names of the batch norms that a run freezes, for good or for a time, and whose statistics nothing has measured.

    Args:
        recipe: of the run.
        sites: how many norms its network has.
        measured: names of the norms of which its trunk has statistics; empty without a trunk.
    """
    if recipe.pretrain != "none":
        return []
    here = layer_mask(recipe.norm_layers, sites) & (recipe.norm == "batch")
    norms = [f"norm_{site}" for site in np.flatnonzero(here)] + ["input_norm"] * (recipe.input_norm == "batch")
    frozen = norms if recipe.unfreeze != (0,) else frozen_norms(recipe, norms)
    return [name for name in norms if name in frozen and name not in measured]


def norms_frozen_at(
    recipe: Recipe, menu: ProgramFeatures, numbers: Hyperparameters, norms: Collection[str], step: jax.Array
) -> dict[str, bool | jax.Array]:
    """Which norms are frozen in a step, for good or because their layer has not begun to learn.

    Args:
        recipe, menu: of the cohort.
        numbers: the lane's, without the lane axis.
        norms: the names of all norms of its network.
        step: [] int32.
    """
    found: dict[str, bool | jax.Array] = {}
    if menu.layer_rates:
        rates = select_by_layer(dict.fromkeys(norms, 0), numbers.norm.shape[-1], numbers.layer_rates.at(step))
        found = {name: rate == 0 for name, rate in rates.items()}
    return found | frozen_norms(recipe, norms)


@struct.dataclass
class Clip:
    """Clipping that an update applies entry by entry, on its way: `min(max(g factor, -bound), bound)`."""

    factor: jax.Array  # [] float32
    bound: jax.Array  # [] float32
    share: jax.Array  # [] float32, of the gradient that is clipped, see `fishnet.optim.clipping`

    def __call__(self, grads: Any) -> Any:
        return jax.tree.map(lambda g: jnp.clip(g * self.factor, -self.bound, self.bound), grads)


def clipping_of(
    menu: ProgramFeatures, kinds: BranchIds, numbers: Hyperparameters, grads: Any, norm: jax.Array, params: Any
) -> tuple[Any, Clip]:
    """What a lane clips.

    Args:
        menu: of the cohort.
        kinds, numbers: the lane's knobs, without the lane axis.
        grads: a tree like `params`.
        norm: [] float32, of all gradients together.
        params: of the lane.

    Returns:
        The gradients, already clipped where that is done unit by unit, and what is left to do. Infinite limits leave
        every gradient as it is, bit for bit.
    """
    one, infinite, limit = jnp.float32(1), jnp.float32(jnp.inf), numbers.clip
    if "adaptive" in menu.clipping:
        chosen = kinds.clipping == menu.clipping.index("adaptive")
        grads, share = lax.cond(
            chosen, lambda: CLIPPINGS["adaptive"](grads, params, limit), lambda: (grads, jnp.float32(0))
        )
    else:
        share = jnp.float32(0)
    ways = {
        "none": lambda: Clip(one, infinite, jnp.float32(0)),
        "value": lambda: Clip(one, limit, clipped_fraction(grads, limit)),
        "norm": lambda: Clip(norm_factor(norm, limit), infinite, (norm > limit).astype(jnp.float32)),
        "adaptive": lambda: Clip(one, infinite, share),
    }
    return grads, lax.switch(kinds.clipping, [ways[name] for name in menu.clipping])


def add_penalties(
    menu: ProgramFeatures, numbers: Hyperparameters, loss: jax.Array, grads: Any, params: Any
) -> tuple[jax.Array, Any]:
    """The loss with the L1 and L2 penalties of the lane, and its gradients.

    Args:
        menu: of the cohort.
        numbers: the lane's, without the lane axis.
        loss: [] float32, of the data.
        grads: its gradients, a tree like `params`.
        params: of the lane.
    """
    if not menu.penalties:
        return loss, grads

    def penalised(loss: jax.Array, grads: Any, params: Any) -> tuple[jax.Array, Any]:
        term, slopes = jax.value_and_grad(
            lambda p: l1_penalty(p, numbers.scalars["l1"]) + l2_penalty(p, numbers.scalars["l2"])
        )(params)
        return loss + term, jax.tree.map(jnp.add, grads, slopes)

    wanted = (numbers.scalars["l1"] > 0) | (numbers.scalars["l2"] > 0)
    return lax.cond(wanted, penalised, lambda loss, grads, params: (loss, grads), loss, grads, params)


def rate_multiplier(numbers: Hyperparameters, progress: jax.Array) -> jax.Array:
    """What the peak learning rate is multiplied by: the lane's schedule with its warm-up and its floor.

    All schedules are computed, each is a few scalar operations.

    Args:
        numbers: the lane's, without the lane axis.
        progress: [] float32, share of the run done.
    """

    def shape(progress: jax.Array) -> jax.Array:
        values = [
            f(progress, numbers.scalars["cycles"]) if name in CYCLIC else f(progress) for name, f in SCHEDULES.items()
        ]
        return lax.select_n(numbers.schedule, *[jnp.asarray(value, jnp.float32) for value in values])

    return with_warmup(lambda p: with_floor(shape(p), numbers.lr_floor), progress, numbers.scalars["warmup"])
