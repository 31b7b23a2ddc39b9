"""Refuses a sweep that cannot work, within a second: before any data is read and anything compiled."""

import dataclasses

from fishnet.augment import AUGMENTATIONS
from fishnet.data import check_task, default_image_size
from fishnet.errors import UsageError
from fishnet.lookup import unknown
from fishnet.losses import CLASS_WEIGHTINGS, LOSSES
from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.initializers import INITIALIZERS, VarianceScaling
from fishnet.nn.norms import KINDS, NORMS
from fishnet.nn.pooling import POOLS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep.recipe import SELECTABLE, Recipe, Sweep, format_value

PRECISIONS = ("float32", "bfloat16")
NORM_POSITIONS = ("pre", "post")
KNOWN_HOMES = ("fishnet", "jax", "jaxlib", "flax", "optax", "numpy")  # packages whose versions are recorded
PHOTOGRAPHS = ("reef", "folder")
SOFTMAX_LOSSES = ("cross_entropy", "class_weighted", "focal")  # members of the one formula, see losses.softmax_loss

NAMES = {
    "model": MODELS,
    "activation": ACTIVATIONS,
    "norm": NORMS,
    "norm_position": NORM_POSITIONS,
    "init": INITIALIZERS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "class_weighting": CLASS_WEIGHTINGS,
    "augment": ("auto", *AUGMENTATIONS),
    "select_by": SELECTABLE,
    "pool": POOLS,
    "precision": PRECISIONS,
}
# field -> (lowest, highest, whether the lowest and the highest are themselves allowed)
RANGES = {
    "depth": (1, 64, True, True),
    "stem_stride": (1, 8, True, True),
    "init_gain": (0, 1e6, False, True),
    "lr": (0, 1e6, False, True),
    "momentum": (0, 1, True, False),
    "weight_decay": (0, 1e6, True, True),
    "clip": (0, 1e30, True, True),
    "warmup": (0, 1, True, False),
    "focal_gamma": (0, 100, True, True),
    "label_smoothing": (0, 1, True, False),
    "dropout": (0, 1, True, False),
    "batch_size": (1, 2**20, True, True),
    "epochs": (1, 10**6, True, True),
    "patience": (0, 10**6, True, True),
}


def check_sweep(sweep: Sweep, data_dir: str | None = None, group_regex: str | None = None) -> None:
    """Checks every run's recipe and its task.

    Raises:
        UsageError: a name, value or combination that makes no sense; the message repeats it and lists valid ones.
        UserError: a task whose files are missing.
    """
    for name, values in [(n, [getattr(sweep.recipe, n)]) for n in NAMES.keys() | RANGES.keys()] + list(
        sweep.axes.items()
    ):
        for value in values:
            _check_field(name, value)
    seen = set()
    for arm in sweep.arms():
        recipe = dataclasses.replace(sweep.recipe, **arm)
        check_recipe(recipe)
        if (recipe.task, recipe.image_size) not in seen:
            seen.add((recipe.task, recipe.image_size))
            size = None if recipe.image_size == "auto" else recipe.image_size
            check_task(recipe.task, size, data_dir=data_dir, group_regex=group_regex)


def check_recipe(recipe: Recipe) -> None:
    """Checks the values of one recipe and their combination, not its task's files.

    Raises:
        UsageError: see `check_sweep`.
    """
    for name in NAMES.keys() | RANGES.keys():
        _check_field(name, getattr(recipe, name))
    if any(width < 1 for width in recipe.widths):
        raise UsageError(f"widths: {format_value(recipe.widths)!r} has a width below 1")
    if recipe.norm == "group" and any(width % 8 for width in recipe.widths):
        raise UsageError(f"norm group: its 8 groups do not divide every width of {format_value(recipe.widths)!r}")
    if recipe.norm == "instance" and recipe.model == "mlp":
        raise UsageError("norm instance with model mlp: one value has no variance; valid are none, batch, layer, group")
    # These three are formulas in the lanes of a program, so a table's further entries have no place there.
    if recipe.norm not in KINDS:
        raise UsageError(f"norm {recipe.norm!r} cannot be trained in a sweep: valid are {', '.join(KINDS)}")
    if recipe.loss not in SOFTMAX_LOSSES:
        raise UsageError(f"loss {recipe.loss!r} cannot be trained in a sweep: valid are {', '.join(SOFTMAX_LOSSES)}")
    if not isinstance(INITIALIZERS[recipe.init], VarianceScaling):
        raise UsageError(f"init {recipe.init!r} cannot be used in a sweep: it is not a VarianceScaling")
    if recipe.norm_layers != "all" and min(recipe.norm_layers) < 1:
        raise UsageError(f"norm_layers: {format_value(recipe.norm_layers)!r} has a layer below 1; layers count from 1")
    if recipe.stem_stride > 1 and recipe.model != "resnet":
        raise UsageError(f"stem_stride: {recipe.stem_stride} with model {recipe.model}: only resnet has such a stem")
    if recipe.patience >= recipe.epochs and recipe.patience:
        raise UsageError(f"patience {recipe.patience} is not below epochs {recipe.epochs}: it could never end a run")


def resolve(recipe: Recipe) -> Recipe:
    """`recipe` with every `auto` written out."""
    kind = recipe.task.split(":")[0]
    return dataclasses.replace(
        recipe,
        image_size=default_image_size(recipe.task) if recipe.image_size == "auto" else recipe.image_size,
        lr=OPTIMIZERS[recipe.optimizer].default_lr if recipe.lr == "auto" else recipe.lr,
        augment=("flip_shift" if kind in PHOTOGRAPHS else "none") if recipe.augment == "auto" else recipe.augment,
    )


def user_functions(sweep: Sweep) -> dict[str, object]:
    """The table entries named by the sweep that fishnet does not define: they belong in the specification's hash."""
    found = {}
    for field, table in NAMES.items():
        if not isinstance(table, dict):
            continue
        for name in {getattr(sweep.recipe, field), *sweep.axes.get(field, ())}:
            function = table.get(name)
            home = getattr(function, "__module__", None) or type(function).__module__
            if function is not None and home.split(".")[0] not in KNOWN_HOMES:
                found[f"{field}={name}"] = function
    return found


def _check_field(name: str, value: object) -> None:
    if name in NAMES and value not in NAMES[name]:
        raise unknown(name, value, NAMES[name])
    if name in RANGES and value != "auto":
        low, high, with_low, with_high = RANGES[name]
        if not (low < value < high or (with_low and value == low) or (with_high and value == high)):
            lower, upper = "at least" if with_low else "above", "at most" if with_high else "below"
            raise UsageError(f"{name}: {format_value(value)!r} is not {lower} {low} and {upper} {high:g}")
