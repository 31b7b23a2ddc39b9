"""Refuses a sweep that cannot work, or an option that would have no effect, before any data is read.

Every check raises a `UsageError` that repeats what was asked for and says what is valid.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fishnet.checks.value_types import format_value
from fishnet.data import Task, check_task
from fishnet.data.corruption_spec import parse_classes, split_name, task_folder
from fishnet.errors import UsageError
from fishnet.host.numbers import counted
from fishnet.host.paths import is_within, links_in
from fishnet.losses import LOSSES
from fishnet.metrics.classification import undefined_metrics
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.norm_formulas import WEIGHT_KINDS
from fishnet.nn.norms import NORMS
from fishnet.optim.freezing import check_stages
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.sweep.spec.recipe import EPOCH_PROBES, FIELDS, Recipe
from fishnet.sweep.spec.stopping import Stopping, parse_target
from fishnet.sweep.spec.sweep import Sweep
from fishnet.sweep.spec.trunk import parse_trunk

# An epoch of a run has about half a kilobyte of curves in memory, for 15 classes: a gigabyte for all.
MOST_EPOCHS = 2**21
MOST_LAYERS = 256  # widths times depth: what a compiler takes minutes for
RESIDUAL = ("resnet", "efficientnet")
READS_FILES = "mnist"  # the task that reads files of a data folder


def check_sweep(
    sweep: Sweep, data_dir: str | os.PathLike | None = None, group_regex: str | None = None, strict: bool = False
) -> None:
    """Checks every run's recipe and its task, and that everything that was asked for has an effect.

    Raises:
        UsageError: a name, value or combination that makes no sense; the message repeats it and lists valid ones.
        UserError: a task whose files are missing.
    """
    fixed = {name: [getattr(sweep.recipe, name)] for name in FIELDS}
    drawn = {name: domain.ends for name, domain in sweep.samples.space.items()}
    for name, values in [*fixed.items(), *sweep.axes.items(), *drawn.items()]:
        for value in values:
            FIELDS[name].check(value)
    recipes = [dataclasses.replace(sweep.recipe, **arm) for arm in sweep.arms()]
    runs, epochs = len(recipes) * len(sweep.seed_list), max(recipe.epochs for recipe in recipes)
    if runs * epochs > MOST_EPOCHS:
        raise UsageError(
            f"{runs:,} runs of up to {epochs:,} epochs are more than the {MOST_EPOCHS:,} epochs that a sweep can hold"
        )
    for recipe in recipes:
        check_recipe(recipe)
    tasks = [(recipe.task, None if recipe.image_size == "auto" else recipe.image_size) for recipe in recipes]
    classes = {key: check_task(*key, data_dir=data_dir, group_regex=group_regex) for key in dict.fromkeys(tasks)}
    check_uses(recipes)
    check_stopping(sweep)
    check_data_options(sweep, data_dir, strict)
    for recipe, key in zip(recipes, tasks, strict=True):
        if (names := classes[key]) is not None and recipe.hard_classes != "none":
            parse_classes(recipe.hard_classes, names)


def check_uses(recipes: Sequence[Recipe]) -> None:
    """Refuses a field that was set and that no recipe of the arms makes use of."""
    for name, field in FIELDS.items():
        if field.used_by is None:
            continue
        changed = [recipe for recipe in recipes if getattr(recipe, name) != field.default]
        if changed and not any(map(field.used_by.holds, changed)):
            value, needed = format_value(getattr(changed[0], name)), field.used_by.words()
            raise UsageError(f"{name}: {value!r} would have no effect in any run: it is used only with {needed}")


def check_stopping(sweep: Sweep) -> None:
    """Refuses rules that could not end any arm before its last epoch."""
    stopping, longest = sweep.stopping, max(sweep.values("epochs"))
    rules = [name for name, given in (("halving", stopping.halving), ("median", stopping.median)) if given]
    useless = f"{' and '.join(rules)} stopping would have no effect"
    if rules and len(sweep.arms()) == 1:
        raise UsageError(f"{useless}: it compares arms, and there is one")
    if rules and stopping.first >= longest:
        raise UsageError(
            f"{useless}: the first rung, after {counted(stopping.first, 'epoch')}, is not before the last of "
            f"{counted(longest, 'epoch')}"
        )
    if stopping.target and longest == 1:
        raise UsageError(f"target {stopping.target!r} would have no effect: the arms have one epoch")


def check_lowering(sweep: Sweep, lowering: str | None) -> None:
    """Refuses a lowering of convolutions where all networks are mlps."""
    if lowering is not None and not has_convolutions(sweep):
        raise UsageError(f"lowering {lowering} would have no effect: an mlp has no convolutions")


def has_convolutions(sweep: Sweep) -> bool:
    """Tells whether any network of a sweep has convolutions: a model other than an mlp, or what pretrains it."""
    return set(sweep.values("model")) != {"mlp"} or set(sweep.values("pretrain")) != {"none"}


def convolves(recipe: Recipe) -> bool:
    """Tells whether a network has convolutions: of a model other than an mlp, or of what pretrains it."""
    return recipe.model != "mlp" or recipe.pretrain != "none"


def check_data_options(sweep: Sweep, data_dir: str | os.PathLike | None = None, strict: bool = False) -> None:
    """Refuses options for data that none of the tasks reads: they would change a folder's name, or nothing."""
    kinds = {split_name(task)[0].split(":")[0] for task in sweep.values("task")}
    if data_dir is not None and READS_FILES not in kinds:
        raise UsageError(
            f"the data folder {data_dir} would have no effect: it belongs to the task {READS_FILES}; "
            "a folder of photographs is a task of its own, folder:PATH"
        )
    if strict and "folder" not in kinds:
        raise UsageError("strict would have no effect: it belongs to the tasks folder:PATH, whose files may be bad")


def check_out(sweep: Sweep, out: str | Path) -> None:
    """Refuses an output folder inside a folder of photographs, where it would be taken for a class, and the reverse."""
    tasks = {sweep.recipe.task, *sweep.varied.get("task", ())}
    # A folder that is missing or cannot be read is refused elsewhere, with the reason.
    for folder in filter(None, map(task_folder, sorted(tasks))):
        if is_within(out, folder) or any(is_within(out, link) for link in links_in(folder)):
            raise UsageError(
                f"the output folder {out} is within the photographs of {folder}, where the next run would take it for "
                "a class: choose an --out elsewhere"
            )
        if is_within(folder, out):
            raise UsageError(f"the photographs of {folder} are within the output folder {out}: choose another --out")


# --- when the data are there ---


def check_selection(recipes: Iterable[Recipe], tasks: Mapping[tuple[str, Any], Task], stopping: Stopping) -> None:
    """Refuses to select, stop or compare runs, without `auto`, by a metric that is undefined in every epoch."""
    target = [("target", parse_target(stopping.target)[0])] if stopping.target else []
    asked = {(r.task, r.image_size, *by) for r in recipes for by in [("select_by", r.select_by), *target]}
    for name, size, option, column in sorted(asked):
        task = tasks[name, size]
        split, _, metric = column.partition("_")
        if split == "val" and metric in undefined_metrics(task.split_labels(split), len(task.classes)):
            raise UsageError(f"{option}: {column} is undefined in every epoch: {task.describe_split(split)}")


def selection_notes(tasks: Iterable[Task]) -> Iterator[str]:
    """Notes about metrics that no run can have on these splits."""
    for task in tasks:
        for split in ("val", "test"):
            names = undefined_metrics(task.split_labels(split), len(task.classes))
            if names:
                columns = ", ".join(f"{split}_{name}" for name in names)
                yield f"{columns}: undefined, since {task.describe_split(split)}"


# --- one recipe ---


def check_recipe(recipe: Recipe) -> None:
    """Checks the values of one recipe and their combination, not its task's files."""
    for name, field in FIELDS.items():
        field.check(getattr(recipe, name))
    if recipe.trunk != "none":
        parse_trunk(recipe.trunk)
    check_stages(recipe.layer_rate, recipe.unfreeze, recipe.unfreeze_rates)
    if recipe.batch_size != "all":
        check_ghosts(recipe, recipe.batch_size)
    for problems in (component_problems, shape_problems, norm_problems, training_problems):
        for problem in problems(recipe):
            raise UsageError(problem)


def check_ghosts(recipe: Recipe, batch_size: int) -> None:
    """Refuses a batch that cannot be cut into the recipe's ghost batches."""
    if recipe.ghost_batch and batch_size % recipe.ghost_batch:
        raise UsageError(f"ghost_batch: {recipe.ghost_batch} does not divide batch_size {batch_size}")


def component_problems(recipe: Recipe) -> Iterator[str]:
    """Components of the user where a sweep computes with one formula for all lanes."""
    for field, table in (("norm", NORMS), ("loss", LOSSES)):
        name = getattr(recipe, field)
        if name not in table.original:
            yield f"{field} {name!r} cannot be trained in a sweep: valid are {', '.join(table.original)}"
        elif not table.is_own(name):
            yield f"{field} {name!r} was replaced in its table, but a sweep has a formula of its own for it"
    if not isinstance(INITIALIZERS[recipe.init], VarianceScaling):
        yield f"init {recipe.init!r} cannot be used in a sweep: it is not a VarianceScaling"


def shape_problems(recipe: Recipe) -> Iterator[str]:
    """Fields that a model has no layers for, and too many layers."""
    model, residual = recipe.model, f"only {' and '.join(RESIDUAL)}"
    if len(recipe.widths) * recipe.depth > MOST_LAYERS:
        yield f"widths, depth: {len(recipe.widths)} stages of depth {recipe.depth} are more than {MOST_LAYERS} layers"
    if recipe.stem_stride > 1 and model not in RESIDUAL:
        yield f"stem_stride: {recipe.stem_stride} with model {model}: {residual} have such a stem"
    if model == "mlp" and "blocks" in recipe.dropout_layers.split("+"):
        yield "dropout_layers: 'blocks' with model mlp: it has dense layers only"
    if model == "mlp" and recipe.se_reduction not in ("auto", 0):
        yield f"se_reduction: {recipe.se_reduction} with model mlp: it has no maps"
    if model == "hybrid" and recipe.hard_classes == "none":
        yield "model hybrid needs hard_classes: the classes that its expert head is for"
    skipped = f"stochastic_depth: {recipe.stochastic_depth:g}"
    if recipe.stochastic_depth and model not in RESIDUAL:
        yield f"{skipped} with model {model}: {residual} have branches to leave out"
    if recipe.stochastic_depth and recipe.shortcut == "none":
        yield f"{skipped} with shortcut none: nothing would go past"


def norm_problems(recipe: Recipe) -> Iterator[str]:
    """Places where a norm cannot stand, and settings that it undoes."""
    norm, weights = recipe.norm, recipe.norm in WEIGHT_KINDS
    if norm == "group" and any(width % 8 for width in recipe.widths):
        yield f"norm group: its 8 groups do not divide every width of {format_value(recipe.widths)!r}"
    if norm == "instance" and recipe.model == "mlp":
        yield "norm instance with model mlp: one value has no variance; choose any other norm"
    if weights and INITIALIZERS[recipe.init].unit_variance:
        yield f"init {recipe.init} with norm {norm}: the norm takes the kernels' lengths away again"
    if weights and recipe.norm_position == "post":
        yield f"norm {norm} with norm_position post: it acts on the kernel, ahead of any activation"
    if recipe.block == "preactivation" and recipe.norm_position == "post":
        yield "block preactivation with norm_position post: its norms stand before the activations"
    if recipe.block == "preactivation" and weights:
        yield f"norm {norm} with block preactivation: its norms stand behind sums, not behind kernels"


def training_problems(recipe: Recipe) -> Iterator[str]:
    """Values that could have no effect in any epoch, or contradict the optimizer."""
    epochs = recipe.epochs
    if recipe.batch_size == 1 and (recipe.mixup or recipe.cutmix):
        yield "mixup and cutmix with batch_size 1: they would mix each image with itself"
    if recipe.unfreeze[-1] >= epochs:
        yield f"unfreeze: {format_value(recipe.unfreeze)!r} ends beyond the run: epochs {epochs} count from 0"
    layered = recipe.layer_rate != 1 or recipe.unfreeze != (0,) or recipe.unfreeze_rates != (1.0,)
    if recipe.optimizer == "schedule_free" and (layered or recipe.freeze != "none"):
        yield "optimizer schedule_free with freeze, unfreeze or layer_rate: it evaluates an average of whole steps"
    if recipe.probe_epochs > epochs and EPOCH_PROBES.holds(recipe):
        yield f"probe_epochs: {recipe.probe_epochs} is more than epochs {epochs}: no such probe would ever be taken"
    lr = OPTIMIZERS[recipe.optimizer].default_lr if recipe.lr == "auto" else recipe.lr
    if recipe.lr_min > lr:
        yield f"lr_min: {recipe.lr_min:g} is above lr {lr:g}"
    if recipe.patience and recipe.patience >= epochs:
        yield f"patience {recipe.patience} is not below epochs {epochs}: it could never end a run"
