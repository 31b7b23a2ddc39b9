"""Networks of a cohort before anything is computed: their shapes, and which could not be trained.

Checks raise a `UsageError` that names the fields and what does not fit.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fishnet import pretraining
from fishnet.checks.value_types import format_value
from fishnet.data import Task
from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.pretraining import OBJECTIVES
from fishnet.sweep.program.build import frozen_leaves, frozen_norms, plain_model
from fishnet.sweep.program.config import layer_mask
from fishnet.sweep.program.pretrain_step import RNGS
from fishnet.sweep.program.traced_config import Hyperparameters
from fishnet.sweep.program.train_step import schedule_factor
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.sweep import Run
from fishnet.sweep.spec.trunk import parse_trunk

# A network of another norm or activation may lack these, or have them beyond what is needed.
OPTIONAL = ("norm_", "act_", "input_norm")
Trunk = Mapping[str, Any]  # `params` and `batch_stats` of an earlier run


def check_networks(runs: Sequence[Run], task: Task, sites: int, trunks: Mapping[str, Trunk]) -> None:
    """Refuses runs of a cohort whose networks cannot be built, cannot make a step, or do not fit their backbone.

    The networks have `sites` hidden layers; `trunks` are those of earlier runs, by the text in the field `trunk`.
    """
    recipe = runs[0].recipe
    check_layers(runs, sites)
    for norm, layers, pretrain in dict.fromkeys((r.recipe.norm, r.recipe.norm_layers, r.recipe.pretrain) for r in runs):
        model = plain_model(dataclasses.replace(recipe, norm=norm, norm_layers=layers), task.classes, sites)
        frozen_leaves(recipe, abstract_variables(model, task)[0])
        check_step(model, task, recipe)
        if pretrain != "none":
            trunk = model.clone(frozen_norms={})
            check_step(OBJECTIVES[pretrain](trunk=trunk), task, recipe, f"pretrain {pretrain}, ")
    for run in runs:
        if run.recipe.trunk != "none":
            model = plain_model(run.recipe, task.classes, sites)
            transfer_trunk(run.recipe, *abstract_variables(model, task), trunks[run.recipe.trunk])


def check_layers(runs: Sequence[Run], sites: int) -> None:
    """Refuses lists of layers with one that the network, of `sites` hidden layers, does not have."""
    for name, count, what in (("norm_layers", sites, "a norm"), ("max_norm_layers", sites + 1, "weights")):
        for run in runs:
            layers = getattr(run.recipe, name)
            if layers != "all" and max(layers) > count:
                raise UsageError(
                    f"{name}: {format_value(layers)!r}, but this {run.recipe.model} has {count} layers with {what}"
                )


def norm_sites(recipe: Recipe, task: Task) -> tuple[int, np.ndarray]:
    """Number of parameters of the model without norms, and the channels [site] int64 of its places for norms."""
    params = abstract_variables(bare_model(recipe, task), task)[0]
    sites = sum(name.startswith("norm_") for name in params)
    channels = np.array([params[f"norm_{site}"]["bias"].size for site in range(sites)], np.int64)
    return sum(leaf.size for leaf in jax.tree.leaves(params)), channels


def bare_model(recipe: Recipe, task: Task) -> nn.Module:
    """Model of `recipe` without norms."""
    bare = dataclasses.replace(recipe, norm="none", norm_layers="all", act_coefficient="auto")
    return plain_model(bare, task.classes, sites=0)


def abstract_variables(model: nn.Module, task: Task) -> tuple[Any, Any]:
    """Shapes of the parameters and of the running statistics of `model`; refuses norms that do not fit its maps."""
    images = jax.ShapeDtypeStruct((1, *task.images.shape[1:]), np.uint8)
    shapes = jax.eval_shape(lambda i: model.init(jax.random.key(0), i, train=False), images)
    return shapes["params"], shapes.get("batch_stats", {})


def check_step(model: nn.Module, task: Task, recipe: Recipe, what: str = "") -> None:
    """Refuses a model (or an objective of pretraining) whose norms do not fit a batch; `what` precedes it in messages.

    A norm over a single value is one of these.
    """
    images = jax.ShapeDtypeStruct((recipe.batch_size, *task.images.shape[1:]), np.uint8)

    def step(images: jax.Array) -> Any:
        rngs = {name: jax.random.key(0) for name in ("params", *RNGS)}
        variables = model.init(rngs, images, train=False)
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])

    try:
        jax.eval_shape(step, images)
    except UsageError as error:
        ghosts = f", ghost_batch {recipe.ghost_batch}" if recipe.ghost_batch else ""
        raise UsageError(f"{what}model {recipe.model}, batch_size {recipe.batch_size}{ghosts}: {error}") from error


# --- networks that begin with the backbone, all but the head, of an earlier run: the recipe field `trunk` ---


def own_trunk(recipe: Recipe) -> Recipe:
    """Recipe of a run with the one backbone that belongs to its seed."""
    if recipe.trunk == "none":
        return recipe
    folder, run = parse_trunk(recipe.trunk, recipe.seed)
    return dataclasses.replace(recipe, trunk=f"{folder}:{run}")


def transfer_trunk(recipe: Recipe, params: Any, statistics: Any, trunk: Trunk) -> tuple[Any, Any]:
    """Variables of a network with those of a backbone in place of its own.

    Args:
        recipe: of the network: which of its modules are its head.
        params, statistics: of the network, arrays or their shapes.
        trunk: of another run; norms and activations that it lacks stay as they are.

    Raises:
        UsageError: the backbone lacks another layer, or has one of another shape.
    """
    head = MODELS[recipe.model].head_modules(params)
    try:
        return (
            pretraining.transfer_trunk(params, trunk["params"], head, OPTIONAL),
            pretraining.transfer_trunk(statistics, trunk["batch_stats"], head, OPTIONAL),
        )
    except UsageError as error:
        raise UsageError(f"trunk: {recipe.trunk!r} does not fit this {recipe.model}: {error}") from error


# --- runs that cannot learn ---


def check_learns(recipe: Recipe, hparams: Hyperparameters) -> None:
    """Refuses a run none of whose steps can change what its network knows of the images; `hparams` has no lane axis.

    The schedule is at 0 in every step, layers learn at rates below what float32 holds, or every image is painted over.
    """
    if recipe.cutout >= 2 * cast(int, recipe.image_size):
        raise UsageError(
            f"cutout: {recipe.cutout} is twice the image size {recipe.image_size} or more: it paints over every image"
        )
    if np.min(hparams.layer_rates.factor) < np.finfo(np.float32).tiny:
        raise UsageError(f"layer_rate: {recipe.layer_rate:g} leaves the first layer a rate below what float32 holds")
    steps = int(hparams.total_steps)
    # No schedule is at 0 in two steps that follow each other within a cycle.
    if recipe.lr_min == 0 and steps <= max(1, recipe.cycles):
        factors = jax.vmap(lambda i: schedule_factor(hparams, i / hparams.total_steps))(jnp.arange(steps))
        warm = f" and warmup {recipe.warmup:g}" if recipe.warmup else ""
        if not np.any(factors):
            raise UsageError(
                f"schedule {recipe.schedule}{warm}: the learning rate is 0 in all of the run's {steps} steps; "
                "train for more epochs or in smaller batches"
            )


def unmeasured_norms(recipe: Recipe, sites: int, measured: Collection[str]) -> list[str]:
    """Names of the batch norms that a run freezes, for good or for a time, and whose statistics nothing has measured.

    Its network has `sites` norms, and its backbone, if it has one, statistics of those named in `measured`.
    """
    if recipe.pretrain != "none":
        return []
    here = layer_mask(recipe.norm_layers, sites) & (recipe.norm == "batch")
    norms = [f"norm_{site}" for site in np.flatnonzero(here)] + ["input_norm"] * (recipe.input_norm == "batch")
    frozen = norms if recipe.unfreeze != (0,) else frozen_norms(recipe, norms)
    return [name for name in norms if name in frozen and name not in measured]
