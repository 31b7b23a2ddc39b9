"""Refuses a sweep that cannot work, within a second: before any data is read and anything compiled."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from fishnet.data import check_task, default_image_size
from fishnet.data.corruption_spec import split_name, task_folder
from fishnet.data.paths import is_within
from fishnet.errors import UsageError
from fishnet.lookup import unknown
from fishnet.losses import LOSSES
from fishnet.models.efficientnet import compound_resolution
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.norm_formulas import KINDS, WEIGHT_KINDS
from fishnet.nn.norms import NORMS
from fishnet.optim.freezing import check_stages
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.probes import PROBES
from fishnet.sweep.program.config import hard_class_names
from fishnet.sweep.spec.effects import check_data_options, check_stopping, check_uses
from fishnet.sweep.spec.field_parsing import TRUNK, format_value
from fishnet.sweep.spec.limits import MOST_LAYERS, MOST_WIDTH, check_epochs
from fishnet.sweep.spec.recipe import Recipe
from fishnet.sweep.spec.rules import (
    DROPOUT_LAYERS,
    NAMES,
    PHOTOGRAPHS,
    RANGES,
    RESIDUAL,
    TRAINABLE_LOSSES,
    of_kind,
)
from fishnet.sweep.spec.sweep import Sweep

AUTO_AUGMENT = ("flip_shift", "none")  # of photographs, of all else


def check_sweep(
    sweep: Sweep, data_dir: str | os.PathLike | None = None, group_regex: str | None = None, strict: bool = False
) -> None:
    """Checks every run's recipe and its task, and that everything that was asked for has an effect.

    Raises:
        UsageError: a name, value or combination that makes no sense; the message repeats it and lists valid ones.
        UserError: a task whose files are missing.
    """
    fixed = {name: [getattr(sweep.recipe, name)] for name in NAMES.keys() | RANGES.keys()}
    drawn = {name: domain.ends for name, domain in sweep.samples.space.items()}
    for name, values in [*fixed.items(), *sweep.axes.items(), *drawn.items()]:
        for value in values:
            _check_field(name, value)
    check_epochs(len(sweep.arms()) * len(sweep.seeds), max(sweep.varied.get("epochs", [sweep.recipe.epochs])))
    seen, classes = set(), {}
    for arm in sweep.arms():
        recipe = dataclasses.replace(sweep.recipe, **arm)
        check_recipe(recipe)
        if (recipe.task, recipe.image_size) not in seen:
            seen.add((recipe.task, recipe.image_size))
            size = None if recipe.image_size == "auto" else recipe.image_size
            classes[recipe.task] = check_task(recipe.task, size, data_dir=data_dir, group_regex=group_regex)
    check_uses(sweep)
    check_stopping(sweep)
    check_data_options(sweep, data_dir, strict)
    for arm in sweep.arms():
        recipe = dataclasses.replace(sweep.recipe, **arm)
        if classes[recipe.task] is not None:
            hard_class_names(recipe, classes[recipe.task])


def check_out(sweep: Sweep, out: str | Path) -> None:
    """Refuses an output folder within a folder of photographs: its files would be taken for photographs, or a class.

    Raises:
        UsageError: that, or the photographs are within the output folder, beside its own files.
    """
    tasks = {sweep.recipe.task, *sweep.varied.get("task", ())}
    for folder in filter(None, map(task_folder, sorted(tasks))):
        if is_within(out, folder) or any(is_within(out, link) for link in links_in(folder)):
            raise UsageError(
                f"the output folder {out} is within the photographs of {folder}, where the next run would take it for "
                "a class: choose an --out elsewhere"
            )
        if is_within(folder, out):
            raise UsageError(f"the photographs of {folder} are within the output folder {out}: choose another --out")


def links_in(folder: str) -> list[str]:
    """What lies in a folder and is a link; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_symlink()]
    except OSError:  # a task whose folder is missing or cannot be read is refused elsewhere, with the reason
        return []


def check_recipe(recipe: Recipe) -> None:
    """Checks the values of one recipe and their combination, not its task's files.

    Raises:
        UsageError: see `check_sweep`.
    """
    for name in NAMES.keys() | RANGES.keys():
        _check_field(name, getattr(recipe, name))
    if not all(1 <= width <= MOST_WIDTH for width in recipe.widths):
        which = "below 1" if min(recipe.widths) < 1 else f"above {MOST_WIDTH}"
        raise UsageError(f"widths: {format_value(recipe.widths)!r} has a width {which}")
    if len(recipe.widths) * recipe.depth > MOST_LAYERS:
        raise UsageError(
            f"widths, depth: {len(recipe.widths)} stages of depth {recipe.depth} are more than {MOST_LAYERS} layers"
        )
    if recipe.norm == "group" and any(width % 8 for width in recipe.widths):
        raise UsageError(f"norm group: its 8 groups do not divide every width of {format_value(recipe.widths)!r}")
    if recipe.norm == "instance" and recipe.model == "mlp":
        raise UsageError("norm instance with model mlp: one value has no variance; choose any other norm")
    if recipe.norm in WEIGHT_KINDS and INITIALIZERS[recipe.init].unit_variance:
        raise UsageError(f"init {recipe.init} with norm {recipe.norm}: the norm takes the kernels' lengths away again")
    if recipe.norm in WEIGHT_KINDS and recipe.norm_position == "post":
        raise UsageError(f"norm {recipe.norm} with norm_position post: it acts on the kernel, ahead of any activation")
    if recipe.batch_size == 1 and (recipe.mixup or recipe.cutmix):
        raise UsageError("mixup and cutmix with batch_size 1: they would mix each image with itself")
    if recipe.batch_size != "all":
        check_ghosts(recipe, recipe.batch_size)
    # These three are formulas in the lanes of a program, so a table's further entries have no place there.
    for field, table in (("norm", NORMS), ("loss", LOSSES)):
        if (name := getattr(recipe, field)) in table.original and not table.is_own(name):
            raise UsageError(f"{field} {name!r} was replaced in its table, but a sweep has a formula of its own for it")
    if recipe.norm not in KINDS:
        raise UsageError(f"norm {recipe.norm!r} cannot be trained in a sweep: valid are {', '.join(KINDS)}")
    if recipe.loss not in TRAINABLE_LOSSES:
        raise UsageError(f"loss {recipe.loss!r} cannot be trained in a sweep: valid are {', '.join(TRAINABLE_LOSSES)}")
    if not isinstance(INITIALIZERS[recipe.init], VarianceScaling):
        raise UsageError(f"init {recipe.init!r} cannot be used in a sweep: it is not a VarianceScaling")
    if recipe.norm_layers != "all" and min(recipe.norm_layers) < 1:
        raise UsageError(f"norm_layers: {format_value(recipe.norm_layers)!r} has a layer below 1; layers count from 1")
    if recipe.stem_stride > 1 and recipe.model not in RESIDUAL:
        models = " and ".join(RESIDUAL)
        raise UsageError(f"stem_stride: {recipe.stem_stride} with model {recipe.model}: only {models} have such a stem")
    layers = recipe.dropout_layers.split("+")
    for layer in layers:
        if layer not in DROPOUT_LAYERS:
            raise unknown("dropout_layers", layer, DROPOUT_LAYERS)
    if recipe.model == "mlp" and "blocks" in layers:
        raise UsageError("dropout_layers: 'blocks' with model mlp: it has dense layers only")
    if recipe.stochastic_depth and recipe.model not in RESIDUAL:
        raise UsageError(
            f"stochastic_depth: {recipe.stochastic_depth:g} with model {recipe.model}: only {' and '.join(RESIDUAL)} "
            "have branches to leave out"
        )
    if recipe.stochastic_depth and recipe.shortcut == "none":
        raise UsageError(f"stochastic_depth: {recipe.stochastic_depth:g} with shortcut none: nothing would go past")
    if recipe.block == "preactivation" and recipe.norm_position == "post":
        raise UsageError("block preactivation with norm_position post: its norms stand before the activations")
    if recipe.block == "preactivation" and recipe.norm in WEIGHT_KINDS:
        raise UsageError(
            f"norm {recipe.norm} with block preactivation: its norms stand behind sums, not behind kernels"
        )
    if recipe.model == "mlp" and recipe.se_reduction not in ("auto", 0):
        raise UsageError(f"se_reduction: {recipe.se_reduction} with model mlp: it has no maps")
    if recipe.model == "hybrid" and recipe.hard_classes == "none":
        raise UsageError("model hybrid needs hard_classes: the classes that its expert head is for")
    if recipe.max_norm_layers != "all" and min(recipe.max_norm_layers) < 1:
        layers = format_value(recipe.max_norm_layers)
        raise UsageError(f"max_norm_layers: {layers!r} has a layer below 1; layers count from 1")
    check_stages(recipe.layer_rate, recipe.unfreeze, recipe.unfreeze_rates)
    if recipe.unfreeze[-1] >= recipe.epochs:
        raise UsageError(
            f"unfreeze: {format_value(recipe.unfreeze)!r} ends beyond the run: epochs {recipe.epochs} count from 0"
        )
    layered = recipe.layer_rate != 1 or recipe.unfreeze != (0,) or recipe.unfreeze_rates != (1.0,)
    if recipe.optimizer == "schedule_free" and (layered or recipe.freeze != "none"):
        raise UsageError(
            "optimizer schedule_free with freeze, unfreeze or layer_rate: it evaluates an average of whole steps"
        )
    if recipe.trunk != "none":
        parse_trunk(recipe.trunk)
    for probe in recipe.probes:
        if probe not in PROBES:
            raise unknown("probe", probe, PROBES)
        if recipe.probes.count(probe) > 1:
            raise UsageError(f"probes: {format_value(recipe.probes)!r} has {probe} twice")
    if recipe.probe_epochs > recipe.epochs:
        for probe in of_kind("epoch", recipe.probes):
            raise UsageError(
                f"probe_epochs: {recipe.probe_epochs} is more than epochs {recipe.epochs}: {probe} would never be taken"
            )
    lr = OPTIMIZERS[recipe.optimizer].default_lr if recipe.lr == "auto" else recipe.lr
    if recipe.lr_min > lr:
        raise UsageError(f"lr_min: {recipe.lr_min:g} is above lr {lr:g}")
    if recipe.patience >= recipe.epochs and recipe.patience:
        raise UsageError(f"patience {recipe.patience} is not below epochs {recipe.epochs}: it could never end a run")


def check_ghosts(recipe: Recipe, batch_size: int) -> None:
    """Checks that a batch can be cut into the recipe's ghost batches.

    Raises:
        UsageError: they do not divide it.
    """
    if recipe.ghost_batch and batch_size % recipe.ghost_batch:
        raise UsageError(f"ghost_batch: {recipe.ghost_batch} does not divide batch_size {batch_size}")


def parse_trunk(text: str, seed: int = 0) -> tuple[Path, int]:
    """The folder and the run that a `trunk` names.

    Args:
        text: FOLDER:RUN, or FOLDER:FIRST-LAST.
        seed: of the run that begins with it: of several, number `seed`, counted on from the first after the last.

    Raises:
        UsageError: it is not of that form.
    """
    match = TRUNK.fullmatch(text)
    folder, first, last = match.groups() if match else ("", "0", None)
    if not folder or int(last or first) < int(first):
        raise UsageError(f"trunk: {text!r} is not FOLDER:RUN, as in runs/a:0, or FOLDER:FIRST-LAST")
    return Path(folder), int(first) + seed % (int(last or first) - int(first) + 1)


def resolve(recipe: Recipe) -> Recipe:
    """`recipe` with every `auto` written out."""
    kind = split_name(recipe.task)[0].split(":")[0]
    return dataclasses.replace(
        recipe,
        image_size=own_image_size(recipe) if recipe.image_size == "auto" else recipe.image_size,
        lr=OPTIMIZERS[recipe.optimizer].default_lr if recipe.lr == "auto" else recipe.lr,
        augment=AUTO_AUGMENT[kind not in PHOTOGRAPHS] if recipe.augment == "auto" else recipe.augment,
    )


def own_image_size(recipe: Recipe) -> int:
    """The image size of a recipe that leaves it to its task and, in compound scaling, to its model."""
    size = default_image_size(recipe.task)
    return compound_resolution(size, recipe.compound) if recipe.model == "efficientnet" else size


def _check_field(name: str, value: object) -> None:
    if name in NAMES and value not in NAMES[name]:
        raise unknown(name, value, NAMES[name])
    if name in RANGES and value not in ("auto", "all"):
        low, high, with_low, with_high = RANGES[name]
        # As it is trained with, too: in float32 a momentum of 0.999999999 would be 1.
        for number in (value, float(np.float32(value)) if isinstance(value, float) else value):
            if low < number < high or (with_low and value == low) or (with_high and value == high):
                continue
            lower, upper = "at least" if with_low else "above", "at most" if with_high else "below"
            rounded = "" if number == value else f": in float32 it is {number:g}"
            raise UsageError(f"{name}: {format_value(value)!r} is not {lower} {low} and {upper} {high:g}{rounded}")
