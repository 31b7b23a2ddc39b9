"""Builds the model of a lane or a recipe, its initial state and its loss: names become objects here."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fishnet.augment.sampling import class_mask
from fishnet.losses import defer_weights, mixed_loss
from fishnet.models import MODELS
from fishnet.models.initial_values import match_scales, shift_biases
from fishnet.models.network import Network
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.conv_implementations import FUSED, LOWERINGS
from fishnet.nn.dropout import DROPOUTS
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.lsuv import layer_order, layer_outputs, lsuv
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norms import NORMS, NormByKind
from fishnet.nn.pooling import POOLS
from fishnet.optim.freezing import frozen_layers, frozen_mask, select_by_layer
from fishnet.optim.optimizer_state import init_optimizer_state
from fishnet.sweep.program.config import ProgramConfig, hard_class_names, layer_mask
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.state import EpochSums, Lane, LaneState, epoch_order
from fishnet.sweep.program.traced_config import BranchIds, Hyperparameters
from fishnet.sweep.program.traced_probes import init_probes
from fishnet.sweep.spec.recipe import Recipe

MODEL_OPTIONS = ("stem_stride", "block", "shortcut", "compound")  # fields that some models have
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(config: ProgramConfig, ids: BranchIds, hparams: Hyperparameters) -> Network:
    """Model of one lane: its structure follows from the static recipe fields, everything else from traced values."""
    recipe, features = config.recipe, config.features
    functions = tuple(ACTIVATIONS[name] for name in features.activation)
    act = ActivationByIndex(functions, ids.activation, hparams.act_coefficient)
    init = VarianceScaling(
        *(hparams.init_scale, hparams.init_fan, hparams.init_distribution, hparams.init_gain),
        among=features.distributions,
    )
    norms = tuple(
        NormByKind(
            hparams.norm[site], ghost=recipe.ghost_batch, pixels=features.pixel_norm, weights=features.weight_norm
        )
        for site in range(hparams.norm.shape[-1])
    )
    drops = {"dropout": hparams.scalars["dropout"], "dropping": ids.dropout}
    if features.mixed_dropout:
        drops["dropout_kind"] = hparams.dropout_kind
    if features.stochastic_depth:
        drops["stochastic_depth"] = hparams.scalars["stochastic_depth"]
    return _assemble(recipe, config.classes, config.experts, LOWERINGS[config.lowering], act, norms, init, drops)


def build_training_model(lane: Lane, statistics: Any, step: jax.Array) -> Network:
    """Model of one lane in a training step: the norms of layers that do not learn in it are frozen."""
    frozen = find_frozen_norms(lane, list(statistics), step)
    return build_model(lane.config, lane.ids, lane.hparams).clone(frozen_norms=frozen)


def fuse_layers(config: ProgramConfig, model: Network) -> Network:
    """Model whose layers are fused where the lowering can, for training and evaluation: not for second derivatives."""
    return model.clone(fused=True) if config.lowering in FUSED else model


def build_loss(lane: Lane, progress: jax.Array) -> Callable:
    """Loss of one lane, `f(logits [b, class], labels [b]) -> [b]`, after a fraction `progress` [] of its run."""
    loss = lane.hparams.loss
    weights = defer_weights(loss.class_weights, progress, lane.hparams.scalars["reweight_from"])
    families = lane.config.features.families
    return partial(mixed_loss, lane.ids.loss, numbers=loss.replace(class_weights=weights), families=families)


def init_lane(lane: Lane) -> LaneState:
    """State of one run before its first step, without the lane axis."""
    config, hparams = lane.config, lane.hparams
    features = config.features
    model = build_model(config, lane.ids, hparams)
    images = jnp.zeros((1, *config.image_shape), jnp.uint8)
    variables = model.init({"params": stream_key(hparams.keys, "init")}, images, train=False)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    params = shift_biases(params, hparams.scalars["init_bias"])
    if features.weight_norm:
        params = match_scales(params, hparams.norm)
    if features.unit_variance:
        params = scale_kernels(lane, model, params, statistics)
    zero, per_class = jnp.float32(0), jnp.zeros((config.classes,), jnp.float32)
    return LaneState(
        params=params,
        statistics=statistics,
        slots=init_optimizer_state(config.optimizers, params),
        average=params if features.average else (),
        estimated=statistics if features.precise else (),
        best_params=params,
        best_statistics=statistics,
        first_bad_step=jnp.int32(-1),
        lr=zero,
        epoch=EpochSums(jnp.int32(0), zero, jnp.int32(0), zero, zero, per_class, per_class),
        probed=init_probes(config, model, params),
    )


def scale_kernels(lane: Lane, model: Network, params: Any, statistics: Any) -> Any:
    """Parameters rescaled on the first batch to outputs of variance 1, in lanes with the initializer lsuv."""
    images = lane.data.images[epoch_order(lane, 0)[: lane.config.batch_size]]

    def run(params: Any) -> jax.Array:
        return cast(jax.Array, model.apply(lane.variables(params, statistics), images, train=False))

    layers = layer_order(lambda: run(params))
    rounds = lane.hparams.lsuv_rounds
    return lsuv(lambda params: layer_outputs(lambda: run(params)), params, layers, rounds=rounds)


def experts_of(recipe: Recipe, classes: Sequence[str]) -> tuple[int, ...]:
    """Positions of a hybrid model's hard classes among `classes`; none for other models.

    Raises:
        UsageError: a hard class that does not exist.
    """
    if recipe.model != "hybrid":
        return ()
    return tuple(np.flatnonzero(class_mask(classes, hard_class_names(recipe, classes))).tolist())


def plain_model(recipe: Recipe, classes: Sequence[str], sites: int) -> Network:
    """Model of a recipe as an ordinary Linen module with static components.

    Args:
        sites: how many norms the model has; only looked at where some layers have none.
    """
    norm = partial(NORMS["batch"], ghost=recipe.ghost_batch) if recipe.norm == "batch" else NORMS[recipe.norm]
    norms: Any = norm
    if recipe.norm_layers != "all":
        norms = tuple(norm if here else NORMS["none"] for here in layer_mask(recipe.norm_layers, sites))
    init = INITIALIZERS[recipe.init]
    act = ACTIVATIONS[recipe.activation]
    if recipe.act_coefficient != "auto" and getattr(act, "coefficient", None) is not None:
        act = dataclasses.replace(cast(Any, act), coefficient=recipe.act_coefficient)
    kind = None if recipe.dropout_kind == "plain" else DROPOUTS.index(recipe.dropout_kind)
    drops = {"dropout": recipe.dropout, "dropout_kind": kind, "stochastic_depth": recipe.stochastic_depth or None}
    experts = experts_of(recipe, classes)
    model = _assemble(recipe, len(classes), experts, lax.conv_general_dilated, act, norms, init, drops)
    frozen = frozen_norms(recipe, [f"norm_{site}" for site in range(sites)] + ["input_norm"])
    return model.clone(batch_statistics=recipe.eval_statistics == "batch", frozen_norms=frozen)


def _assemble(
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


def frozen_leaves(recipe: Recipe, params: Any) -> Any:
    """Leaves of `params` that never learn: a tree like it of Python booleans.

    Raises:
        UsageError: see `fishnet.optim.freezing.frozen_mask`.
    """
    return frozen_mask(params, freeze_patterns(recipe), MODELS[recipe.model].head_modules(params))


def freeze_patterns(recipe: Recipe) -> list[str]:
    """Patterns in a recipe's `freeze`."""
    return [] if recipe.freeze == "none" else recipe.freeze.split("+")


def frozen_norms(recipe: Recipe, norms: Collection[str]) -> dict[str, bool]:
    """Norms among `norms` that are frozen in all steps, as `Network.frozen_norms` takes them."""
    head = MODELS[recipe.model].head_modules(norms)
    return dict.fromkeys(frozen_layers(norms, freeze_patterns(recipe), head), True)


def find_frozen_norms(lane: Lane, norms: Collection[str], step: jax.Array) -> dict[str, bool | jax.Array]:
    """Norms that are frozen in a step, for good or because their layer has not begun to learn.

    Args:
        norms: names of all norms of its network.
    """
    hparams, found = lane.hparams, {}
    if lane.config.features.layer_rates:
        rates = select_by_layer(dict.fromkeys(norms, 0), hparams.norm.shape[-1], hparams.layer_rates.at(step))
        found = {name: rate == 0 for name, rate in rates.items()}
    return found | frozen_norms(lane.config.recipe, norms)


def scale_layers(lane: Lane, params: Any, step: jax.Array) -> Any | None:
    """Factor on the learning rate of each leaf in a step, exactly 0 while it is frozen; None: 1 for all, always."""
    recipe, hparams = lane.config.recipe, lane.hparams
    if recipe.freeze == "none" and not lane.config.features.layer_rates:
        return None
    layers = hparams.norm.shape[-1]
    at = hparams.layer_rates.at(step) if lane.config.features.layer_rates else [jnp.float32(1)] * (layers + 1)
    scales = select_by_layer(params, layers, at)
    return jax.tree.map(
        lambda scale, stop: jnp.zeros_like(scale) if stop else scale, scales, frozen_leaves(recipe, params)
    )
