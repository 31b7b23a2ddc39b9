"""The recipe field `trunk`: networks that begin with all but the head of an earlier run's."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from fishnet import pretraining
from fishnet.errors import UsageError, UserError
from fishnet.models import MODELS
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.trunk import parse_trunk
from fishnet.sweep.store.checkpoint import digest
from fishnet.sweep.store.load import load_run

# A network of another norm or activation may lack these, or have them beyond what is needed.
OPTIONAL = ("norm_", "act_", "input_norm")
Trunk = Mapping[str, Any]  # `params` and `batch_stats` of the run


def load_trunks(recipes: Iterable[Recipe]) -> dict[str, Trunk]:
    """The variables of every run that `recipes` begin from, by the text in their field `trunk`.

    Raises:
        UsageError: no such run.
        UserError: no sweep there, or none that can be read; it says in which folder.
    """
    found = {}
    for text in dict.fromkeys(recipe.trunk for recipe in recipes):
        if text == "none":
            continue
        try:
            variables = load_run(*parse_trunk(text)).variables
        except UsageError as error:
            raise UsageError(f"trunk: {error}") from error
        except UserError as error:
            raise UserError(f"trunk: {error}") from error
        found[text] = {name: jax.tree.map(np.asarray, variables.get(name, {})) for name in ("params", "batch_stats")}
    return found


def own_trunk(recipe: Recipe) -> Recipe:
    """A run's recipe with the one trunk that its seed is dealt."""
    if recipe.trunk == "none":
        return recipe
    folder, run = parse_trunk(recipe.trunk, recipe.seed)
    return dataclasses.replace(recipe, trunk=f"{folder}:{run}")


def fingerprints(trunks: Mapping[str, Trunk]) -> dict[str, str]:
    """What `sweep.json` keeps of the trunks, so that a sweep goes on from the same ones only."""
    return {f"trunk {text}": digest(trunk) for text, trunk in trunks.items()}


def transfer_trunk(recipe: Recipe, params: Any, statistics: Any, trunk: Trunk) -> tuple[Any, Any]:
    """A network's variables with those of a trunk in place of its own.

    Args:
        recipe: of the network: which of its modules are its head.
        params, statistics: of the network, arrays or their shapes.
        trunk: of another run.

    Returns:
        Both, with the leaves of the trunk; norms and activations keep their own where the trunk has none.

    Raises:
        UsageError: the trunk lacks a layer, or has one of another shape.
    """
    head = MODELS[recipe.model].head_modules(params)
    try:
        return (
            pretraining.transfer_trunk(params, trunk["params"], head, OPTIONAL),
            pretraining.transfer_trunk(statistics, trunk["batch_stats"], head, OPTIONAL),
        )
    except UsageError as error:
        raise UsageError(f"trunk: {recipe.trunk!r} does not fit this {recipe.model}: {error}") from error
