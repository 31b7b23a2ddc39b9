"""A trained run out of a sweep's folder, as a plain Linen model with its variables."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fishnet.checks.arguments import as_folder, check_whole_number, quote_value
from fishnet.data.corruption_spec import normalize_task
from fishnet.errors import UsageError, UserError
from fishnet.host.jax_settings import hold_settings
from fishnet.host.machine import visible_devices
from fishnet.source_hash.digest import describe_source, source_hash
from fishnet.sweep.plan.grouping import group_runs
from fishnet.sweep.plan.user_components import COMPONENTS
from fishnet.sweep.program.build import plain_model
from fishnet.sweep.program.state import pixel_constants
from fishnet.sweep.spec.field_parsing import coerce
from fishnet.sweep.spec.history import DIVERGED
from fishnet.sweep.spec.random_search import Samples
from fishnet.sweep.spec.recipe import Recipe, current_spelling, resolve, value_names
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.store.checkpoint import NoneSound
from fishnet.sweep.store.checkpoint_store import CHECKPOINTS, CheckpointStore, RestoredState
from fishnet.sweep.store.finished import bad_table
from fishnet.sweep.store.folder import STATEFUL, SWEEP_FILE, check_recipes, read_sweep_file

NETWORK = ("model", "activation", "norm", "pool")  # fields whose components a trained network is made of


@dataclass(frozen=True)
class LoadedRun:
    """A trained network at its selected epoch."""

    model: nn.Module  # static components; model.apply(variables, images, train=False) -> logits [b, class]
    variables: dict[str, Any]  # params, batch_stats and constants (the pixel statistics)
    classes: tuple[str, ...]
    recipe: Recipe  # without auto
    run: int


@hold_settings()
def load_run(out: str | Path, run: int = 0) -> LoadedRun:
    """Loads run number `run` of the sweep in folder `out` at its selected epoch.

    Args:
        out: an output folder.
        run: its number in `runs.parquet`.

    Returns:
        The model as an ordinary Linen module; `images` are uint8 or floats in 0..255, [b, h, w, c], at the recipe's
        image size.

    Raises:
        UsageError: no such run.
        UserError: no sweep there, no sound checkpoint, a run without a selected epoch, or a function of the user's own
            that is not in its table.
    """
    visible_devices()
    out, run = as_folder("out", out), check_whole_number("run", run)
    content = read_sweep_file(out)
    if content is None:
        raise UserError(f"{out} holds no sweep: there is no {SWEEP_FILE} in it")
    check_recipes(out, content)
    runs = sweep_of(content).runs()
    if not 0 <= run < len(runs):
        raise UsageError(f"run {quote_value(run)}: {out} has runs 0 to {len(runs) - 1}")
    check_functions(out, runs[run].recipe, content["functions"])
    recipe = resolve(runs[run].recipe)
    # A rate of its own keeps optimizers out of it, which may be unknown here.
    sizes = [dataclasses.replace(r, recipe=resolve(dataclasses.replace(r.recipe, lr=1.0))) for r in runs]
    cohorts = [[member.index for member in members] for members in group_runs(sizes).values()]
    number = next(number for number, members in enumerate(cohorts) if run in members)
    states = CheckpointStore(out, out, f"cohort_{number}", [run], content["spec_hash"])
    passed_over: list[str] = []
    tree = restore(states, content, passed_over.append).tree
    for text in passed_over:  # said only where there is another one, else the error says it all
        warnings.warn(text, stacklevel=3)
    if not tree["history"]["best_epoch"][0]:
        raise UserError(f"run {run} of {out} has no selected epoch: {why_unselected(tree['history'], recipe)}")
    params = jax.tree.map(lambda leaf: leaf[0], tree["lanes"]["best_params"])
    statistics = jax.tree.map(lambda leaf: leaf[0], tree["lanes"]["best_statistics"])
    sites = sum(name.startswith("norm_") for name in params)
    # Normalizes both names: links may have changed since training.
    classes = tuple({normalize_task(name): names for name, names in content["classes"].items()}[recipe.task])
    model = plain_model(recipe, classes, sites)
    variables = {"params": params, "batch_stats": statistics, "constants": pixel_constants(**tree["pixels"])}
    return LoadedRun(model, used_variables(model, variables, cast(int, recipe.image_size)), classes, recipe, run)


def restore(states: CheckpointStore, content: Mapping[str, Any], warn: Callable[[str], None]) -> RestoredState:
    """Reads the state of a run at its newest sound checkpoint; `content` is the `sweep.json` of its sweep.

    Raises:
        UserError: there is none; of a finished sweep, which no command goes on with, it says what is lost.
    """
    folder, why, problem = states.out / CHECKPOINTS / states.name, "is missing or empty", None
    try:
        if (found := states.restore(None, warn)) is not None:
            return found
    except NoneSound as error:
        if not content["finished"]:
            raise
        why, problem = "has no checkpoint that can be read", error
    if not content["finished"]:
        raise UserError(f"{folder} holds no checkpoint yet")
    tables = " (its tables are whole)" if bad_table(states.out, content) is None else ""
    raise UserError(
        f"the networks of this finished sweep are lost: {folder} {why}{tables}; to have them again, train the sweep "
        "again into another folder"
    ) from problem


def why_unselected(history: Mapping[str, np.ndarray], recipe: Recipe) -> str:
    """Reason in words why a run has no selected epoch, from its history as a checkpoint has it, [1, ...]."""
    if history["status"][0] == DIVERGED:
        return f"it diverged at step {int(history['first_bad_step'][0])}, before the end of its first epoch"
    if not history["epochs"][0]:
        return "it has not finished an epoch yet"
    return f"its {recipe.select_by} was undefined in every epoch"


def sweep_of(content: Mapping[str, Any]) -> Sweep:
    """Sweep that `sweep.json` describes, in today's spelling."""
    values = {name: coerce(name, current_spelling(name, value)) for name, value in content["recipe"].items()}
    axes = {name: [current_spelling(name, value) for value in values] for name, values in content["axes"].items()}
    return Sweep(Recipe(**values), axes, content["seeds"], samples=Samples.of(content.get("samples", {})))


def check_functions(out: Path, recipe: Recipe, trained: Mapping[str, str]) -> None:
    """Refuses a run that needs components which this process does not have, or which differ from those `trained` with.

    `trained` are the `functions` of its `sweep.json`.
    """
    for field, table in value_names().items():
        if (name := getattr(recipe, field)) not in table:
            raise UserError(
                f"{out} was trained with {field} {name!r}, a function of the user's own: put it in its table first, "
                "as the program that trained did"
            )
    for field in NETWORK:
        key, table = f"{field}={getattr(recipe, field)}", COMPONENTS[field]
        value = table.users().get(getattr(recipe, field))
        here = None if value is None else describe_source(value, source_hash(value, key))
        there = trained.get(key)
        if (there or "").split()[-1:] != (here or "").split()[-1:]:  # the digests, whatever the functions are called
            own = f"fishnet's own {key}"
            raise UserError(
                f"{out} was trained with {there or own}, and here it is {here or own}: with another component the "
                f"network would not give what it was trained to; {STATEFUL}"
            )


def used_variables(model: nn.Module, variables: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """`variables` without the leaves that `model` does not have, such as the scale of a norm of kind none."""
    channels = len(variables["constants"]["standardize"]["mean"])
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), np.uint8)
    wanted = jax.eval_shape(lambda i: model.init(jax.random.key(0), i, train=False), images)

    def pick(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        return {k: pick(v, found[k]) if isinstance(v, Mapping) else found[k] for k, v in wanted.items()}

    return jax.tree.map(jnp.asarray, pick(wanted, variables))
