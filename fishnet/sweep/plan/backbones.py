"""Networks that begin with the backbone, all but the head, of an earlier run: the recipe field `trunk`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fishnet import pretraining
from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.trunk import parse_trunk

# A network of another norm or activation may lack these, or have them beyond what is needed.
OPTIONAL = ("norm_", "act_", "input_norm")
Trunk = Mapping[str, Any]  # `params` and `batch_stats` of an earlier run


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
