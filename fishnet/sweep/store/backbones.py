"""Loads the networks of earlier runs that others begin from."""

from collections.abc import Iterable

import jax
import numpy as np

from fishnet.errors import UsageError, UserError
from fishnet.sweep.plan.networks import Trunk
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.trunk import parse_trunk
from fishnet.sweep.store.load import load_run


def load_trunks(recipes: Iterable[Recipe]) -> dict[str, Trunk]:
    """Loads the variables of every run that `recipes` begin from, by the text in their field `trunk`.

    Raises:
        UserError: as `load_run`.
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
