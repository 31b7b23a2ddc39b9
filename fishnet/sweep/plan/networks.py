"""Networks of a cohort before anything is computed: their shapes, and what would not fit together."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fishnet.data import Task
from fishnet.errors import UsageError
from fishnet.pretraining import OBJECTIVES
from fishnet.sweep.plan.backbones import Trunk, transfer_trunk
from fishnet.sweep.program.build import frozen_leaves, plain_model
from fishnet.sweep.program.pretrain_step import RNGS
from fishnet.sweep.spec.fields import format_value
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.sweep import Run


def check_networks(runs: Sequence[Run], task: Task, sites: int, trunks: Mapping[str, Trunk]) -> None:
    """Refuses runs of a cohort whose networks cannot be built, cannot make a step, or do not fit their trunk.

    Args:
        runs: of the cohort.
        task: theirs.
        sites: hidden layers of their networks.
        trunks: of earlier runs, by the text in the field `trunk`.

    Raises:
        UsageError: with what does not fit.
    """
    recipe = runs[0].recipe
    check_layers(runs, sites)
    for norm, layers, pretrain in dict.fromkeys((r.recipe.norm, r.recipe.norm_layers, r.recipe.pretrain) for r in runs):
        model = plain_model(dataclasses.replace(recipe, norm=norm, norm_layers=layers), task.classes, sites)
        frozen_leaves(recipe, abstract_params(model, task))
        check_step(model, task, recipe)
        if pretrain != "none":
            trunk = model.clone(frozen_norms={})
            check_step(OBJECTIVES[pretrain](trunk=trunk), task, recipe, f"pretrain {pretrain}, ")
    for run in runs:
        if run.recipe.trunk != "none":
            model = plain_model(run.recipe, task.classes, sites)
            transfer_trunk(run.recipe, *abstract_variables(model, task), trunks[run.recipe.trunk])


def check_layers(runs: Sequence[Run], sites: int) -> None:
    """Refuses lists of layers with one that the network does not have.

    Args:
        runs: of one cohort.
        sites: hidden layers.

    Raises:
        UsageError: with how many there are.
    """
    for name, count, what in (("norm_layers", sites, "a norm"), ("max_norm_layers", sites + 1, "weights")):
        for run in runs:
            layers = getattr(run.recipe, name)
            if layers != "all" and max(layers) > count:
                raise UsageError(
                    f"{name}: {format_value(layers)!r}, but this {run.recipe.model} has {count} layers with {what}"
                )


def norm_sites(recipe: Recipe, task: Task) -> tuple[int, np.ndarray]:
    """Number of parameters of the model without norms, and the channels [site] int64 of its places for norms."""
    params = abstract_params(bare_model(recipe, task), task)
    sites = sum(name.startswith("norm_") for name in params)
    channels = np.array([params[f"norm_{site}"]["bias"].size for site in range(sites)], np.int64)
    return sum(leaf.size for leaf in jax.tree.leaves(params)), channels


def bare_model(recipe: Recipe, task: Task) -> nn.Module:
    """Model of `recipe` without norms."""
    bare = dataclasses.replace(recipe, norm="none", norm_layers="all", act_coefficient="auto")
    return plain_model(bare, task.classes, sites=0)


def abstract_params(model: nn.Module, task: Task) -> Any:
    """Shapes of the parameters of `model` on the images of `task`.

    Raises:
        UsageError: its norms do not fit its maps.
    """
    return abstract_variables(model, task)[0]


def abstract_variables(model: nn.Module, task: Task) -> tuple[Any, Any]:
    """Shapes of the parameters and of the running statistics of `model` on the images of `task`.

    Raises:
        UsageError: its norms do not fit its maps.
    """
    images = jax.ShapeDtypeStruct((1, *task.images.shape[1:]), np.uint8)
    shapes = jax.eval_shape(lambda i: model.init(jax.random.key(0), i, train=False), images)
    return shapes["params"], shapes.get("batch_stats", {})


def check_step(model: nn.Module, task: Task, recipe: Recipe, what: str = "") -> None:
    """Refuses a model that cannot make a step of training: nothing is computed.

    Args:
        model: a classifier or an objective of pretraining, with the norms of the run.
        task: whose images it sees.
        recipe: its `batch_size`, a number.
        what: precedes it in the message.

    Raises:
        UsageError: a norm over a single value, or another that does not fit a batch.
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
